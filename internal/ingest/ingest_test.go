package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(m)) }

const partitions = 12

// fakeLog takes records, or fails as it is told.
type fakeLog struct {
	mu   sync.Mutex
	recs []event.Record
	fail error
	wait chan struct{} // if set, an append waits for it
}

func (l *fakeLog) Append(ctx context.Context, recs ...event.Record) ([]kafka.Ack, error) {
	if l.wait != nil {
		select {
		case <-l.wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", kafka.ErrUnknownOutcome, ctx.Err())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return nil, l.fail
	}
	l.recs = append(l.recs, recs...)
	return []kafka.Ack{{Partition: recs[0].Partition, Offset: int64(len(l.recs) - 1)}}, nil
}

func (l *fakeLog) failWith(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *fakeLog) records() []event.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]event.Record(nil), l.recs...)
}

type fixedCursors string

func (c fixedCursors) TokensCursor(partition int32) string {
	return fmt.Sprintf("%s-%d", string(c), partition)
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123_456_789, time.UTC)

func newService(tb testing.TB, cfg Config) *Service {
	tb.Helper()
	if cfg.Partitions == 0 {
		cfg.Partitions = partitions
	}
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return noon }
	}
	cfg.Names = topics.Names{Prefix: "p."}
	s, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func handler(s *Service) chi.Router {
	r := api.NewRouter(api.Config{})
	s.Routes(r)
	return r
}

type answered struct {
	Error struct {
		Message string     `json:"message"`
		Param   string     `json:"param"`
		Code    fault.Code `json:"code"`
	} `json:"error"`
}

func send(tb testing.TB, h http.Handler, body string, headers ...string) (*httptest.ResponseRecorder, answered) {
	tb.Helper()
	r := httptest.NewRequest(http.MethodPost, "/v1/jobs", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var a answered
	if w.Code >= http.StatusBadRequest {
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || a.Error.Message == "" {
			tb.Fatalf("not the one shape: %v\n%s", err, w.Body)
		}
	}
	return w, a
}

func receipt(tb testing.TB, w *httptest.ResponseRecorder) job.Resource {
	tb.Helper()
	var res job.Resource
	if err := json.Unmarshal(w.Body.Bytes(), &res, json.RejectUnknownMembers(true)); err != nil || w.Code != http.StatusAccepted {
		tb.Fatalf("want a receipt, got %d %s: %v", w.Code, w.Body, err)
	}
	return res
}

const hi = `{"body":{"model":"sim","messages":[{"role":"user","content":"hi"}]}}`

func TestJobBecomesARecordAndAReceipt(t *testing.T) {
	log := &fakeLog{}
	h := handler(newService(t, Config{Producer: log, Cursors: fixedCursors("c")}))
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	w, _ := send(t, h, `{"lane":"batch","conversation":"conv-1","endpoint":"/v1/chat/completions",
		"body":{"model":"sim", "stream":true},"deadline":"2026-11-22T15:00:00.5+01:00","stream":false,"metadata":{"b":"2","a":"\u00e9"}}`, "Traceparent", trace)
	res := receipt(t, w)
	partition := job.Partition("conv-1", partitions)
	at := noon.Truncate(time.Millisecond)
	want := job.Resource{
		Object: "job", ID: res.ID, Status: job.Queued, Lane: event.Batch, CreatedAt: job.Time{Time: at},
		Cursor: fmt.Sprintf("c-%d", partition), Links: job.LinksOf(res.ID),
		Request: &job.Position{Topic: "p.requests.batch", Partition: partition, Offset: 0},
	}
	if diff := cmp.Diff(want, res); diff != "" {
		t.Error(diff)
	}
	if asResource, err := json.Marshal(want); err != nil || string(asResource) != w.Body.String() {
		t.Errorf("the receipt is not written as a resource is: %s, want %s", w.Body, asResource)
	}
	if got := w.Header().Get("Location"); got != "/v1/jobs/"+res.ID {
		t.Errorf("Location %q", got)
	}
	if id, ok := job.ParseID(res.ID); !ok || id.Partition != partition || !id.Time.Equal(at) {
		t.Errorf("the id tells %v, %v", id, ok)
	}
	rec := log.records()[0]
	if string(rec.Key) != "conv-1" || !rec.Time.Equal(at) || rec.Partition != partition || rec.Topic != "p.requests.batch" {
		t.Errorf("the record: %+v", rec)
	}
	for name, value := range map[string]string{
		"traceparent": trace, "ce_type": "io.penstock.job.requested", "ce_id": "default/" + res.ID + "/job.requested", "ce_specversion": "1.0",
	} {
		if got := string(rec.Header(name)); got != value {
			t.Errorf("header %s: %q, want %q", name, got, value)
		}
	}
	head, req, err := event.DecodeRequest(&rec)
	if err != nil {
		t.Fatal(err)
	}
	wantHead := event.Head{Type: event.JobRequested, V: 1, Time: at, Tenant: "default", Job: res.ID, Conversation: "conv-1"}
	req.Deadline = req.Deadline.UTC()
	wantReq := event.Request{
		Endpoint: "/v1/chat/completions", Body: []byte(`{"model":"sim", "stream":true}`),
		Deadline: time.Date(2026, 11, 22, 14, 0, 0, 5e8, time.UTC), Stream: new(false), Metadata: map[string]string{"a": "é", "b": "2"}, Model: "sim",
	}
	if diff := cmp.Diff(wantHead, head); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(wantReq, req); diff != "" {
		t.Error(diff)
	}
}

func TestJobWithoutAConversationIsKeyedByItsIDAndIsStandard(t *testing.T) {
	log := &fakeLog{}
	h := handler(newService(t, Config{Producer: log}))
	w, _ := send(t, h, `{"lane":null,"conversation":null,"endpoint":null,"deadline":null,"metadata":null,"body":{"model":"sim"}}`, "Traceparent", "nonsense")
	res := receipt(t, w)
	rec := log.records()[0]
	if string(rec.Key) != res.ID || rec.Partition != job.Partition(res.ID, partitions) || res.Lane != event.Standard || res.Cursor != "" {
		t.Errorf("%+v of %+v", rec, res)
	}
	if rec.Header("traceparent") != nil {
		t.Errorf("a traceparent that is none was passed on: %q", rec.Header("traceparent"))
	}
}

func TestBadInputIsRefusedByFieldAndNothingIsProduced(t *testing.T) {
	log := &fakeLog{}
	h := handler(newService(t, Config{Producer: log, MaxRecordBytes: 4000}))
	long := func(n int) string { return strings.Repeat("é", n) }
	model := `"body":{"model":"sim"}`
	for name, c := range map[string]struct {
		body   string
		status int
		code   fault.Code
		param  string
	}{
		"not JSON":           {"{\n  \"body\": }", 400, fault.InvalidJSON, ""},
		"broken inside":      {`{"body":{"model":"sim","a":[1,}}`, 400, fault.InvalidJSON, ""},
		"twice inside":       {`{"body":{"model":"sim","a":1,"a":2}}`, 400, fault.InvalidJSON, "body.a"},
		"an array":           {`[]`, 400, fault.InvalidRequest, ""},
		"null":               {`null`, 400, fault.InvalidRequest, ""},
		"no body":            {`{}`, 400, fault.InvalidRequest, "body"},
		"null body":          {`{"body":null}`, 400, fault.InvalidRequest, "body"},
		"a body of text":     {`{"body":"x"}`, 400, fault.InvalidRequest, "body"},
		"no model":           {`{"body":{}}`, 400, fault.InvalidRequest, "body.model"},
		"empty model":        {`{"body":{"model":""}}`, 400, fault.InvalidRequest, "body.model"},
		"null model":         {`{"body":{"model":null}}`, 400, fault.InvalidRequest, "body.model"},
		"a number for model": {`{"body":{"model":1}}`, 400, fault.InvalidRequest, "body.model"},
		"long model":         {`{"body":{"model":"` + long(257) + `"}}`, 400, fault.InvalidRequest, "body.model"},
		"unknown field":      {`{` + model + `,"priority":1}`, 400, fault.InvalidRequest, "priority"},
		"unknown lane":       {`{` + model + `,"lane":"fast"}`, 400, fault.InvalidRequest, "lane"},
		"lane of a number":   {`{` + model + `,"lane":1}`, 400, fault.InvalidRequest, "lane"},
		"bad conversation":   {`{` + model + `,"conversation":"a b"}`, 400, fault.InvalidRequest, "conversation"},
		"no conversation":    {`{` + model + `,"conversation":""}`, 400, fault.InvalidRequest, "conversation"},
		"unknown endpoint":   {`{` + model + `,"endpoint":"/v1/audio"}`, 400, fault.InvalidRequest, "endpoint"},
		"deadline of words":  {`{` + model + `,"deadline":"soon"}`, 400, fault.InvalidRequest, "deadline"},
		"deadline of year 0": {`{` + model + `,"deadline":"0001-01-01T00:00:00Z"}`, 400, fault.InvalidRequest, "deadline"},
		"no such day":        {`{` + model + `,"deadline":"2027-02-30T00:00:00Z"}`, 400, fault.InvalidRequest, "deadline"},
		"deadline past":      {`{` + model + `,"deadline":"2026-11-22T12:00:00Z"}`, 504, fault.DeadlineExceeded, "deadline"},
		"metadata of lists":  {`{` + model + `,"metadata":[]}`, 400, fault.InvalidRequest, "metadata"},
		"metadata of number": {`{` + model + `,"metadata":{"a":1}}`, 400, fault.InvalidRequest, "metadata.a"},
		"long value":         {`{` + model + `,"metadata":{"a":"` + long(513) + `"}}`, 400, fault.InvalidRequest, "metadata.a"},
		"large record":       {`{"body":{"model":"sim","x":"` + long(2000) + `"}}`, 413, fault.TooLarge, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, a := send(t, h, c.body)
			if w.Code != c.status || a.Error.Code != c.code || a.Error.Param != c.param {
				t.Errorf("got %d %s of %q, want %d %s of %q: %s", w.Code, a.Error.Code, a.Error.Param, c.status, c.code, c.param, a.Error.Message)
			}
			if c.param != "" && c.code == fault.InvalidRequest && !strings.Contains(a.Error.Message, c.param) {
				t.Errorf("the message does not name %s: %s", c.param, a.Error.Message)
			}
		})
	}
	if _, a := send(t, h, "{\n  \"body\": }"); !strings.Contains(a.Error.Message, "line 2, column 11") {
		t.Errorf("where it is not JSON: %s", a.Error.Message)
	}
	if w, _ := send(t, h, hi, "Content-Type", "text/plain"); w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("text: %d", w.Code)
	}
	small := api.NewRouter(api.Config{MaxBody: 10})
	newService(t, Config{Producer: log}).Routes(small)
	if w, _ := send(t, small, hi); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("over the limit: %d", w.Code)
	}
	if n := len(log.records()); n != 0 {
		t.Errorf("%d records were produced", n)
	}
}

func TestMetadataIsBoundedInPairsAndNames(t *testing.T) {
	h := handler(newService(t, Config{Producer: &fakeLog{}}))
	pairs := make([]string, 17)
	for i := range pairs {
		pairs[i] = fmt.Sprintf(`"k%d":"v"`, i)
	}
	for _, m := range []string{strings.Join(pairs, ","), `"` + strings.Repeat("k", 65) + `":"v"`} {
		w, a := send(t, h, `{"body":{"model":"sim"},"metadata":{`+m+`}}`)
		if w.Code != http.StatusBadRequest || a.Error.Code != fault.InvalidRequest {
			t.Errorf("%d %q: %s", w.Code, a.Error.Param, a.Error.Message)
		}
	}
	if w, _ := send(t, h, `{"body":{"model":"sim"},"metadata":{`+strings.Join(pairs[:16], ",")+`}}`); w.Code != http.StatusAccepted {
		t.Errorf("16 pairs: %d %s", w.Code, w.Body)
	}
}

func TestWhatKafkaSaysIsToldApart(t *testing.T) {
	log := &fakeLog{}
	s := newService(t, Config{Producer: log})
	h := handler(s)
	for _, c := range []struct {
		err  error
		code fault.Code
		says string
	}{
		{fmt.Errorf("x: %w", kafka.ErrRefused), fault.Unavailable, "not accepted"},
		{fmt.Errorf("x: %w", kafka.ErrUnavailable), fault.Unavailable, "not accepted"},
		{fmt.Errorf("x: %w", kafka.ErrUnknownOutcome), fault.UnknownOutcome, "same Idempotency-Key"},
	} {
		log.failWith(c.err)
		w, a := send(t, h, hi)
		if w.Code != http.StatusServiceUnavailable || a.Error.Code != c.code || !strings.Contains(a.Error.Message, c.says) {
			t.Errorf("%v: %d %s: %s", c.err, w.Code, a.Error.Code, a.Error.Message)
		}
		if w.Header().Get("Retry-After") != "1" || w.Header().Get("X-Should-Retry") != "true" {
			t.Errorf("%v: %v", c.err, w.Header())
		}
	}
}

func TestSilentKafkaIsGivenUpInTime(t *testing.T) {
	log := &fakeLog{wait: make(chan struct{})}
	s := newService(t, Config{Producer: log, AppendTimeout: 20 * time.Millisecond})
	_, err := s.Submit(t.Context(), "default", job.Request{Body: []byte(`{"model":"sim"}`)}, job.SubmitOptions{})
	if f := fault.From(err); f.Code != fault.UnknownOutcome {
		t.Errorf("got %v", err)
	}
}

func TestClientThatLeavesDoesNotMakeTheOutcomeUnknown(t *testing.T) {
	log := &fakeLog{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newService(t, Config{Producer: log}).Submit(ctx, "default", job.Request{Body: []byte(`{"model":"sim"}`)}, job.SubmitOptions{}); err != nil || len(log.records()) != 1 {
		t.Errorf("%v, %d records", err, len(log.records()))
	}
}

func TestSubmitHoldsItsCallerToTheRules(t *testing.T) {
	s := newService(t, Config{Producer: &fakeLog{}})
	ok := job.Request{Body: []byte(`{"model":"sim"}`)}
	for param, in := range map[string]job.Request{
		"body":         {},
		"conversation": {Body: ok.Body, Conversation: "a b"},
		"endpoint":     {Body: ok.Body, Endpoint: "/x"},
	} {
		_, err := s.Submit(t.Context(), "default", in, job.SubmitOptions{})
		if f := fault.From(err); f.Code != fault.InvalidRequest || f.Param != param {
			t.Errorf("%s: %v", param, err)
		}
	}
	if _, err := s.Submit(t.Context(), "A B", ok, job.SubmitOptions{}); fault.From(err).Param != "tenant" {
		t.Errorf("a tenant that is none: %v", err)
	}
	res, err := s.Submit(t.Context(), "acme", ok, job.SubmitOptions{})
	if err != nil || res.Lane != event.Standard || res.Request == nil || res.Status != job.Queued || res.Links != job.LinksOf(res.ID) {
		t.Errorf("%+v, %v", res, err)
	}
}

type models map[string]error

func (m models) Known(model string) error { return m[model] }

// door is an Admission that hears of nothing.
type door func(lane event.Lane) error

func (d door) Admit(lane event.Lane, _ int32, _ time.Time) error { return d(lane) }

func (door) Accepted(event.Lane, int32, int64) {}

func TestModelsAndAdmissionAreAskedBeforeAnythingIsWritten(t *testing.T) {
	log := &fakeLog{}
	var admit error
	h := handler(newService(t, Config{
		Producer: log,
		Models:   models{"typo": &fault.Error{Code: fault.ModelNotFound, Message: "nobody serves typo", Param: "model"}, "odd": errors.New("odd")},
		Admission: door(func(lane event.Lane) error {
			if lane != event.Standard {
				t.Errorf("asked for lane %v", lane)
			}
			return admit
		}),
	}))
	for _, model := range []string{"typo", "odd"} {
		w, a := send(t, h, `{"body":{"model":"`+model+`"}}`)
		if w.Code != http.StatusNotFound || a.Error.Code != fault.ModelNotFound || a.Error.Param != "body.model" {
			t.Errorf("%s: %d %+v", model, w.Code, a)
		}
	}
	admit = &fault.Error{Code: fault.Overloaded, Message: "full", RetryAfter: 3 * time.Second}
	if w, _ := send(t, h, hi); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "3" {
		t.Errorf("full: %d %v", w.Code, w.Header())
	}
	admit = nil
	if w, _ := send(t, h, hi); w.Code != http.StatusAccepted || len(log.records()) != 1 {
		t.Errorf("then: %d, %d records", w.Code, len(log.records()))
	}
}

func TestServiceSaysWhatItLacks(t *testing.T) {
	reg := prometheus.NewRegistry()
	ok := Config{Producer: &fakeLog{}, Partitions: 1, Registry: reg}
	if _, err := New(ok); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"producer": {Partitions: 1}, "partition": {Producer: &fakeLog{}}, "metrics": ok,
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestIDsRunOutIsADefectAndNotARefusal(t *testing.T) {
	s := newService(t, Config{Producer: &fakeLog{}, Random: strings.NewReader("")})
	if w, a := send(t, handler(s), hi); w.Code != http.StatusInternalServerError || a.Error.Code != fault.Internal {
		t.Errorf("%d %+v", w.Code, a)
	}
}
