package telemetry

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const someone = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestWhereTracesGoIsOpenTelemetrysToSay(t *testing.T) {
	t.Parallel()
	const all, traces = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	for want, env := range map[string]map[string]string{
		"":                            {},
		"http://c:4318/v1/traces":     {all: "http://c:4318/"},
		"http://t:4318/own":           {all: "http://c:4318", traces: "http://t:4318/own"},
		"http://c:4318/sub/v1/traces": {all: " http://c:4318/sub "},
	} {
		lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
		if got := TracesURL(lookup); got != want {
			t.Errorf("%v: %q, want %q", env, got, want)
		}
	}
	for name, value := range map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "none"} {
		env := map[string]string{all: "http://c:4318", name: value}
		if got := TracesURL(func(n string) (string, bool) { v, ok := env[n]; return v, ok }); got != "" {
			t.Errorf("with %s=%s: %q", name, value, got)
		}
	}
	if TracesURL(nil) != "" {
		t.Error("no environment sends traces somewhere")
	}
}

func TestNoTracingPassesTheCallersSpanOn(t *testing.T) {
	t.Parallel()
	tracing, err := NewTracing(t.Context(), TracingConfig{})
	if err != nil || tracing != nil || tracing.Tracer() != nil {
		t.Fatalf("without a URL: %v, %v", tracing, err)
	}
	tracing.Shutdown(t.Context())
	var got string
	h := tracing.HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx, span := tracing.Send(r.Context(), Message{})
		span.At(1)
		span.Event("x", "y")
		span.End("failed", "message")
		Route(ctx, "GET", "/x")
		got = Traceparent(ctx) + span.Traceparent()
	}))
	for header, want := range map[string]string{"": "", "nonsense": "", someone: someone} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if header != "" {
			r.Header.Set("Traceparent", header)
		}
		if h.ServeHTTP(httptest.NewRecorder(), r); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

func TestALogLineNamesItsTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := NewLogger(&out, Config{}).With("a", 1).WithGroup("g")
	log.InfoContext(t.Context(), "outside")
	if strings.Contains(out.String(), "trace_id") {
		t.Errorf("a line outside of any trace: %s", out.String())
	}
	log.InfoContext(Remote(t.Context(), someone, ""), "inside")
	if !strings.Contains(out.String(), `"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"`) {
		t.Errorf("a line of a trace: %s", out.String())
	}
}

func TestNoTracingCostsNoMemory(t *testing.T) {
	var tracing *Tracing
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		_, span := tracing.Process(ctx, Message{Topic: "t"})
		span.End("", "")
	}); n != 0 {
		t.Errorf("%v allocations a span that is not made", n)
	}
}

// BenchmarkTracingOff is what a job pays where no traces are made: nothing.
func BenchmarkTracingOff(b *testing.B) {
	var tracing *Tracing
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		ctx, span := tracing.Send(ctx, Message{Topic: "t"})
		_, inner := tracing.Process(ctx, Message{Topic: "t"})
		inner.End("", "")
		span.End("", "")
	}
}
