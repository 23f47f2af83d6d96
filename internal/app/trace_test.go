package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/telemetry"
	"github.com/penstock-io/penstock/internal/topics"
)

// collector takes traces as an OpenTelemetry collector does.
type collector struct {
	url string

	mu    sync.Mutex
	spans []*tracepb.Span
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collectorpb.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			http.Error(w, "no traces", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				c.spans = append(c.spans, ss.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(server.Close)
	c.url = telemetry.TracesURL(func(name string) (string, bool) {
		return server.URL, name == "OTEL_EXPORTER_OTLP_ENDPOINT"
	})
	return c
}

// of gives the spans of a job by name; of a name with a route, the request's.
func (c *collector) of(traceID string) map[string]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	byName := map[string]*tracepb.Span{}
	for _, s := range c.spans {
		var id trace.TraceID
		copy(id[:], s.GetTraceId())
		if id.String() == traceID {
			byName[s.GetName()] = s
		}
	}
	return byName
}

// records reads what a topic's partitions hold of a job.
func records(t *testing.T, addr []string, topic, id string) []event.Record {
	t.Helper()
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var found []event.Record
	for p := range int32(2) { // base's
		tp := kafka.TopicPartition{Topic: topic, Partition: p}
		end, err := c.Offset(t.Context(), tp, kafka.End())
		if err != nil {
			t.Fatal(err)
		}
		for recs, err := range c.Scan(t.Context(), tp, 0, end) {
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range recs {
				if v, err := event.ScanHead(rec.Value); err == nil && string(v.Job) == id {
					found = append(found, rec)
				}
			}
		}
	}
	return found
}

func traceOf(header []byte) string {
	if len(header) < 36 {
		return ""
	}
	return string(header[3:35])
}

func TestOneTraceJoinsRequestRecordsAndModelCall(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	cfg := base(t)
	cfg.Traces = c.url
	r := start(t, cfg)
	names := topics.Names{Prefix: topics.DefaultPrefix}

	const theirs = "0af7651916cd43dd8448eb211c80319c"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.Addr()+"/v1/jobs",
		strings.NewReader(`{"body":{"model":"sim:tokens=9,ttft=1ms,gap=15ms","messages":[{"role":"user","content":"hello"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", "00-"+theirs+"-b7ad6b7169203331-01")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	location := res.Header.Get("Location")
	_ = res.Body.Close()
	if status, body := r.ask(t, http.MethodGet, location+"?wait=60s", ""); status != http.StatusOK || !strings.Contains(body, `"completed"`) {
		t.Fatalf("%s: %d %s", location, status, body)
	}
	own := r.submit(t, "sim:tokens=2,ttft=1ms,gap=1ms")
	outside := outsideJob(t, cfg.Kafka, names)
	for _, id := range []string{own, outside} {
		path := "/v1/jobs/" + id + "?wait=60s"
		eventually(t, "the job has ended", func() bool {
			_, body := r.ask(t, http.MethodGet, path, "")
			return strings.Contains(body, `"completed"`)
		})
	}
	asked := records(t, cfg.Kafka, names.Requests(event.Standard), own)
	if len(asked) != 1 {
		t.Fatalf("%d requests", len(asked))
	}
	if err := r.stop(); err != nil { // sends the last spans
		t.Fatal(err)
	}

	for name, want := range map[string]struct {
		trace string
		http  bool
	}{
		"the client's own": {theirs, true},
		"a fresh one":      {traceOf(asked[0].Header("traceparent")), true},
		"a producer's":     {outsideTrace, false},
	} {
		spans := c.of(want.trace)
		chain := []string{"process penstock.requests.standard", "chat sim"}
		if want.http {
			chain = append([]string{"POST /v1/jobs", "send penstock.requests.standard"}, chain...)
		}
		parent := ""
		for _, s := range chain {
			span := spans[s]
			if span == nil {
				t.Errorf("%s: no span %q of trace %s: there are %d", name, s, want.trace, len(spans))
				break
			}
			if parent != "" && string(span.GetParentSpanId()) != parent {
				t.Errorf("%s: %q is not the child of the span before it", name, s)
			}
			parent = string(span.GetSpanId())
		}
	}

	id := strings.TrimPrefix(location, "/v1/jobs/")
	for _, rec := range records(t, cfg.Kafka, names.Requests(event.Standard), id) {
		if traceOf(rec.Header("traceparent")) != theirs {
			t.Errorf("the request has traceparent %q", rec.Header("traceparent"))
		}
	}
	for _, rec := range records(t, cfg.Kafka, names.Jobs(), id) {
		if traceOf(rec.Header("traceparent")) != theirs {
			t.Errorf("a fact has traceparent %q", rec.Header("traceparent"))
		}
	}
	outputs := records(t, cfg.Kafka, names.Tokens(), id)
	if len(outputs) < 4 {
		t.Fatalf("only %d outputs", len(outputs))
	}
	for i, rec := range outputs {
		has := len(rec.Headers) > 0
		if edge := i == 0 || i == len(outputs)-1; has != edge || edge && traceOf(rec.Header("traceparent")) != theirs {
			t.Errorf("output %d of %d has the headers %q", i, len(outputs), rec.Headers)
		}
	}
	for _, name := range []string{"GET /readyz", "GET /metrics"} {
		for _, s := range c.spans {
			if s.GetName() == name {
				t.Errorf("a span was made of %s", name)
			}
		}
	}
}

const outsideTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// outsideJob writes a request as another program would.
func outsideJob(t *testing.T, addr []string, names topics.Names) string {
	t.Helper()
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := c.NewProducer(kafka.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const id = "outside-1"
	_, err = p.Append(t.Context(), event.Record{
		Topic: names.Requests(event.Standard), Partition: job.Partition(id, 2), Key: []byte(id), Time: time.Now(),
		Value:   []byte(`{"job":"` + id + `","data":{"body":{"model":"sim:tokens=1,ttft=1ms","messages":[{"role":"user","content":"hi"}]}}}`),
		Headers: []event.Header{{Key: "traceparent", Value: []byte("00-" + outsideTrace + "-00f067aa0ba902b7-01")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestACollectorThatIsAwayHurtsNobody(t *testing.T) {
	t.Parallel()
	cfg := base(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	cfg.Traces = gone.URL + "/v1/traces"
	gone.Close()
	r := start(t, cfg)
	id := r.submit(t, "sim:tokens=1,ttft=1ms")
	if status, body := r.ask(t, http.MethodGet, "/v1/jobs/"+id+"?wait=60s", ""); status != http.StatusOK || !strings.Contains(body, `"completed"`) {
		t.Errorf("%d %s", status, body)
	}
	if err := r.stop(); err != nil {
		t.Errorf("the stop: %v", err)
	}
	cfg.Traces = "nowhere"
	a, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), `"nowhere" is no collector`) {
		t.Errorf("an address that is none: %v", err)
	}
}
