package telemetry

import (
	"context"
	"net/http"
	"strconv"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Message is a record of a topic, as spans tell of it.
type Message struct {
	Topic     string
	Partition int32
	Offset    int64  // -1: not known yet
	Group     string // of the consumer; "" for a producer
	Job       string
	// Traceparent and Tracestate are the record's headers (W3C Trace Context).
	Traceparent, Tracestate string
}

// Span is a span under way. The zero Span is none.
type Span struct{ span trace.Span }

// Send begins the span of a record that is about to be written, by
// OpenTelemetry's conventions for messaging. Traceparent is its header.
func (t *Tracing) Send(ctx context.Context, m Message) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	if !trace.SpanContextFromContext(ctx).IsValid() {
		ctx = Remote(ctx, m.Traceparent, m.Tracestate)
	}
	//nolint:spancheck // the caller ends it
	ctx, span := t.tracer.Start(ctx, "send "+m.Topic, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(m.attributes("send")...))
	return ctx, Span{span} //nolint:spancheck // see above
}

// Process begins the span of a record's processing. It is the child of whoever
// wrote the record, so that one trace has both, and linked to it.
func (t *Tracing) Process(ctx context.Context, m Message) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	ctx = Remote(ctx, m.Traceparent, m.Tracestate)
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(m.attributes("process")...)}
	if trace.SpanContextFromContext(ctx).IsValid() {
		opts = append(opts, trace.WithLinks(trace.LinkFromContext(ctx)))
	}
	//nolint:spancheck // the caller ends it
	ctx, span := t.tracer.Start(ctx, "process "+m.Topic, opts...)
	return ctx, Span{span} //nolint:spancheck // see above
}

func (m *Message) attributes(operation string) []attribute.KeyValue {
	all := []attribute.KeyValue{
		attribute.String("messaging.system", "kafka"),
		attribute.String("messaging.operation.name", operation),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.destination.name", m.Topic),
		attribute.String("messaging.destination.partition.id", strconv.Itoa(int(m.Partition))),
		attribute.String("penstock.job", m.Job),
	}
	if m.Offset >= 0 {
		all = append(all, attribute.Int64("messaging.kafka.offset", m.Offset))
	}
	if m.Group != "" {
		all = append(all, attribute.String("messaging.consumer.group.name", m.Group))
	}
	return all
}

// Traceparent is the header by which others join the span; "" for no span.
func (s Span) Traceparent() string {
	if s.span == nil {
		return ""
	}
	return traceparentOf(s.span.SpanContext())
}

// At notes the offset that a record got.
func (s Span) At(offset int64) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int64("messaging.kafka.offset", offset))
	}
}

// Event notes that something happened, and why.
func (s Span) Event(name, reason string) {
	if s.span != nil {
		s.span.AddEvent(name, trace.WithAttributes(attribute.String("reason", reason)))
	}
}

// End ends the span. failure is the code of what went wrong, "" for nothing;
// message says it to a person.
func (s Span) End(failure, message string) {
	if s.span == nil {
		return
	}
	if failure != "" {
		s.span.SetAttributes(attribute.String("error.type", failure))
		s.span.SetStatus(codes.Error, message)
	}
	s.span.End()
}

// Carry is to, within the trace of from.
func Carry(to, from context.Context) context.Context {
	if sc := trace.SpanContextFromContext(from); sc.IsValid() {
		return trace.ContextWithSpanContext(to, sc)
	}
	return to
}

// Remote puts somebody else's span into ctx, by its headers (W3C Trace Context).
// Headers that are none leave ctx as it is.
func Remote(ctx context.Context, traceparent, tracestate string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent, "tracestate": tracestate})
}

// Traceparent is the header of the span in ctx, ours or somebody else's; "" for
// none.
func Traceparent(ctx context.Context) string { return traceparentOf(trace.SpanContextFromContext(ctx)) }

func traceparentOf(sc trace.SpanContext) string {
	if !sc.IsValid() {
		return ""
	}
	return "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-" + (sc.TraceFlags() & trace.FlagsSampled).String()
}

// HTTP makes a span of each request that next serves, but for the paths in
// quiet. Without tracing it only notes the caller's span, for records and logs.
func (t *Tracing) HTTP(next http.Handler, quiet ...string) http.Handler {
	if t == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if h := r.Header.Get("Traceparent"); h != "" {
				r = r.WithContext(Remote(r.Context(), h, r.Header.Get("Tracestate")))
			}
			next.ServeHTTP(w, r)
		})
	}
	unheard := make(map[string]bool, len(quiet))
	for _, path := range quiet {
		unheard[path] = true
	}
	return otelhttp.NewHandler(next, "http",
		otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithMeterProvider(noopmetric.NewMeterProvider()), // the metrics are the api's own
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method }),
		otelhttp.WithFilter(func(r *http.Request) bool { return !unheard[r.URL.Path] }),
	)
}

// Route names the span of a request by the route that served it, once it is known.
func Route(ctx context.Context, method, route string) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() && route != "" {
		span.SetName(method + " " + route)
		span.SetAttributes(attribute.String("http.route", route))
	}
}
