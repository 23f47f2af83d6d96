package kafka

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// interruptEvery is the least time between a fetch's start and its being broken
// off for a partition that came in: breaking it off costs the connection, about
// a millisecond on a machine of its own.
const interruptEvery = 10 * time.Millisecond

// errAgain ends a fetch that says nothing of its partitions: it was broken off,
// or its session is over.
var errAgain = errors.New("to be sent again")

// lane is one connection to one broker with at most one fetch under way. While
// the first lane is parked, the second takes what comes in; what comes in while
// both are parked breaks the second one's fetch off. A partition is under way on
// one lane at a time.
type lane struct {
	broker int32
	index  int
	client *kgo.Client
	wake   chan struct{} // there may be something to fetch

	// The lane's goroutine's own; batch and parts are of the fetch under way.
	session session
	batch   []*cursor
	parts   []wanted

	// Guarded by the reader's mu.
	busy    bool // a fetch is under way, or held back
	held    bool // back for the pace
	brief   bool // the fetch does not wait at the broker
	fetches int  // begun so far
	began   time.Time
	cancel  context.CancelFunc // of the fetch under way
	bytes   int                // fetched and not yet taken
}

// wake tells a broker's lanes that a partition may be ready; it makes them
// where they are new. The caller holds mu.
func (r *reader) wake(broker int32) {
	if broker < 0 || r.ctx.Err() != nil {
		return
	}
	pair := r.lanes[broker]
	if pair == nil {
		pair = &[laneCount]*lane{}
		r.lanes[broker] = pair
		for i := range pair {
			pair[i] = &lane{broker: broker, index: i, client: r.clients[i], wake: make(chan struct{}, 1)}
			r.wg.Go(func() { r.runLane(pair[i]) })
		}
	}
	for _, l := range pair {
		if l.held { // breaking it off costs nothing, and it takes everything in
			l.cancel()
			return
		}
	}
	free := false
	for _, l := range pair {
		if !l.busy {
			free = true
			signal(l.wake)
		}
	}
	if !free {
		r.interrupt(pair[laneCount-1])
	}
}

// interrupt breaks a lane's fetch off, once it has had its time; one that does
// not wait ends by itself. The caller holds mu.
func (r *reader) interrupt(l *lane) {
	if l.brief {
		return
	}
	left := interruptEvery - time.Since(l.began)
	if left <= 0 {
		l.cancel()
		return
	}
	fetch := l.fetches
	time.AfterFunc(left, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if l.busy && l.fetches == fetch {
			l.cancel()
		}
	})
}

// runLane fetches what is ready until the reader is closed.
func (r *reader) runLane(l *lane) {
	defer l.session.close(l.client, l.broker)
	fails, interrupted := 0, false
	var earliest time.Time // of the next fetch, for the pace
	for {
		ctx, cancel := context.WithCancel(r.ctx)
		limits, ok := r.claim(l, cancel, earliest)
		if !ok {
			cancel()
			select {
			case <-l.wake:
				continue
			case <-r.ctx.Done():
				return
			}
		}
		if !r.hold(ctx, l, earliest) {
			cancel()
			r.settle(l, nil, errAgain)
			if r.ctx.Err() != nil {
				return
			}
			continue
		}
		resp, err := l.session.fetch(ctx, l.client, l.broker, l.parts, limits)
		// The connection that a fetch was broken off on may fail the next one too.
		again := err != nil && interrupted || errors.Is(err, errSession)
		interrupted = err != nil && ctx.Err() != nil
		cancel()
		if again = again || interrupted; again {
			err = errAgain
		}
		earliest = time.Time{}
		if brought, pace := r.settle(l, resp, err); brought {
			earliest = time.Now().Add(pace)
			// Who takes the records is to run before the next fetch is written: its
			// goroutine stands behind this one.
			runtime.Gosched()
		}
		if r.ctx.Err() != nil {
			return
		}
		if err == nil || again {
			fails = 0
			continue
		}
		fails++
		if !wait(r.ctx, backoff(fails)) {
			return
		}
	}
}

// hold waits for the time of a fetch that is held back, and tells whether it is
// to be sent: not where something came in meanwhile.
func (r *reader) hold(ctx context.Context, l *lane, earliest time.Time) bool {
	if !l.held { // claim has set it, in this goroutine
		return true
	}
	wait(ctx, time.Until(earliest))
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	l.held, l.began = false, time.Now()
	return true
}

// claim takes every ready partition of a lane's broker for its next fetch, and
// tells whether there is any. A lane whose last fetches wait to be taken claims
// nothing, and the second lane leaves a free first one the work, as well as one
// that is held back: one fetch is less work than two.
//
// A fetch with a partition that was followed meanwhile is not held back, and
// does not wait at the broker: the partition's end is told at once. Nor does one
// that asks for a session: an id that never arrived would keep its room there,
// so that fetch must not be broken off.
func (r *reader) claim(l *lane, cancel context.CancelFunc, earliest time.Time) (fetchLimits, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	limits := r.limits.fetchLimits
	l.batch, l.parts = l.batch[:0], l.parts[:0]
	if l.bytes >= int(limits.bytes) {
		if l.index == 0 { // the second one leaves it the work
			r.partAll(l.broker)
		}
		return limits, false
	}
	if first := r.lanes[l.broker][0]; l != first && (!first.busy || first.held) {
		if first.held {
			first.cancel()
		} else {
			signal(first.wake)
		}
		return limits, false
	}
	if l.session.asks() {
		limits.wait = 0
	}
	// The order of a map's keys is another every time, so no partition is always
	// the first to fill an answer.
	for _, c := range r.cursors {
		if c.leader.broker == l.broker && c.ready() {
			c.by = l
			l.batch = append(l.batch, c)
			l.parts = append(l.parts, wanted{c.TopicPartition, c.id, c.at, c.leader.epoch})
			if c.fresh {
				limits.wait = 0
			}
		}
	}
	if len(l.batch) == 0 {
		return limits, false
	}
	l.busy, l.began, l.cancel = true, time.Now(), cancel
	l.brief = limits.wait == 0
	l.held = !l.brief && l.began.Before(earliest)
	l.fetches++
	return limits, true
}
