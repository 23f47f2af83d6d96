package kafka

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sideWait is the longest that a broker's second lane parks: the delay of a
// partition that comes in while both lanes are parked.
const sideWait = 50 * time.Millisecond

// lane is one connection to one broker with at most one fetch under way. The
// first lane parks for the whole FetchMaxWait; the second takes what comes in
// meanwhile. A partition is under way on one lane at a time.
type lane struct {
	broker int32
	index  int
	client *kgo.Client
	wake   chan struct{} // there may be something to fetch

	// Guarded by the reader's mu.
	busy bool // a fetch is under way
	held int  // bytes fetched and not yet taken
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
	for _, l := range pair {
		if !l.busy {
			signal(l.wake)
		}
	}
}

// runLane fetches what is ready until the reader is closed.
func (r *reader) runLane(l *lane) {
	fails := 0
	for {
		batch, parts := r.claim(l)
		if len(batch) == 0 {
			select {
			case <-l.wake:
				continue
			case <-r.ctx.Done():
				return
			}
		}
		limits := r.limits
		if l.index > 0 {
			limits.wait = min(limits.wait, sideWait)
		}
		resp, err := r.c.fetch(r.ctx, l.client, l.broker, parts, limits)
		r.settle(l, batch, resp, err)
		if err == nil {
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
func (r *reader) claim(l *lane) ([]claim, []wanted) {
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
	l.busy = len(batch) > 0
	return batch, parts
}
