package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// interruptEvery is the least time between a fetch's start and its being broken
// off for a partition that came in: breaking it off costs the connection, about
// a millisecond on a machine of its own.
const interruptEvery = 10 * time.Millisecond

// errInterrupted ends a fetch that was broken off.
var errInterrupted = errors.New("broken off for a partition that came in")

// lane is one connection to one broker with at most one fetch under way. While
// the first lane is parked, the second takes what comes in; what comes in while
// both are parked breaks the second one's fetch off. A partition is under way on
// one lane at a time.
type lane struct {
	broker int32
	index  int
	client *kgo.Client
	wake   chan struct{} // there may be something to fetch

	// Guarded by the reader's mu.
	busy    bool // a fetch is under way
	fetches int  // begun so far
	began   time.Time
	cancel  context.CancelFunc // of the fetch under way
	held    int                // bytes fetched and not yet taken
}

// claim is a partition that a lane fetches, in the generation that it was in.
type claim struct {
	cursor     *cursor
	generation uint64
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

// interrupt breaks a lane's fetch off, once it has had its time. The caller
// holds mu.
func (r *reader) interrupt(l *lane) {
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
	fails, interrupted := 0, false
	for {
		ctx, cancel := context.WithCancel(r.ctx)
		batch, parts := r.claim(l, cancel)
		if len(batch) == 0 {
			cancel()
			select {
			case <-l.wake:
				continue
			case <-r.ctx.Done():
				return
			}
		}
		resp, err := fetch(ctx, l.client, l.broker, parts, r.limits)
		// The connection that a fetch was broken off on may fail the next one too.
		again := err != nil && interrupted
		interrupted = err != nil && ctx.Err() != nil
		cancel()
		if interrupted || again {
			err = errInterrupted
		}
		r.settle(l, batch, resp, err)
		if r.ctx.Err() != nil {
			return
		}
		if err == nil || interrupted || again {
			fails = 0
			continue
		}
		fails++
		if !wait(r.ctx, backoff(fails)) {
			return
		}
	}
}

// claim takes every ready partition of a lane's broker for its next fetch. A
// lane whose last fetches wait to be taken claims nothing, and the second lane
// leaves a free first one the work.
func (r *reader) claim(l *lane, cancel context.CancelFunc) ([]claim, []wanted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.held >= int(r.limits.bytes) {
		return nil, nil
	}
	if first := r.lanes[l.broker][0]; l != first && !first.busy {
		return nil, nil
	}
	var (
		batch []claim
		parts []wanted
	)
	// The order of a map's keys is another every time, so no partition is always
	// the first to fill an answer.
	for _, c := range r.cursors {
		if c.leader.broker == l.broker && c.ready() {
			c.fetching = true
			batch = append(batch, claim{c, c.generation})
			parts = append(parts, wanted{c.TopicPartition, c.id, c.at, c.leader.epoch})
		}
	}
	if len(batch) > 0 {
		l.busy, l.began, l.cancel = true, time.Now(), cancel
		l.fetches++
	}
	return batch, parts
}
