//go:build browser

package web

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/fault"
)

// fake speaks the API as far as the page asks. What a job does stands in a
// script that its model names.
type fake struct {
	*httptest.Server
	mu       sync.Mutex
	jobs     []*fakeJob // oldest first
	keys     []string   // of every POST
	lists    int        // how often the list was asked for
	listDown bool       // PostgreSQL is away
	postDown int        // how many POSTs are to fail
}

type fakeJob struct {
	id, model, lane string
	created         time.Time
	steps           []step
	cuts            []int // after which event the connection is cut; each once
	cancelled       chan struct{}
}

// step is one event and when it happens, from the job's creation on.
type step struct {
	kind    string
	data    map[string]any
	attempt int
	after   time.Duration
}

const html = `<img src="/nowhere.png" onerror="document.title='owned'"><b>bold</b> & </script>`

// script makes what a model does.
func (j *fakeJob) script() {
	at, gap := 30*time.Millisecond, 10*time.Millisecond
	add := func(kind string, attempt int, data map[string]any) {
		j.steps = append(j.steps, step{kind, data, attempt, at})
		at += gap
	}
	say := func(attempt, n int) {
		for i := range n {
			add("delta", attempt, map[string]any{"index": 0, "content": fmt.Sprintf("word%d ", i)})
		}
	}
	end := func(attempt, n int) {
		add("completed", attempt, map[string]any{
			"model": j.model, "choices": []any{map[string]any{"index": 0, "finish_reason": "stop"}},
			"usage": map[string]any{"prompt_tokens": 7, "completion_tokens": n, "total_tokens": 7 + n},
		})
	}
	started := func(attempt int) { add("started", attempt, map[string]any{"model": j.model, "provider": "fake"}) }
	switch j.model {
	case "waits":
		return
	case "fails":
		started(1)
		say(1, 5)
		add("failed", 1, map[string]any{"code": "provider_error", "message": "the model's provider failed", "retryable": true})
	case "superseded":
		started(1)
		say(1, 10)
		at += time.Second // for the test to see both states
		gap = time.Second
		add("superseded", 1, map[string]any{"reason": "the owner was replaced"})
		gap = 10 * time.Millisecond
		started(2)
		add("delta", 2, map[string]any{"index": 0, "content": "Once more. "})
		say(2, 20)
		end(2, 21)
	case "long", "stubborn":
		gap = 50 * time.Millisecond
		started(1)
		say(1, 600)
		end(1, 600)
	case "burst":
		gap = time.Millisecond
		started(1)
		say(1, 1500)
		end(1, 1500)
	case "html":
		started(1)
		add("delta", 1, map[string]any{"index": 0, "content": html, "reasoning": html})
		end(1, 2)
	case "quick":
		at, gap = 0, 0
		started(1)
		say(1, 3)
		end(1, 3)
	default:
		started(1)
		say(1, 60)
		end(1, 60)
		if j.model == "cut" {
			j.cuts = []int{1, 7, 20, 59}
		}
	}
}

// text is what the job says in the end.
func (j *fakeJob) text() string {
	var b strings.Builder
	for _, s := range j.steps {
		if s.kind == "superseded" {
			b.Reset()
		}
		if c, ok := s.data["content"].(string); ok {
			b.WriteString(c)
		}
	}
	return b.String()
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

func (j *fakeJob) resource(now time.Time) map[string]any {
	res := map[string]any{
		"object": "job", "id": j.id, "status": "queued", "lane": j.lane, "model": j.model, "created_at": stamp(j.created),
		"request": map[string]any{"topic": "penstock.requests." + j.lane, "partition": 3, "offset": 12},
		"links":   map[string]any{"self": "/v1/jobs/" + j.id, "events": "/v1/jobs/" + j.id + "/events"},
	}
	if j.isCancelled() {
		res["status"] = "cancelled"
		return res
	}
	if len(j.steps) == 0 {
		return res
	}
	age, last := now.Sub(j.created), j.steps[len(j.steps)-1]
	if age >= j.steps[0].after {
		res["status"], res["attempt"] = "running", last.attempt
	}
	if age >= last.after {
		res["status"], res["ended_at"] = last.kind, stamp(j.created.Add(last.after))
		if last.kind == "failed" {
			res["error"] = last.data
		} else {
			res["output"] = []any{map[string]any{"index": 0, "message": map[string]any{"role": "assistant", "content": j.text()}}}
		}
	}
	return res
}

func (j *fakeJob) isCancelled() bool {
	select {
	case <-j.cancelled:
		return true
	default:
		return false
	}
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{}
	r := api.NewRouter(api.Config{})
	Routes(r)
	r.Post("/v1/jobs", f.create)
	r.Get("/v1/jobs", f.list)
	r.Get("/v1/jobs/{id}", f.get)
	r.Get("/v1/jobs/{id}/events", f.events)
	r.Post("/v1/jobs/{id}/cancel", f.cancel)
	r.Get("/v1/models", func(w http.ResponseWriter, r *http.Request) {
		api.WriteJSON(w, r, http.StatusOK, map[string]any{"object": "list", "data": []any{
			map[string]any{"id": "sim", "object": "model"}, map[string]any{"id": "fast", "object": "model"},
		}})
	})
	f.Server = httptest.NewServer(r)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

// put adds a job as if it had been sent that long ago.
func (f *fake) put(model, lane string, ago time.Duration) *fakeJob {
	f.mu.Lock()
	defer f.mu.Unlock()
	j := &fakeJob{id: fmt.Sprintf("job_06f3k2m8q00000000000%010d", len(f.jobs)), model: model, lane: lane, created: time.Now().Add(-ago), cancelled: make(chan struct{})}
	j.script()
	f.jobs = append(f.jobs, j)
	return j
}

func (f *fake) find(w http.ResponseWriter, r *http.Request) *fakeJob {
	id := r.PathValue("id")
	if id == "" {
		id = strings.Split(r.URL.Path, "/")[3]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, j := range f.jobs {
		if j.id == id {
			return j
		}
	}
	api.WriteError(w, r, fault.New(fault.NotFound, "there is no job %q", id))
	return nil
}

func (f *fake) create(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	var in struct {
		Lane string `json:"lane"`
		Body struct {
			Model    string                           `json:"model"`
			Messages []struct{ Role, Content string } `json:"messages"`
		} `json:"body"`
	}
	if err != nil || json.Unmarshal(raw, &in, json.RejectUnknownMembers(true), json.MatchCaseInsensitiveNames(true)) != nil ||
		len(in.Body.Messages) != 1 || in.Body.Messages[0].Content == "" || in.Body.Messages[0].Role != "user" {
		api.WriteError(w, r, fault.New(fault.InvalidRequest, "not what a job is made of: %s", raw))
		return
	}
	if in.Body.Model == "unknown" {
		api.WriteError(w, r, fault.New(fault.ModelNotFound, "nobody serves <b>the model</b>"))
		return
	}
	f.mu.Lock()
	f.keys = append(f.keys, r.Header.Get("Idempotency-Key"))
	down := f.postDown > 0
	f.postDown--
	f.mu.Unlock()
	if down {
		api.WriteError(w, r, fault.New(fault.UnknownOutcome, "it may or may not have been accepted."))
		return
	}
	j := f.put(in.Body.Model, in.Lane, 0)
	api.WriteJSON(w, r, http.StatusAccepted, j.resource(j.created))
}

// cancel refuses the first time for a job whose model says so.
func (f *fake) cancel(w http.ResponseWriter, r *http.Request) {
	j := f.find(w, r)
	if j == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if j.model == "stubborn" {
		j.model = "sim"
		api.WriteError(w, r, fault.New(fault.Unavailable, "Kafka is away."))
		return
	}
	if !j.isCancelled() {
		close(j.cancelled)
	}
	api.WriteJSON(w, r, http.StatusAccepted, j.resource(time.Now()))
}

func (f *fake) list(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	if f.listDown {
		api.WriteError(w, r, fault.New(fault.Unavailable, "PostgreSQL is away."))
		return
	}
	jobs := slices.Clone(f.jobs)
	slices.Reverse(jobs)
	if after := r.URL.Query().Get("after"); after != "" {
		jobs = jobs[1+slices.IndexFunc(jobs, func(j *fakeJob) bool { return j.id == after }):]
	}
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	more := len(jobs) > limit
	data := make([]any, 0, limit)
	for _, j := range jobs[:min(limit, len(jobs))] {
		data = append(data, j.resource(time.Now()))
	}
	api.WriteJSON(w, r, http.StatusOK, map[string]any{"object": "list", "data": data, "has_more": more})
}

func (f *fake) get(w http.ResponseWriter, r *http.Request) {
	j := f.find(w, r)
	if j == nil {
		return
	}
	if r.URL.Query().Has("wait") && len(j.steps) > 0 {
		pause(r, j, j.created.Add(j.steps[len(j.steps)-1].after))
	}
	api.WriteJSON(w, r, http.StatusOK, j.resource(time.Now()))
}

// pause waits until then, or until the client has left or the job is cancelled.
func pause(r *http.Request, j *fakeJob, then time.Time) bool {
	timer := time.NewTimer(time.Until(then))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-j.cancelled:
		return false
	case <-r.Context().Done():
		return false
	}
}

func (f *fake) events(w http.ResponseWriter, r *http.Request) {
	j := f.find(w, r)
	if j == nil {
		return
	}
	from := 0
	for _, cursor := range []string{r.URL.Query().Get("cursor"), r.Header.Get("Last-Event-ID")} {
		if n, err := strconv.Atoi(strings.TrimPrefix(cursor, "c")); err == nil {
			from = n + 1
		}
	}
	if from > 0 && from == len(j.steps) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w).Flush
	_, _ = fmt.Fprint(w, "retry: 50\n\n")
	_ = flush()
	for seq, s := range j.steps {
		if seq < from {
			continue
		}
		at := j.created.Add(s.after)
		if time.Until(at) > 0 && (flush() != nil || !pause(r, j, at)) {
			if j.isCancelled() {
				j.write(w, seq, step{kind: "cancelled", data: map[string]any{}, attempt: s.attempt}, time.Now())
			}
			return
		}
		j.write(w, seq, s, at)
		f.mu.Lock()
		cut := slices.Contains(j.cuts, seq)
		j.cuts = slices.DeleteFunc(j.cuts, func(n int) bool { return n == seq })
		f.mu.Unlock()
		if cut {
			_ = flush()
			panic(http.ErrAbortHandler)
		}
	}
	if len(j.steps) == 0 && !pause(r, j, j.created.Add(time.Hour)) && j.isCancelled() {
		j.write(w, 0, step{kind: "cancelled", data: map[string]any{}, attempt: 1}, time.Now())
	}
}

// write writes an event.
func (j *fakeJob) write(w io.Writer, seq int, s step, at time.Time) {
	raw, _ := json.Marshal(map[string]any{
		"type": "output." + s.kind, "v": 1, "time": stamp(at), "tenant": "default", "job": j.id,
		"attempt": s.attempt, "seq": seq, "lane": j.lane, "epoch": 1, "data": s.data,
	})
	_, _ = fmt.Fprintf(w, "id: c%d\ndata: %s\n\n", seq, raw)
}
