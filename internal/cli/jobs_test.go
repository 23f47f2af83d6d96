package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// quick is a model that loses no time.
const quick = "sim:tokens=3,ttft=0s,gap=0s"

func firstJob(t *testing.T, s string) string {
	t.Helper()
	id := regexp.MustCompile(`job_[0-9a-z]+`).FindString(s)
	if id == "" {
		t.Fatalf("there is no job in %q", s)
	}
	return id
}

func TestAPromptIsSubmittedAndFollowed(t *testing.T) {
	t.Parallel()
	p := dev(t)
	o := p.on(t, "job", "submit", "--model", quick, "--follow", "hello", "there").want(t, exitDone)
	if len(strings.Fields(o.stdout)) != 3 || !strings.HasSuffix(o.stdout, "\n") {
		t.Errorf("it said %q, want three words on a line", o.stdout)
	}
	id := firstJob(t, o.stderr)
	if again := p.on(t, "job", "tail", id).want(t, exitDone); again.stdout != o.stdout {
		t.Errorf("tail said %q, submit %q", again.stdout, o.stdout)
	}
	records := p.on(t, "job", "tail", id, "-o", "jsonl").want(t, exitDone)
	if lines := strings.Count(records.stdout, "\n"); lines < 3 || !strings.Contains(records.stdout, `"type":"output.completed"`) {
		t.Errorf("the records are %s", records.stdout)
	}
	shown := p.on(t, "job", "get", id, "--wait", "30s").want(t, exitDone)
	for _, want := range []string{id, "completed", "3 out", strings.TrimSpace(o.stdout)} {
		if !strings.Contains(shown.stdout, want) {
			t.Errorf("get does not say %q: %s", want, shown.stdout)
		}
	}
	if o := p.on(t, "job", "get", id, "-o", "json").want(t, exitDone); !strings.HasPrefix(o.stdout, "{\n  \"object\": \"job\"") {
		t.Errorf("get -o json: %s", o.stdout)
	}
}

func TestAJobWhoseEndSaysAllIsShownLikeAnyOther(t *testing.T) {
	t.Parallel()
	p := dev(t)
	watched := p.on(t, "job", "submit", "--model", quick, "--follow", "hello").want(t, exitDone)
	o := p.on(t, "job", "submit", "--model", quick, "--no-stream", "--follow", "hello").want(t, exitDone)
	if o.stdout != watched.stdout || o.stdout == "" {
		t.Errorf("it said %q, the watched one %q", o.stdout, watched.stdout)
	}
	records := p.on(t, "job", "tail", firstJob(t, o.stderr), "-o", "jsonl").want(t, exitDone)
	if strings.Count(records.stdout, "\n") != 1 || !strings.Contains(records.stdout, `"deltas":[{"index":0,"content":`) {
		t.Errorf("the records are %s", records.stdout)
	}
}

func TestAFollowedJobThatFailsIsAFailure(t *testing.T) {
	t.Parallel()
	p := dev(t)
	o := p.on(t, "job", "submit", "-m", "sim:error=400", "--follow", "hello").want(t, exitFailed)
	if !strings.Contains(o.stderr, "provider_rejected") {
		t.Errorf("it did not say why: %s", o.stderr)
	}
	waited := p.on(t, "job", "submit", "-m", "sim:error=400", "--wait", "hello").want(t, exitFailed)
	if !strings.Contains(waited.stdout, "failed") || !strings.Contains(waited.stdout, "provider_rejected") {
		t.Errorf("--wait: %q", waited.stdout)
	}
	if o := p.on(t, "job", "get", "--wait", "30s", firstJob(t, waited.stdout)).want(t, exitDone); !strings.Contains(o.stdout, "provider_rejected") {
		t.Errorf("get: %s", o.stdout)
	}
}

func TestARefusedJobIsTold(t *testing.T) {
	t.Parallel()
	p := dev(t)
	if o := p.on(t, "job", "submit", "-m", "nobody", "hello").want(t, exitFailed); !strings.Contains(o.stderr, "model_not_found") {
		t.Errorf("an unknown model: %s", o.stderr)
	}
	if o := p.on(t, "job", "tail", "job_0").want(t, exitFailed); !strings.Contains(o.stderr, "not_found") {
		t.Errorf("tail of no job: %s", o.stderr)
	}
	if o := p.on(t, "job", "get", "job_0").want(t, exitFailed); !strings.Contains(o.stderr, "not_found") {
		t.Errorf("get of no job: %s", o.stderr)
	}
	if o := p.on(t, "job", "list", "--limit", "1000").want(t, exitUsage); !strings.Contains(o.stderr, "limit") {
		t.Errorf("list of too many: %s", o.stderr)
	}
}

// jobLines are n jobs, a line each.
func jobLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"lane":"batch","conversation":"c%d","body":{"model":%q,"messages":[{"role":"user","content":"number %d"}]}}`+"\n\n", i%7, quick, i)
	}
	return b.String()
}

func TestAFileOfJobsGivesALineEach(t *testing.T) {
	t.Parallel()
	p := dev(t)
	path := filepath.Join(t.TempDir(), "jobs.jsonl")
	if err := os.WriteFile(path, []byte(jobLines(40)+`{"body":{"model":"nobody"}}`+"\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := p.on(t, "job", "submit", "-f", path, "--wait", "-o", "jsonl").want(t, exitFailed)
	statuses := map[string]int{}
	lines := map[int]bool{}
	for line := range strings.Lines(o.stdout) {
		var r struct {
			Line int `json:"line"`
			Job  struct {
				Status string `json:"status"`
			} `json:"job"`
			Error struct {
				Code string `json:"code"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		lines[r.Line] = true
		statuses[r.Job.Status+r.Error.Code]++
	}
	if statuses["completed"] != 40 || statuses["model_not_found"] != 1 || statuses["invalid_json"] != 1 || len(lines) != 42 || !lines[1] || !lines[3] {
		t.Errorf("the results are %v, of lines %v", statuses, lines)
	}
	if !strings.Contains(o.stderr, "40 completed, 2 failed, in ") {
		t.Errorf("the summary is %q", o.stderr)
	}
}

// crowded is a server whose lanes have room for nothing at the first two tries of
// each job.
func crowded(t *testing.T) string {
	t.Helper()
	var mu sync.Mutex
	tries := map[string]int{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		key := r.Header.Get("Idempotency-Key")
		if tries[key]++; tries[key] <= 2 {
			w.Header().Set("Retry-After-Ms", "20")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"error":{"message":"the lane batch is full","type":"rate_limit_error","param":null,"code":"overloaded"}}`)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprintf(w, `{"object":"job","id":"job_%s","status":"queued","links":{"self":"","events":"","cancel":""}}`, key)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestJobsWaitForRoomInAFullLaneAndNoneIsLost(t *testing.T) {
	t.Parallel()
	url := crowded(t)
	o := call{stdin: jobLines(100)}.run(t, "job", "submit", "--server", url, "-f", "-").want(t, exitDone)
	if n := strings.Count(o.stdout, "queued"); n != 100 || !strings.Contains(o.stderr, "100 submitted, 0 failed") {
		t.Errorf("%d of 100 lines: %s", n, o.stderr)
	}
	if n := strings.Count(o.stderr, "a lane is full; each job waits for room, 30m0s at most"); n != 1 {
		t.Errorf("it said %d times that it waits: %s", n, o.stderr)
	}
	one := call{}.run(t, "job", "submit", "--server", url, "-m", "sim", "hello").want(t, exitDone)
	if !strings.Contains(one.stderr, "a lane is full") {
		t.Errorf("one job: %s", one.stderr)
	}
	o = call{stdin: jobLines(3)}.run(t, "job", "submit", "--server", url, "--patience", "30ms", "-f", "-").want(t, exitFailed)
	if n := strings.Count(o.stdout, "the lane batch is full (overloaded); it was not waited for longer than 30ms"); n != 3 {
		t.Errorf("a bound on the wait: %s", o.stdout)
	}
}

func TestTheSameRunSubmitsNothingTwice(t *testing.T) {
	t.Parallel()
	p := dev(t)
	c := call{stdin: jobLines(5), env: map[string]string{"PENSTOCK_SERVER": "http://" + p.addr}}
	ids := map[string]bool{}
	runID := fmt.Sprintf("test-%d", time.Now().UnixNano())
	for range 2 {
		o := c.run(t, "job", "submit", "-f", "-", "--run-id", runID).want(t, exitDone)
		for line := range strings.Lines(o.stdout) {
			ids[firstJob(t, line)] = true
		}
	}
	if len(ids) != 5 {
		t.Errorf("two runs of five jobs made %d", len(ids))
	}
}

func TestAFileCanBeFollowedOneByOne(t *testing.T) {
	t.Parallel()
	p := dev(t)
	c := call{stdin: jobLines(2) + `{"body":{"model":"sim:error=400"}}`, env: map[string]string{"PENSTOCK_SERVER": "http://" + p.addr}}
	o := c.run(t, "job", "submit", "-f", "-", "--follow").want(t, exitFailed)
	if strings.Count(o.stdout, "\n") != 2 || !strings.Contains(o.stderr, "line 5: job ") {
		t.Errorf("it said %q and %q", o.stdout, o.stderr)
	}
}

func TestAnAnswerThatIsMoreThanATextIsShown(t *testing.T) {
	t.Parallel()
	p := dev(t)
	const tools = `"tools":[{"type":"function","function":{"name":"add","parameters":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}}}]`
	for body, want := range map[string]string{
		`{"body":{"model":"sim:ttft=0s,tool=add","messages":[{"role":"user","content":"x"}],` + tools + `}}`: `\n\nadd\(\{"a":.*\}\)\n$`,
		`{"body":{"model":"sim:ttft=0s,gap=0s,tokens=3","n":2,"messages":[{"role":"user","content":"x"}]}}`:  `\n\n0: .+\.\n\n1: .+\.\n$`,
		`{"endpoint":"/v1/embeddings","body":{"model":"sim","input":"x"}}`:                                   `\n\na vector of \d+ numbers\n$`,
		`{"endpoint":"/v1/embeddings","body":{"model":"sim","input":["x","y"],"encoding_format":"base64"}}`:  `\n\n0: a vector, in base64\n\n1: a vector, in base64\n$`,
	} {
		c := call{env: map[string]string{"PENSTOCK_SERVER": "http://" + p.addr}, stdin: body}
		followed := c.run(t, "job", "submit", "-f", "-", "--follow").want(t, exitDone)
		id := firstJob(t, followed.stderr)
		if !strings.Contains(followed.stderr, "penstock job get "+id) {
			t.Errorf("%s: it does not say that there is more: %q", body, followed.stderr)
		}
		if o := p.on(t, "job", "get", id, "--wait", "30s").want(t, exitDone); !regexp.MustCompile(want).MatchString(o.stdout) {
			t.Errorf("%s: it says %q, want it to end as %s", body, o.stdout, want)
		}
	}
}

func TestJobsAreListed(t *testing.T) {
	t.Parallel()
	p := dev(t)
	conversation := fmt.Sprintf("listed-%d", time.Now().UnixNano()) // tests may run more than once
	for range 2 {
		p.on(t, "job", "submit", "-m", quick, "--lane", "interactive", "--conversation", conversation, "--wait", "hi").want(t, exitDone)
	}
	eventually(t, "the jobs are projected", func() bool {
		o := p.on(t, "job", "list", "--conversation", conversation, "--status", "completed", "-o", "jsonl").want(t, exitDone)
		return strings.Count(o.stdout, "\n") == 2
	})
	o := p.on(t, "job", "list", "--conversation", conversation, "--limit", "1", "--order", "asc", "--created-after", "2020-01-01T00:00:00Z").want(t, exitDone)
	first := firstJob(t, o.stdout)
	if !strings.HasPrefix(o.stdout, "JOB ") || !strings.Contains(o.stdout, "interactive") || !strings.Contains(o.stderr, "--after "+first) {
		t.Errorf("list: %q and %q", o.stdout, o.stderr)
	}
	rest := p.on(t, "job", "list", "--conversation", conversation, "--order", "asc", "--after", first, "-o", "json").want(t, exitDone)
	if strings.Contains(rest.stdout, `"id": "`+first) || !strings.Contains(rest.stdout, `"has_more": false`) {
		t.Errorf("the rest: %s", rest.stdout)
	}
	for _, args := range [][]string{{"--status", "done"}, {"--after", "none"}} {
		p.on(t, append([]string{"job", "list"}, args...)...).want(t, exitUsage)
	}
}

func TestAServerThatIsAwayIsToldWithWhatToDo(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(nil)
	srv.Close()
	c := call{stdin: jobLines(3)}
	for _, args := range [][]string{
		{"job", "list"},
		{"job", "get", "job_1"},
		{"job", "tail", "job_1"},
		{"job", "submit", "-m", "sim", "hi"},
		{"job", "submit", "-f", "-"},
		{"job", "submit", "-f", "-", "--follow"},
	} {
		o := c.run(t, append(args, "--server", srv.URL)...).want(t, exitFailed)
		if !strings.Contains(o.stderr, "no server answers at "+srv.URL) || !strings.Contains(o.stderr, "penstock dev") || !strings.Contains(o.stderr, "--server") {
			t.Errorf("%v: %q", args, o.stderr)
		}
	}
}

// stream answers every request for events with these, and every POST with a job.
func stream(t *testing.T, events ...string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = fmt.Fprint(w, `{"object":"job","id":"job_1","status":"queued","links":{}}`)
			return
		}
		for i, e := range events {
			_, _ = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i, e)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// ev is an event of a stream.
func ev(kind string, data string) string {
	return fmt.Sprintf(`{"type":%q,"v":1,"time":"2026-11-22T15:04:05.321Z","tenant":"default","job":"job_1","attempt":1,"seq":0,"lane":"standard","epoch":1,"data":%s}`, kind, data)
}

func TestWhatIsSupersededIsMarked(t *testing.T) {
	t.Parallel()
	url := stream(
		t, ev("output.delta", `{"index":0,"content":"wrong"}`), ev("output.superseded", `{"reason":"owner_changed"}`),
		ev("stream.gap", `{"reason":"truncated","cursor":"x"}`),
		ev("output.delta", `{"index":1,"content":"another choice"}`), ev("output.delta", `{"index":0,"content":"right"}`),
		ev("output.completed", `{"model":"sim","choices":[]}`),
	)
	o := run(t, "job", "tail", "job_1", "--server", url).want(t, exitDone)
	if want := "wrong\n--- the text above is void (owner_changed): the answer begins anew ---\nright\n"; o.stdout != want {
		t.Errorf("it said %q, want %q", o.stdout, want)
	}
	if !strings.Contains(o.stderr, "events are missing here: truncated") {
		t.Errorf("the gap was not told: %q", o.stderr)
	}
}

func TestAnEndedJobOfWhichTheLogHasLostSomeIsShownWhole(t *testing.T) {
	t.Parallel()
	gap, whole := ev("stream.gap", `{"reason":"truncated","cursor":"x"}`), ev("stream.snapshot", `{"text":"all of it","through_seq":4}`)
	url := stream(t, gap, whole, ev("output.completed", `{"model":"sim","choices":[]}`))
	if o := run(t, "job", "tail", "job_1", "--server", url).want(t, exitDone); o.stdout != "all of it\n" {
		t.Errorf("it said %q", o.stdout)
	}
	url = stream(t, ev("output.delta", `{"index":0,"content":"all "}`), gap, whole, ev("output.completed", `{"model":"sim","choices":[]}`))
	o := run(t, "job", "tail", "job_1", "--server", url).want(t, exitDone)
	if want := "all \n--- the text above has gaps: here it is whole ---\nall of it\n"; o.stdout != want {
		t.Errorf("it said %q, want %q", o.stdout, want)
	}
}

func TestAJobWhoseEndTheStreamDoesNotTellIsAskedFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		job  string
		code int
		said string
	}{
		{`"status":"completed"`, exitDone, ""},
		{`"status":"cancelled"`, exitFailed, "job job_1 is cancelled"},
		{`"status":"failed","error":{"code":"provider_error","message":"it broke"}`, exitFailed, "job job_1 failed: it broke (provider_error)"},
		{`"status":"running"`, exitFailed, "job job_1 is running"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case !strings.HasSuffix(r.URL.Path, "/events"):
				_, _ = fmt.Fprintf(w, `{"object":"job","id":"job_1",%s,"links":{}}`, c.job)
			case r.Header.Get("Last-Event-Id") == "":
				_, _ = fmt.Fprintf(w, "id: 7\ndata: %s\n\n", ev("stream.snapshot", `{"text":"all of it","status":"completed"}`))
			default:
				w.WriteHeader(http.StatusNoContent)
			}
		}))
		t.Cleanup(srv.Close)
		o := run(t, "job", "tail", "job_1", "--server", srv.URL).want(t, c.code)
		if o.stdout != "all of it\n" || !strings.Contains(o.stderr, c.said) {
			t.Errorf("%s: it said %q and %q", c.job, o.stdout, o.stderr)
		}
		run(t, "job", "tail", "job_1", "--cursor", "7", "--server", srv.URL).want(t, c.code) // behind the end
	}
}

func TestTailSaysWhereAnOutsideProducerPutTheJob(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 2)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.RequestURI()
		_, _ = fmt.Fprintf(w, "id: 1\ndata: %s\n\n", ev("output.completed", `{"model":"sim","choices":[]}`))
	}))
	t.Cleanup(srv.Close)
	run(t, "job", "tail", "theirs-1", "--partition", "0", "--server", srv.URL).want(t, exitDone)
	run(t, "job", "tail", "theirs-1", "--server", srv.URL).want(t, exitDone)
	for _, want := range []string{"/v1/jobs/theirs-1/events?partition=0", "/v1/jobs/theirs-1/events"} {
		if got := <-asked; got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
	}
	if o := run(t, "job", "tail", "theirs-1", "--partition", "x", "--server", srv.URL); o.code == exitDone || !strings.Contains(o.stderr, "--partition") {
		t.Errorf("%d %s", o.code, o.stderr)
	}
}

func TestACancelledJobIsAFailureOfWhoeverFollows(t *testing.T) {
	t.Parallel()
	url := stream(t, ev("output.delta", `{"index":0,"content":"half"}`), ev("output.cancelled", `{}`))
	o := run(t, "job", "submit", "-m", "sim", "hi", "--follow", "--server", url).want(t, exitFailed)
	if o.stdout != "half\n" || !strings.Contains(o.stderr, "job job_1 was cancelled") {
		t.Errorf("it said %q and %q", o.stdout, o.stderr)
	}
}

func TestEventsThatAreNotWhatTheirTypeHasAreTold(t *testing.T) {
	t.Parallel()
	for _, e := range []string{ev("output.delta", `{"index":"x"}`), ev("output.failed", `{"code":1}`)} {
		if o := run(t, "job", "tail", "job_1", "--server", stream(t, e)).want(t, exitFailed); !strings.Contains(o.stderr, "read w") {
			t.Errorf("%s: %q", e, o.stderr)
		}
	}
}

func TestAnInterruptedCommandSaysSo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the server notices when the client leaves
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(srv.Close)
	for _, args := range [][]string{{"job", "get", "job_1"}, {"job", "submit", "-m", "sim", "hi"}, {"job", "submit", "-f", "-"}, {"job", "tail", "job_1"}} {
		var out, errs text
		code := Run(ctx, append(args, "--server", srv.URL), System{Stdin: strings.NewReader(jobLines(3)), Stdout: &out, Stderr: &errs})
		if code != exitFailed || !strings.Contains(errs.String(), "penstock: interrupted\n") {
			t.Errorf("%v: %d, %q", args, code, errs.String())
		}
	}
}

func TestJobsAreCancelled(t *testing.T) {
	t.Parallel()
	p := dev(t)
	const endless = "sim:tokens=100000,ttft=0s,gap=50ms"
	submit := func(model string, more ...string) string {
		return firstJob(t, p.on(t, append([]string{"job", "submit", "-m", model, "hello"}, more...)...).want(t, exitDone).stdout)
	}
	a, b, done := submit(endless), submit(endless), submit(quick, "--wait")
	o := p.on(t, "job", "cancel", a, b, done, "--wait").want(t, exitDone)
	for _, want := range []string{a + "\tcancelled\n", b + "\tcancelled\n", done + "\tcompleted\n"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("it does not say %q: %s", want, o.stdout)
		}
	}
	c := submit(endless)
	o = p.on(t, "job", "cancel", "nobody", c).want(t, exitFailed)
	if o.stdout != c+"\tcancelling\n" || !strings.Contains(o.stderr, "nobody") || !strings.Contains(o.stderr, "not_found") {
		t.Errorf("%q, %q", o.stdout, o.stderr)
	}
	if o := p.on(t, "job", "cancel", a, "-o", "jsonl").want(t, exitDone); !strings.Contains(o.stdout, `"status":"cancelled"`) {
		t.Errorf("%s", o.stdout)
	}
	p.on(t, "job", "get", c, "--wait", "30s").want(t, exitDone)
}

func TestAJobIsRetriedAsANewOne(t *testing.T) {
	t.Parallel()
	p := dev(t)
	o := p.on(t, "job", "submit", "-m", quick, "hello", "--wait").want(t, exitDone)
	id := firstJob(t, o.stdout)
	said := p.on(t, "job", "tail", id).want(t, exitDone).stdout
	env := call{stdin: "n\n", env: map[string]string{"PENSTOCK_SERVER": "http://" + p.addr}}
	if o := env.run(t, "job", "retry", id).want(t, exitUsage); !strings.Contains(o.stderr, "nothing was submitted") {
		t.Errorf("%s", o.stderr)
	}
	env.stdin = "yes\n"
	again := firstJob(t, env.run(t, "job", "retry", id).want(t, exitDone).stdout)
	if again == id {
		t.Fatal("it is the same job")
	}
	o = p.on(t, "job", "retry", id, "--yes", "--follow").want(t, exitDone)
	if o.stdout != said {
		t.Errorf("the retry says %q, the first %q", o.stdout, said)
	}
	if o := p.on(t, "job", "retry", id, "--yes", "-o", "jsonl").want(t, exitDone); !strings.Contains(o.stdout, `"status":"queued"`) {
		t.Errorf("%s", o.stdout)
	}
	if o := p.on(t, "job", "retry", "nobody", "--yes").want(t, exitFailed); !strings.Contains(o.stderr, "not_found") {
		t.Errorf("%s", o.stderr)
	}
}
