package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// scope names what made the spans.
const scope = "github.com/penstock-io/penstock"

// Tracing makes spans and sends them to a collector by OTLP over HTTP. A nil
// Tracing makes none, and costs a comparison.
//
// Spans wait in the SDK's queue, 2,048 of them; what finds it full is dropped.
// One goroutine, the SDK's, sends them, and ends with Shutdown.
type Tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// TracingConfig says where spans go.
type TracingConfig struct {
	// URL is where a collector takes traces, such as
	// http://127.0.0.1:4318/v1/traces; "" makes no spans.
	URL      string
	Version  string // of this build
	Instance string // unique to this process's incarnation
	Log      *slog.Logger
	Metrics  prometheus.Registerer // may be nil
}

// TracesURL finds where the environment sends traces, by OpenTelemetry's
// variables: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, else OTEL_EXPORTER_OTLP_ENDPOINT
// with /v1/traces behind it. It is "" where neither is set, where
// OTEL_SDK_DISABLED is true, and where OTEL_TRACES_EXPORTER is none.
func TracesURL(env func(name string) (string, bool)) string {
	get := func(name string) string {
		if env == nil {
			return ""
		}
		if v, set := env(name); set {
			return strings.TrimSpace(v)
		}
		return ""
	}
	if strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") || get("OTEL_TRACES_EXPORTER") == "none" {
		return ""
	}
	if u := get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"); u != "" {
		return u
	}
	if u := get("OTEL_EXPORTER_OTLP_ENDPOINT"); u != "" {
		return strings.TrimSuffix(u, "/") + "/v1/traces"
	}
	return ""
}

// NewTracing makes a Tracing, nil where no URL is given. It speaks to nobody yet.
// Headers, timeout, certificates, compression, sampler and the resource's
// attributes come from OpenTelemetry's variables in the process's environment.
func NewTracing(ctx context.Context, cfg TracingConfig) (*Tracing, error) {
	if cfg.URL == "" {
		return nil, nil
	}
	if u, err := url.Parse(cfg.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("traces: %q is no collector: it must be a URL such as http://127.0.0.1:4318", cfg.URL)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.URL))
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	told := &toldExporter{SpanExporter: exporter, log: cfg.Log, spans: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "penstock_trace_spans_total", Help: "Spans that were sent to the collector, by result: ok, failed.",
	}, []string{"result"})}
	if cfg.Metrics != nil {
		if err := cfg.Metrics.Register(told.spans); err != nil {
			return nil, fmt.Errorf("traces: %w", err)
		}
	}
	about, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(
			attribute.String("service.name", "penstock"),
			attribute.String("service.version", cfg.Version),
			attribute.String("service.instance.id", cfg.Instance),
		),
		resource.WithFromEnv(), // last, so that it goes before
	)
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("traces: describe this process: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(told), sdktrace.WithResource(about))
	return &Tracing{provider: provider, tracer: provider.Tracer(scope)}, nil
}

// Tracer is for spans that this package has no name for; nil where none are made.
func (t *Tracing) Tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.tracer
}

// shutdownPatience bounds the sending of the last spans.
const shutdownPatience = 5 * time.Second

// Shutdown sends what waits, in five seconds at most.
func (t *Tracing) Shutdown(ctx context.Context) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownPatience)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // the exporter has told what failed
}

// toldExporter logs and counts what becomes of spans. The SDK would tell a
// global handler.
type toldExporter struct {
	sdktrace.SpanExporter
	log   *slog.Logger
	spans *prometheus.CounterVec
	away  atomic.Bool
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *toldExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		e.spans.WithLabelValues("ok").Add(float64(len(spans)))
		if e.away.Swap(false) {
			e.log.InfoContext(ctx, "traces are taken again")
		}
		return nil
	}
	e.spans.WithLabelValues("failed").Add(float64(len(spans)))
	if !e.away.Swap(true) {
		e.log.WarnContext(ctx, "the collector does not take traces; they are dropped", slog.Any("error", err))
	}
	return nil
}
