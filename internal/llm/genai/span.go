package genai

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-io/penstock/internal/llm"
)

// open begins the call's span, where spans are made.
func (c *call) open(ctx context.Context, req *llm.Request) context.Context {
	if c.o.tracer == nil {
		return ctx
	}
	//nolint:spancheck // close ends it, which watch defers
	ctx, span := c.o.tracer.Start(ctx, c.operation+" "+c.model, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("gen_ai.operation.name", c.operation),
		attribute.String("gen_ai.provider.name", c.provider),
		attribute.String("gen_ai.request.model", req.Model),
		attribute.String("penstock.job", req.Job),
		attribute.Int("penstock.attempt", req.Attempt),
	))
	c.span = span
	return ctx //nolint:spancheck // see above
}

// close ends the span with what is known of the call.
func (c *call) close() {
	if c.span == nil {
		return
	}
	if c.first > 0 {
		c.span.SetAttributes(attribute.Float64("gen_ai.response.time_to_first_chunk", c.first.Seconds()))
	}
	if len(c.finish) > 0 {
		c.span.SetAttributes(attribute.StringSlice("gen_ai.response.finish_reasons", c.finish))
	}
	if c.usage != nil {
		c.span.SetAttributes(
			attribute.Int("gen_ai.usage.input_tokens", c.usage.PromptTokens),
			attribute.Int("gen_ai.usage.output_tokens", c.usage.CompletionTokens),
		)
	}
	if c.failure != "" {
		c.span.SetAttributes(attribute.String("error.type", c.failure))
		message := c.failure
		if c.err != nil {
			message = c.err.Error()
		}
		c.span.SetStatus(codes.Error, message)
	}
	c.span.End()
}
