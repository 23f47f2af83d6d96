package processors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/processors/engine"
	"github.com/penstock-io/penstock/internal/telemetry"
)

// errDeadline is the cause of a call's context when the request's deadline passed.
var errDeadline = fault.New(fault.DeadlineExceeded, "the request's deadline passed before its answer was whole")

// call is one call of a model, or what takes its place.
type call struct {
	engine.Start
	vigil
	gate *gate
	// Ends with the lane's incarnation, or where the call is broken off: by
	// whoever cancels the job (errCancelled), by the request's deadline
	// (errDeadline), or for its silence.
	ctx context.Context //nolint:containedctx // of this call alone
}

func (p *Processor) newCall(g *gate, s engine.Start) *call {
	c := &call{Start: s, gate: g, vigil: vigil{now: p.now, made: p.now(), first: p.cfg.FirstToken, next: p.cfg.NextToken}}
	c.ctx, c.cancel = context.WithCancelCause(g.ctx)
	return c
}

// run runs one job, from the engine's Start to its Ended: it looks up what the
// log holds of it, calls the model, and writes the output.
func (p *Processor) run(c *call) {
	defer c.cancel(nil)
	in := engine.Ended{LP: c.LP, Gen: c.Gen, Offset: c.Request.Offset, Cancelled: c.Cancelled, Tenant: c.Request.Head.Tenant}
	defer func() { p.box.post(in) }()
	var span telemetry.Span
	c.ctx, span = p.span(c.ctx, &c.Start)
	defer func() { endSpan(span, &in) }()
	if d := c.Request.Data.Deadline; !d.IsZero() {
		var cancel context.CancelFunc
		c.ctx, cancel = context.WithDeadlineCause(c.ctx, d, errDeadline)
		defer cancel()
	}
	transcript, err := p.recall(c.gate, &c.Start)
	if err != nil {
		if c.gate.ctx.Err() == nil { // the log cannot be read as it should: what we believe of the lane is in doubt
			p.log.ErrorContext(c.ctx, "a job's output could not be read from the log", "job", c.Request.Head.Job, "error", err)
			if errors.Is(err, kafka.ErrCorrupt) {
				sleep(c.gate.ctx, kafka.StandStill)
			}
			p.box.post(engine.WriteFailed{LP: c.LP, Gen: c.Gen})
		}
		return
	}
	said := &transcript
	in.Found = said.End != ""
	if !in.Found {
		o := p.output(c.gate, &c.Start, said)
		o.span = span
		o.traceparent = cmp.Or(span.Traceparent(), string(c.Request.Record.Traceparent()))
		defer o.close()
		retry, err := p.answer(c, o)
		if errors.Is(err, kafka.ErrTooLarge) {
			retry, err = nil, p.outgrown(c, o, err)
		}
		switch {
		case err != nil:
			p.brokenOff(c, err)
			return
		case retry != nil:
			in.Retry, in.Attempt, in.At = retry, o.head.Attempt, p.now()
			return
		}
		said = &o.transcript
		p.metrics.served.tell(o.answer(&c.Start))
	}
	in.Type, in.Data = said.Fact()
	in.Attempt, in.At = said.Attempt, said.EndedAt
	p.metrics.ended.WithLabelValues(c.Lane.String(), string(in.Type)).Inc()
}

// brokenOff takes the end of a call that wrote no terminal event.
func (p *Processor) brokenOff(c *call, err error) {
	if c.gate.ctx.Err() != nil || errors.Is(err, errShut) {
		return // the lane is going: its next owner takes the job up
	}
	p.log.Error("an output could not be written", "job", c.Request.Head.Job, "error", err)
	p.box.post(engine.WriteFailed{LP: c.LP, Gen: c.Gen})
}

// outgrown ends a job of which an event is larger than the log takes. Our bounds
// are there for it never to be so; where one is missing this is the job's end,
// and not its partition's, whose every owner would come to the same event anew.
func (p *Processor) outgrown(c *call, o *output, err error) error {
	p.log.ErrorContext(c.ctx, "an output is larger than the log takes: its job fails", "job", o.head.Job, "error", err)
	o.clear()
	return o.fail(fault.Wrap(err, fault.Internal, "a part of the answer is larger than the log takes: %d bytes at most", o.limits.event))
}

func (p *Processor) output(g *gate, s *engine.Start, t *job.Transcript) *output {
	h := s.Request.Head
	h.Lane, h.Attempt = s.Lane, max(t.Attempt, 1)
	o := &output{
		gate: g, out: p.out, topic: p.tokens, key: keyOf(&h), head: h,
		now: p.now, coalesce: p.cfg.coalesce(), limits: p.cfg.limits(), transcript: *t, found: t.NextSeq, ctx: g.ctx,
		unwatched: !s.Request.Data.Streams(), started: t.Started,
	}
	o.coalesce.tempo = p.tempo
	if t.NextSeq > 0 {
		o.said = len(event.Encode(t.Output()))
	}
	if id, minted := job.ParseID(h.Job); minted {
		o.notBefore = id.Time
	}
	o.failed = p.hole
	return o
}

// hole takes an output that Kafka did not take, though it was accepted.
func (p *Processor) hole(o *output, err error) {
	o.gate.cancel() // nothing may follow behind the hole
	p.log.Error("kafka did not take an output", "job", o.head.Job, "error", err)
	p.box.post(engine.WriteFailed{LP: o.gate.lp, Gen: o.gate.gen})
}

// answer writes a job's output to its end, or says that the call is to be made
// again. The error says that it could not be written; what goes wrong with the
// model is part of the output.
func (p *Processor) answer(c *call, o *output) (retry *engine.Retry, err error) {
	defer func() { // else one job would end one process after the other
		if r := recover(); r != nil {
			p.log.ErrorContext(c.ctx, "a call panicked", "job", o.head.Job, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			retry, err = nil, o.fail(fault.New(fault.Internal, "the model's answer could not be handled"))
		}
	}()
	switch {
	case c.Expired:
		return nil, o.fail(fault.New(fault.Expired, "the request is older than what the log still holds of any output"))
	case c.Cancelled || errors.Is(context.Cause(c.ctx), errCancelled):
		return nil, o.emit(event.OutputCancelled, event.Stopped{})
	}
	provider, req, err := p.resolve(o, &c.Start)
	if err != nil {
		return nil, o.fail(err)
	}
	stream, err := p.begin(c.ctx, o, provider, req, c.Again)
	if err != nil {
		return nil, err
	}
	end := event.Completed{Model: req.Model}
	c.listen()
	defer c.rest()
	for piece, err := range stream {
		if err == nil { // else whatever comes now is not waited for any more
			err = context.Cause(c.ctx)
		}
		if err != nil {
			return p.broken(c, o, err)
		}
		c.heard(&piece)
		if err := o.chunk(&piece, &end); err != nil || o.ended() {
			return nil, err
		}
		c.listen()
	}
	if cause := context.Cause(c.ctx); cause != nil && len(end.Choices) == 0 {
		return p.broken(c, o, cause) // it went, and did not say that it was told to
	}
	if o.ctx.Err() != nil {
		return nil, errShut
	}
	return nil, o.emit(event.OutputCompleted, end)
}

// broken takes a call that did not come to its end: it was cancelled, or is to
// be made again, or has failed.
func (p *Processor) broken(c *call, o *output, err error) (*engine.Retry, error) {
	if o.ctx.Err() != nil {
		return nil, errShut
	}
	if cause := context.Cause(c.ctx); cause != nil {
		err = cause // a cancel, the deadline or its silence, whatever the provider made of it
	}
	if errors.Is(err, errCancelled) {
		return nil, o.emit(event.OutputCancelled, event.Stopped{})
	}
	if !c.spoke.Load() {
		if retry := p.retryOf(o, &c.Start, err); retry != nil {
			return retry, nil
		}
	}
	return nil, o.fail(err)
}

func (p *Processor) resolve(o *output, s *engine.Start) (llm.Provider, llm.Request, error) {
	provider, name, err := p.models.Resolve(s.Request.Data.Model)
	if err != nil {
		return nil, llm.Request{}, err
	}
	return provider, llm.Request{
		Job: o.head.Job, Attempt: o.head.Attempt, Endpoint: s.Request.Data.Endpoint, Model: name, Body: s.Request.Data.Body,
	}, nil
}

// begin starts the model: anew, or from what the log holds of the answer, or
// with a fresh attempt where the model cannot go on from there, or where an
// earlier try of ours failed.
func (p *Processor) begin(ctx context.Context, o *output, provider llm.Provider, req llm.Request, again *engine.Again) (iter.Seq2[llm.Chunk, error], error) {
	t := &o.transcript
	started := event.Started{Model: req.Model, Provider: provider.Name()}
	reason := "its processor was lost, and the model cannot go on from the middle"
	switch {
	case again != nil:
		reason = "the provider failed before it said anything, and is asked again"
	case t.NextSeq == 0:
		return provider.Stream(ctx, req), o.open(started)
	default:
		prefix := llm.Prefix{Content: t.Text(), Reasoning: t.Reasoning(), Chunks: t.Deltas}
		if c, ok := provider.(llm.Continuer); ok && t.PlainText() && c.CanContinue(req, prefix) {
			p.metrics.taken.WithLabelValues("continued").Inc()
			o.span.Event("continued", "its processor was lost")
			return c.Continue(ctx, req, prefix), nil
		}
		p.metrics.taken.WithLabelValues("superseded").Inc()
	}
	o.span.Event("superseded", reason)
	if t.NextSeq > 0 { // else nobody has seen anything of the earlier try
		if err := o.emit(event.OutputSuperseded, event.Superseded{Reason: reason}); err != nil {
			return nil, err
		}
	}
	o.head.Attempt++
	o.said = 0
	req.Attempt = o.head.Attempt
	return provider.Stream(ctx, req), o.open(started)
}

// chunk takes one piece of a model's answer.
func (o *output) chunk(c *llm.Chunk, end *event.Completed) error {
	d := event.Delta{
		Index: c.Index, Content: c.Content, Reasoning: c.Reasoning, Refusal: c.Refusal,
		ToolCalls: c.ToolCalls, Logprobs: c.Logprobs, Embedding: c.Embedding,
	}
	if c.FinishReason != "" || !silent(&d) {
		if err := o.acceptable(&d); err != nil {
			return o.fail(err)
		}
	}
	if err := o.conclude(c, end); err != nil {
		return o.fail(err)
	}
	if silent(&d) {
		return nil
	}
	return o.delta(&d)
}

// maxFinishBytes bounds a choice's finish reason, and maxDetailsBytes each of a
// usage's details, so that an answer's end fits into a record of the token topic,
// with all that may be held, and the job's fact into one of its own.
const (
	maxFinishBytes  = 256
	maxDetailsBytes = 8 << 10
)

// conclude keeps what a piece says of the answer's end. Its index is known to be
// a choice's.
func (o *output) conclude(c *llm.Chunk, end *event.Completed) error {
	if c.FinishReason != "" && c.Embedding != nil {
		return fault.New(fault.ProviderError, "the provider sent a finish reason with a vector, which has none")
	}
	if len(c.FinishReason) > maxFinishBytes {
		return fault.New(fault.ProviderError, "the provider sent a finish reason of %d bytes: %d at most", len(c.FinishReason), maxFinishBytes)
	}
	if c.FinishReason != "" && !slices.ContainsFunc(end.Choices, func(e event.Choice) bool { return e.Index == c.Index }) {
		end.Choices = append(end.Choices, event.Choice{Index: c.Index, FinishReason: c.FinishReason})
		o.note(escaped * len(c.FinishReason))
	}
	if c.Usage == nil {
		return nil
	}
	u := event.Usage(*c.Usage)
	if n := max(len(u.PromptTokensDetails), len(u.CompletionTokensDetails)); n > maxDetailsBytes {
		return fault.New(fault.ProviderError, "the provider sent details of the usage of %d bytes: %d at most", n, maxDetailsBytes)
	}
	end.Usage = &u
	return nil
}

// acceptable tells what a provider may not send: what is no delta, or what the
// log or the job's fact could not hold. It is looked for before anything is
// written, for what stands in the log would break every owner anew.
func (o *output) acceptable(d *event.Delta) error {
	for _, raw := range []jsontext.Value{d.ToolCalls, d.Logprobs, d.Embedding} {
		if raw != nil && !raw.IsValid() {
			return fault.New(fault.ProviderError, "the provider sent a delta that is not JSON")
		}
	}
	if d.Index != 0 || !plain(d) {
		var probe job.Transcript
		if err := probe.Say(d); err != nil {
			return fault.New(fault.ProviderError, "the provider sent a delta that is none: %v", err)
		}
	}
	if d.Embedding != nil && (text(d) > 0 || d.ToolCalls != nil || d.Logprobs != nil) {
		return fault.New(fault.ProviderError, "the provider sent a vector and a choice's words in one piece")
	}
	if raw(d) > o.limits.event-margin { // text is cut, and this cannot be
		return fault.New(fault.ProviderError, "the provider sent a piece that is larger than the log takes: %d bytes at most", o.limits.event)
	}
	next := text(d) + raw(d)
	if next > margin/2/escaped {
		next = len(event.AppendDelta(nil, d))
	}
	if o.saidBytes()+next > o.limits.fact-margin {
		return fault.New(fault.ProviderError, "the answer is longer than the %d bytes that are kept of one", o.limits.fact)
	}
	return nil
}

// fail ends the output with what went wrong.
func (o *output) fail(err error) error {
	f := fault.From(err)
	return o.emit(event.OutputFailed, event.Failed{Code: string(f.Code), Message: shortened(f.Message), Retryable: f.Retryable()})
}

// shortened bounds a message, which may be a provider's.
func shortened(message string) string {
	const longest = 2 << 10
	if len(message) > longest {
		message = strings.ToValidUTF8(message[:longest], "")
	}
	return message
}
