package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Settled(m)) }

type answered struct {
	Error struct {
		Message string
		Type    string
		Param   *string
		Code    fault.Code
	}
}

// do sends a request to a handler and reads the error, if it is one.
func do(t *testing.T, h http.Handler, r *http.Request) (*httptest.ResponseRecorder, answered) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var a answered
	if w.Code >= 400 {
		if err := json.Unmarshal(w.Body.Bytes(), &a, json.MatchCaseInsensitiveNames(true)); err != nil {
			t.Fatalf("the error is no JSON: %v\n%s", err, w.Body)
		}
		if ct := w.Header().Get("Content-Type"); ct != "application/json" {
			t.Errorf("an error of Content-Type %q", ct)
		}
	}
	if w.Header().Get("X-Request-Id") == "" {
		t.Error("an answer without x-request-id")
	}
	return w, a
}

func post(body, contentType string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

type echo struct {
	Name  string            `json:"name"`
	Count int               `json:"count"`
	On    bool              `json:"on"`
	Tags  []string          `json:"tags"`
	Inner struct{ A int }   `json:"inner"`
	Notes map[string]string `json:"notes"`
}

func router(t *testing.T, cfg Config) chi.Router {
	t.Helper()
	r := NewRouter(cfg)
	r.Post("/echo", func(w http.ResponseWriter, r *http.Request) {
		var e echo
		if err := ReadJSON(r, &e); err != nil {
			WriteError(w, r, err)
			return
		}
		WriteJSON(w, r, http.StatusOK, e)
	})
	return r
}

func TestBadBodyIsAnsweredWithWhatWasWrongAndWhere(t *testing.T) {
	h := router(t, Config{MaxBody: 64})
	for name, c := range map[string]struct {
		body, contentType string
		status            int
		code              fault.Code
		param             string
		says              string
	}{
		"empty":           {"", "application/json", 400, fault.InvalidJSON, "", "line 1, column 1: it is empty"},
		"cut short":       {"{\n \"name\":", "application/json", 400, fault.InvalidJSON, "", "line 2"},
		"not JSON":        {"{\n\n  nope}", "application/json", 400, fault.InvalidJSON, "", "line 3, column 4"},
		"trailing":        {"{} x", "application/json", 400, fault.InvalidJSON, "", "line 1, column 4"},
		"twice":           {`{"name":"a","name":"b"}`, "application/json", 400, fault.InvalidJSON, "name", "stands twice"},
		"not UTF-8":       {"{\"name\":\"\xff\"}", "application/json", 400, fault.InvalidJSON, "", "UTF-8"},
		"unknown":         {`{"title":"a"}`, "application/json", 400, fault.InvalidRequest, "title", `"title" is not known`},
		"unknown inside":  {`{"inner":{"b":1}}`, "application/json", 400, fault.InvalidRequest, "inner.b", "inner.b"},
		"null":            {` null`, "application/json", 400, fault.InvalidRequest, "", "a JSON null"},
		"array":           {`[]`, "application/json", 400, fault.InvalidRequest, "", "a JSON array: it must be an object"},
		"kind of string":  {`{"name":1}`, "application/json", 400, fault.InvalidRequest, "name", "a JSON number: it must be a string"},
		"kind of number":  {`{"count":{}}`, "application/json", 400, fault.InvalidRequest, "count", "a JSON object: it must be a whole number"},
		"kind of boolean": {`{"on":[]}`, "application/json", 400, fault.InvalidRequest, "on", "it must be true or false"},
		"kind of array":   {`{"tags":true}`, "application/json", 400, fault.InvalidRequest, "tags", "a JSON boolean: it must be an array"},
		"kind of object":  {`{"notes":1}`, "application/json", 400, fault.InvalidRequest, "notes", "it must be an object"},
		"out of range":    {`{"count":1e40}`, "application/json", 400, fault.InvalidRequest, "count", "count: 1e40: it must be a whole number"},
		"a fraction":      {`{"count":1.5}`, "application/json", 400, fault.InvalidRequest, "count", "count: 1.5: it must be a whole number"},
		"too large":       {`{"name":"` + strings.Repeat("a", 64) + `"}`, "application/json", 413, fault.TooLarge, "", "64 bytes"},
		"no type":         {`{}`, "", 415, fault.UnsupportedMedia, "", "no Content-Type"},
		"a form":          {`{}`, "application/x-www-form-urlencoded", 415, fault.UnsupportedMedia, "", "application/x-www-form-urlencoded"},
		"another charset": {`{}`, "application/json; charset=latin1", 415, fault.UnsupportedMedia, "", "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			w, a := do(t, h, post(c.body, c.contentType))
			param := ""
			if a.Error.Param != nil {
				param = *a.Error.Param
			}
			if w.Code != c.status || a.Error.Code != c.code || param != c.param {
				t.Errorf("got %d %s of %q, want %d %s of %q", w.Code, a.Error.Code, param, c.status, c.code, c.param)
			}
			if !strings.Contains(a.Error.Message, c.says) {
				t.Errorf("the message %q does not say %q", a.Error.Message, c.says)
			}
			if a.Error.Type != "invalid_request_error" || w.Header().Get("X-Should-Retry") != "false" {
				t.Errorf("type %q, x-should-retry %q", a.Error.Type, w.Header().Get("X-Should-Retry"))
			}
		})
	}
}

func TestGoodBodyIsReadWhateverItsLengthIsToldBy(t *testing.T) {
	h := router(t, Config{})
	for name, body := range map[string]io.Reader{
		"counted": strings.NewReader(`{"name":"a"}`),
		"chunked": struct{ io.Reader }{strings.NewReader(`{"name":"a"}`)},
		"long":    strings.NewReader(`{"name":"a"}` + strings.Repeat(" ", maxTrusted)),
	} {
		r := httptest.NewRequest(http.MethodPost, "/echo", body)
		r.Header.Set("Content-Type", `Application/JSON; charset="utf-8"`)
		w, _ := do(t, h, r)
		var e echo
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Name != "a" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestBodyThatBreaksOffIsTheClientsFault(t *testing.T) {
	for name, c := range map[string]struct {
		body   io.Reader
		length int64
	}{
		"short":  {strings.NewReader(`{`), 10},
		"broken": {io.MultiReader(strings.NewReader(`{`), brokenReader{}), -1},
	} {
		r := httptest.NewRequest(http.MethodPost, "/echo", c.body)
		r.ContentLength = c.length
		r.Header.Set("Content-Type", "application/json")
		if w, a := do(t, router(t, Config{}), r); w.Code != 400 || a.Error.Code != fault.InvalidRequest {
			t.Errorf("%s: %d %v", name, w.Code, a)
		}
	}
	r := post("", "application/json")
	r.Body, r.ContentLength = nil, 5
	if body, err := ReadBody(r); body != nil || err != nil {
		t.Errorf("no body: %q, %v", body, err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestWhatIsNotThereAndWhatIsNotTakenHaveTheOneShape(t *testing.T) {
	h := router(t, Config{})
	h.Get("/echo", func(http.ResponseWriter, *http.Request) {})
	if w, a := do(t, h, httptest.NewRequest(http.MethodGet, "/none", nil)); w.Code != 404 || a.Error.Code != fault.NotFound {
		t.Errorf("%d %v", w.Code, a)
	}
	if w, a := do(t, h, httptest.NewRequest("BREW", "/none", nil)); w.Code != 404 || a.Error.Code != fault.NotFound {
		t.Errorf("an odd method of nothing: %d %v", w.Code, a)
	}
	for _, method := range []string{http.MethodDelete, "BREW"} {
		w, a := do(t, h, httptest.NewRequest(method, "/echo", nil))
		if w.Code != 405 || a.Error.Code != fault.MethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("%s: %d %v, Allow %q", method, w.Code, a, w.Header().Get("Allow"))
		}
	}
}

func TestWhatTakesAGetTakesAHead(t *testing.T) {
	h := router(t, Config{})
	h.Get("/a/{id}", func(w http.ResponseWriter, r *http.Request) {
		WriteJSON(w, r, 200, r.Method+" "+PathParam(r, "id"))
	})
	h.Head("/own", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	server := httptest.NewServer(h)
	defer server.Close()
	for path, want := range map[string]int{"/a/b%2Fc": 200, "/own": 204, "/echo": 405, "/none": 404} {
		res, err := server.Client().Head(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != want || err != nil || len(body) > 0 || want == 200 && res.ContentLength != int64(len(`"HEAD b/c"`)) {
			t.Errorf("%s: %d, %d of %d bytes, %v", path, res.StatusCode, len(body), res.ContentLength, err)
		}
	}
}

func TestRequestIDIsTakenWhereItIsSaneAndIsInEveryLogLine(t *testing.T) {
	var log bytes.Buffer
	h := router(t, Config{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	h.Get("/who", func(w http.ResponseWriter, r *http.Request) {
		Log(r.Context()).InfoContext(r.Context(), "seen")
		WriteJSON(w, r, 200, []string{RequestID(r.Context()), Tenant(r.Context())})
	})
	r := httptest.NewRequest(http.MethodGet, "/who", nil)
	r.Header.Set("X-Request-Id", "mine-1")
	w, _ := do(t, h, r)
	if w.Body.String() != `["mine-1","default"]` || w.Header().Get("X-Request-Id") != "mine-1" {
		t.Errorf("%s, %q", w.Body, w.Header().Get("X-Request-Id"))
	}
	if got := strings.Count(log.String(), "request_id=mine-1"); got != 2 { // the handler's line and the access log's
		t.Errorf("%d lines name the request:\n%s", got, &log)
	}
	for _, bad := range []string{"a b", "é", strings.Repeat("a", 129)} {
		r.Header.Set("X-Request-Id", bad)
		if w, _ := do(t, h, r); !strings.HasPrefix(w.Header().Get("X-Request-Id"), "req_") {
			t.Errorf("%q became %q", bad, w.Header().Get("X-Request-Id"))
		}
	}
	if Tenant(t.Context()) != "default" || RequestID(t.Context()) != "" || Log(t.Context()) == nil {
		t.Error("outside of a request")
	}
}

func TestPanicIsA500InTheOneShapeAndIsLogged(t *testing.T) {
	var log bytes.Buffer
	h := router(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	h.Get("/panic", func(http.ResponseWriter, *http.Request) { panic("the secret") })
	w, a := do(t, h, httptest.NewRequest(http.MethodGet, "/panic", nil))
	if w.Code != 500 || a.Error.Code != fault.Internal || strings.Contains(a.Error.Message, "secret") {
		t.Errorf("%d %v", w.Code, a)
	}
	if !strings.Contains(log.String(), "the secret") {
		t.Errorf("the log does not have it: %s", &log)
	}
}

func TestPanicInTheMiddleOfAnAnswerCutsItOff(t *testing.T) {
	h := router(t, Config{})
	h.Get("/late", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("half")); panic("late") })
	h.Get("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for _, path := range []string{"/late", "/abort"} {
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // the very value
					t.Errorf("%s: %v", path, p)
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
		}()
	}
}

func TestErrorTellsWhenToComeBack(t *testing.T) {
	h := NewRouter(Config{})
	var give error
	h.Get("/", func(w http.ResponseWriter, r *http.Request) { WriteError(w, r, give) })
	for name, c := range map[string]struct {
		err                    error
		status                 int
		after, afterMs, should string
	}{
		"waiting":  {&fault.Error{Code: fault.Overloaded, RetryAfter: 1200 * time.Millisecond}, 429, "2", "1200", "true"},
		"at once":  {&fault.Error{Code: fault.Overloaded, RetryAfter: time.Microsecond}, 429, "1", "1", "true"},
		"away":     {fault.New(fault.Unavailable, "x"), 503, "", "", "true"},
		"wrapped":  {errors.Join(errors.New("a"), fault.New(fault.NotFound, "x")), 404, "", "", "false"},
		"a defect": {errors.New("secret"), 500, "", "", "false"},
	} {
		give = c.err
		w, _ := do(t, h, httptest.NewRequest(http.MethodGet, "/", nil))
		got := []any{w.Code, w.Header().Get("Retry-After"), w.Header().Get("Retry-After-Ms"), w.Header().Get("X-Should-Retry")}
		if diff := cmp.Diff([]any{c.status, c.after, c.afterMs, c.should}, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %s", name, w.Body)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	give = context.Canceled
	if w, _ := do(t, h, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx)); w.Code != 499 {
		t.Errorf("a client that left: %d", w.Code)
	}
	give = fault.Param("body.model", "x")
	if w, _ := do(t, h, httptest.NewRequest(http.MethodGet, "/", nil)); w.Body.String() !=
		`{"error":{"message":"x","type":"invalid_request_error","param":"body.model","code":"invalid_request"}}` {
		t.Errorf("the shape: %s", w.Body)
	}
}

func TestAnswerWithoutJSONIsA500(t *testing.T) {
	h := NewRouter(Config{})
	h.Get("/", func(w http.ResponseWriter, r *http.Request) { WriteJSON(w, r, 200, make(chan int)) })
	if w, a := do(t, h, httptest.NewRequest(http.MethodGet, "/", nil)); w.Code != 500 || a.Error.Code != fault.Internal {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestListNamesItsEnds(t *testing.T) {
	id := func(s *string) string { return *s }
	for want, l := range map[string]List[string]{
		`{"object":"list","data":["a","b"],"first_id":"a","last_id":"b","has_more":true}`: NewList([]string{"a", "b"}, true, id),
		`{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}`:     NewList(nil, false, id),
	} {
		b, err := json.Marshal(l)
		if err != nil || string(b) != want {
			t.Errorf("%s, %v, want %s", b, err, want)
		}
	}
}

func TestRequestsAreCountedByRouteWithBoundedLabels(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := Config{Registry: reg}
	h := router(t, cfg)
	h.Get("/things/{id}", func(w http.ResponseWriter, r *http.Request) { WriteJSON(w, r, 200, 1) })
	router(t, cfg) // a second router shares the metrics
	for _, r := range []*http.Request{
		httptest.NewRequest(http.MethodGet, "/things/1", nil), httptest.NewRequest(http.MethodGet, "/things/2", nil),
		httptest.NewRequest(http.MethodGet, "/a", nil), httptest.NewRequest("BREW", "/b", nil),
	} {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	want := map[string]uint64{"/things/{id} GET 200": 2, "none GET 404": 1, "none other 405": 0, "none other 404": 0}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, f := range families {
		if f.GetName() != "penstock_http_request_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			l := m.GetLabel() // by name: method, route, status
			got[l[1].GetValue()+" "+l[0].GetValue()+" "+l[2].GetValue()] = m.GetHistogram().GetSampleCount()
		}
	}
	if got["/things/{id} GET 200"] != want["/things/{id} GET 200"] || got["none GET 404"] != 1 || len(got) != 3 {
		t.Errorf("%v", got)
	}
}

func TestMetricThatCannotBeRegisteredStopsNobody(t *testing.T) {
	reg := prometheus.NewRegistry()
	if err := reg.Register(prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_http_requests_open", Help: "another"})); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	h := router(t, Config{Registry: reg, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if w, _ := do(t, h, post(`{}`, "application/json")); w.Code != 200 || !strings.Contains(log.String(), "not registered") {
		t.Errorf("%d, %s", w.Code, &log)
	}
}

// serve starts a server and returns its address, a stop, and its end.
func serve(t *testing.T, h http.Handler, cfg ServerConfig) (addr string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	bound := make(chan net.Addr, 1)
	cfg.Listening = func(a net.Addr) { bound <- a }
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, "127.0.0.1:0", h, cfg) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case a := <-bound:
		return a.String(), stop
	case err := <-ended:
		t.Fatal(err)
		return "", nil
	}
}
