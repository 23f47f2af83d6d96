package processors

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// vigil has a call broken off that is silent for too long: to the first token,
// and then from each piece of the answer to the next. Providers only obey ctx.
// The time that it takes to write a piece is not the provider's.
//
// The call's goroutine says when it begins and ends to wait for the model; the
// loop looks at every tick who has waited too long, so that no call needs a timer.
type vigil struct {
	cancel      context.CancelCauseFunc // breaks the call off
	now         func() time.Time
	made        time.Time
	first, next time.Duration
	spoke       atomic.Bool  // a token has come: somebody may have seen it
	until       atomic.Int64 // nanoseconds since made, when it is too long; 0: nobody waits
}

// listen counts from now on.
func (v *vigil) listen() {
	waited := int64(v.now().Sub(v.made))
	if v.spoke.Load() {
		v.until.Store(waited + int64(v.next))
	} else { // from the first time on
		v.until.CompareAndSwap(0, waited+int64(v.first))
	}
}

// heard takes note of a piece of the answer. One that says nothing is a sign of
// life only behind the first token.
func (v *vigil) heard(c *llm.Chunk) {
	if v.spoke.Load() || says(c) {
		v.spoke.Store(true)
		v.until.Store(0)
	}
}

// rest ends the waiting.
func (v *vigil) rest() { v.until.Store(0) }

// check breaks the call off if it has waited too long.
func (v *vigil) check(now time.Time) {
	until := v.until.Load()
	switch {
	case until == 0 || int64(now.Sub(v.made)) < until:
	case v.spoke.Load():
		v.cancel(fault.New(fault.ProviderTimeout, "the model fell silent for %s in the middle of its answer", v.next))
	default:
		v.cancel(fault.New(fault.ProviderTimeout, "the model said nothing within %s", v.first))
	}
}

// says tells whether a piece holds anything of the answer.
func says(c *llm.Chunk) bool {
	return c.Content != "" || c.Reasoning != "" || c.Refusal != "" || c.ToolCalls != nil || c.Logprobs != nil || c.Embedding != nil
}

// retryOf decides whether a call that failed before it said anything is made
// again, and when; nil: it is not. Then the output is closed.
func (p *Processor) retryOf(o *output, s *engine.Start, err error) *engine.Retry {
	f := fault.From(err)
	if !f.Retryable() {
		return nil
	}
	wait, ok := p.cfg.Retry.Wait(s.Try, f.RetryAfter, p.cfg.Random())
	at := p.now().Add(wait)
	if d := s.Request.Data.Deadline; !ok || !d.IsZero() && !at.Before(d) {
		return nil
	}
	p.metrics.retries.WithLabelValues(s.Lane.String(), string(f.Code)).Inc()
	return &engine.Retry{At: at, Again: o.abandon(), Fact: event.Encode(event.Retrying{
		Code: string(f.Code), Message: shortened(f.Message), RetryAt: at.UTC().Format(event.TimeLayout),
	})}
}
