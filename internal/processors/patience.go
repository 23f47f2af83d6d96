package processors

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// vigil breaks a call off that is silent for too long: to the first token, and
// then from each piece of the answer to the next. Providers only obey ctx. The
// time that it takes to write a piece is not the provider's.
//
// It is of the call's goroutine alone, but for its timer.
type vigil struct {
	cancel      context.CancelCauseFunc
	first, next time.Duration
	timer       *time.Timer
	spoke       bool // a token has come: somebody may have seen it
}

// watch makes the context of a call, and the vigil over it.
func (p *Processor) watch(ctx context.Context) (context.Context, *vigil) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &vigil{cancel: cancel, first: p.cfg.FirstToken, next: p.cfg.NextToken}
}

// begin counts from now on.
func (v *vigil) begin() {
	v.timer = time.AfterFunc(v.first, func() {
		v.cancel(fault.New(fault.ProviderTimeout, "the model said nothing within %s", v.first))
	})
}

// piece takes note of a piece of the answer. One that says nothing is a sign of
// life only behind the first token.
func (v *vigil) piece(c *llm.Chunk) {
	switch {
	case v.spoke:
		v.timer.Stop()
	case says(c):
		v.spoke = true
		v.timer.Stop()
		v.timer = nil
	}
}

// wait counts anew, for the next piece.
func (v *vigil) wait() {
	switch {
	case !v.spoke:
	case v.timer != nil:
		v.timer.Reset(v.next)
	default:
		v.timer = time.AfterFunc(v.next, func() {
			v.cancel(fault.New(fault.ProviderTimeout, "the model fell silent for %s in the middle of its answer", v.next))
		})
	}
}

func (v *vigil) end() {
	if v.timer != nil {
		v.timer.Stop()
	}
	v.cancel(nil)
}

// says tells whether a piece holds anything of the answer.
func says(c *llm.Chunk) bool {
	return c.Content != "" || c.Reasoning != "" || c.Refusal != "" || c.ToolCalls != nil || c.Logprobs != nil || c.Embedding != nil
}

// retryOf decides whether a call that failed before it said anything is made
// again, and when; nil: it is not. Then the output is closed.
func (p *Processor) retryOf(o *output, s engine.Start, err error) *engine.Retry {
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
