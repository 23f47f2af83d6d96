package processors

import (
	"context"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/processors/engine"
	"github.com/penstock-io/penstock/internal/telemetry"
)

// span begins the span of a job's processing, the child of its request's.
func (p *Processor) span(ctx context.Context, s *engine.Start) (context.Context, telemetry.Span) {
	if p.cfg.Traces == nil {
		return ctx, telemetry.Span{}
	}
	rec := &s.Request.Record
	return p.cfg.Traces.Process(ctx, telemetry.Message{
		Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Group: p.cfg.Group, Job: s.Request.Head.Job,
		Traceparent: string(rec.Traceparent()), Tracestate: string(rec.Header("tracestate")),
	})
}

// endSpan ends it with what became of the job.
func endSpan(span telemetry.Span, in *engine.Ended) {
	if in.Retry != nil {
		var why event.Retrying
		if event.DecodeData(in.Retry.Fact, &why) == nil {
			span.Event("retry", why.Message)
		}
		span.End(why.Code, why.Message)
		return
	}
	switch in.Type {
	case event.JobFailed, event.JobExpired:
		var f event.Failed
		if event.DecodeData(in.Data, &f) != nil {
			f.Code = "internal_error"
		}
		span.End(f.Code, f.Message)
	case "":
		span.End("handed_over", "the lane is not this process's any more: its next owner takes the job up")
	default:
		span.End("", "")
	}
}
