package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// gatherer holds records back for a moment while many come, so that one request
// takes them all. What it holds has its room in the producer, which bounds it.
type gatherer struct {
	longest time.Duration
	busy    float64 // records a second

	mu    sync.Mutex
	flow  flow
	held  []held
	timer *time.Timer
}

// held is a record on its way to the client.
type held struct {
	ctx  context.Context //nolint:containedctx // of the record, which the client takes with it
	rec  *kgo.Record
	done func(*kgo.Record, error)
}

// hand gives a record to the client, behind those that are held. One that can
// wait is held where there are many.
func (p *Producer) hand(h held, canWait bool) {
	g := &p.gather
	g.mu.Lock()
	defer g.mu.Unlock()
	if !canWait {
		p.releaseHeld()
		p.client.Produce(h.ctx, h.rec, h.done)
		return
	}
	wait := rest(g.longest, g.flow.add(1, time.Now()), g.busy)
	switch {
	case len(g.held) > 0:
		g.held = append(g.held, h)
	case wait <= 0:
		p.client.Produce(h.ctx, h.rec, h.done)
	default:
		g.held = append(g.held, h)
		if g.timer == nil {
			g.timer = time.AfterFunc(wait, p.releaseAll)
		} else {
			g.timer.Reset(wait)
		}
	}
}

// releaseAll hands over all that is held.
func (p *Producer) releaseAll() {
	p.gather.mu.Lock()
	defer p.gather.mu.Unlock()
	p.releaseHeld()
}

// releaseHeld is releaseAll with the gatherer's lock held.
func (p *Producer) releaseHeld() {
	for i, h := range p.gather.held {
		p.client.Produce(h.ctx, h.rec, h.done)
		p.gather.held[i] = held{}
	}
	p.gather.held = p.gather.held[:0]
}
