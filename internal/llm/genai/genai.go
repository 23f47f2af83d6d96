// Package genai watches calls of models, by the names of OpenTelemetry's
// conventions for generative AI: how long a call took, when its first chunk
// came, which tokens it used, and, where there is a tracer, a span of it.
//
// An Observer stands between the processors and the providers and changes
// nothing: chunks and errors go through as they are. It starts no goroutine.
package genai

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

// Observer watches calls. Its methods may be called from many goroutines.
type Observer struct {
	tracer trace.Tracer // nil: no spans
	names  llm.ModelNames

	duration   *prometheus.HistogramVec
	firstChunk *prometheus.HistogramVec
	tokens     *prometheus.HistogramVec
}

// New makes an Observer. A nil registerer keeps no metrics, a nil tracer makes no
// spans.
func New(reg prometheus.Registerer, tracer trace.Tracer) (*Observer, error) {
	labels := []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"}
	seconds := prometheus.ExponentialBuckets(0.01, 2, 14) // as the conventions advise
	o := &Observer{
		tracer: tracer,
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gen_ai_client_operation_duration_seconds", Help: "How long calls of models took, to their end or failure.",
			Buckets: seconds,
		}, append(labels[:3:3], "error_type")),
		firstChunk: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gen_ai_client_operation_time_to_first_chunk_seconds", Help: "From the call of a model to its first chunk.",
			Buckets: seconds,
		}, labels),
		tokens: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gen_ai_client_token_usage", Help: "Tokens of a call, as the provider counted them: input and output.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 14),
		}, append(labels[:3:3], "gen_ai_token_type")),
	}
	if reg == nil {
		return o, nil
	}
	for _, c := range []prometheus.Collector{o.duration, o.firstChunk, o.tokens} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of model calls: %w", err)
		}
	}
	return o, nil
}

// Models finds who serves a model; *llm.Registry does.
type Models interface {
	Resolve(model string) (llm.Provider, string, error)
}

// Models gives the same providers, watched.
func (o *Observer) Models(m Models) Models { return watching{o, m} }

type watching struct {
	o      *Observer
	models Models
}

// Resolve implements Models.
func (w watching) Resolve(model string) (llm.Provider, string, error) {
	p, name, err := w.models.Resolve(model)
	if err != nil {
		return nil, "", err //nolint:wrapcheck // a fault already
	}
	if c, ok := p.(llm.Continuer); ok {
		return continuer{watched{w.o, p}, c}, name, nil
	}
	return watched{w.o, p}, name, nil
}

// watched is a provider whose calls are watched.
type watched struct {
	o        *Observer
	provider llm.Provider
}

// Name implements llm.Provider.
func (w watched) Name() string { return w.provider.Name() }

// Stream implements llm.Provider.
func (w watched) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return w.o.watch(ctx, w.provider.Name(), &req, func(ctx context.Context) iter.Seq2[llm.Chunk, error] {
		return w.provider.Stream(ctx, req)
	})
}

// continuer is a watched provider that can go on from a prefix.
type continuer struct {
	watched
	continuer llm.Continuer
}

// CanContinue implements llm.Continuer.
func (c continuer) CanContinue(req llm.Request, prefix llm.Prefix) bool {
	return c.continuer.CanContinue(req, prefix)
}

// Continue implements llm.Continuer.
func (c continuer) Continue(ctx context.Context, req llm.Request, prefix llm.Prefix) iter.Seq2[llm.Chunk, error] {
	return c.o.watch(ctx, c.Name(), &req, func(ctx context.Context) iter.Seq2[llm.Chunk, error] {
		return c.continuer.Continue(ctx, req, prefix)
	})
}

// watch is a call's answer, watched.
func (o *Observer) watch(ctx context.Context, provider string, req *llm.Request, begin func(context.Context) iter.Seq2[llm.Chunk, error]) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		c := call{o: o, operation: llm.Operation(req.Endpoint), provider: provider, model: o.names.Of(provider, req.Model), began: time.Now()}
		spanned := c.open(ctx, req)
		c.failure = "cancelled" // unless it comes to its end
		defer c.end()
		for chunk, err := range begin(spanned) {
			c.saw(spanned, &chunk, err)
			if !yield(chunk, err) {
				return
			}
		}
		if c.failure == "cancelled" && c.err == nil {
			c.failure = ""
		}
	}
}

// call is one call of a model. It belongs to the goroutine that ranges over it.
type call struct {
	o                          *Observer
	operation, provider, model string
	began                      time.Time
	span                       trace.Span // nil: none
	first                      time.Duration
	finish                     []string
	usage                      *llm.Usage
	err                        error
	failure                    string // error.type; "" for none
}

// saw takes what the provider gave.
func (c *call) saw(ctx context.Context, chunk *llm.Chunk, err error) {
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // a cancel, a deadline or its silence, whatever the provider made of it
		}
		c.err, c.failure = err, errorType(err)
		return
	}
	if c.first == 0 {
		c.first = max(time.Since(c.began), 1)
		c.o.firstChunk.WithLabelValues(c.operation, c.provider, c.model).Observe(c.first.Seconds())
	}
	if chunk.FinishReason != "" && c.span != nil {
		c.finish = append(c.finish, chunk.FinishReason)
	}
	if chunk.Usage != nil {
		c.usage = chunk.Usage
	}
}

func (c *call) end() {
	c.o.duration.WithLabelValues(c.operation, c.provider, c.model, c.failure).Observe(time.Since(c.began).Seconds())
	if u := c.usage; u != nil {
		c.o.tokens.WithLabelValues(c.operation, c.provider, c.model, "input").Observe(float64(u.PromptTokens))
		c.o.tokens.WithLabelValues(c.operation, c.provider, c.model, "output").Observe(float64(u.CompletionTokens))
	}
	c.close()
}

// errorType names an error as metrics and spans do: by the fault's code.
func errorType(err error) string {
	if errors.Is(err, context.Canceled) {
		return "cancelled"
	}
	return string(fault.From(err).Code)
}
