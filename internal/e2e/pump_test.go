package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/event"
)

// pump submits jobs without pause, each under a key, and remembers what became
// of every one: nothing that was answered 202 may be lost.
type pump struct {
	t      *testing.T
	url    string
	model  string
	client *http.Client
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	accepted map[string]bool          // the ids of the jobs
	unclear  []string                 // the keys of those that were not answered 202
	answers  map[string]int           // by status and code
	slowest  map[string]time.Duration // the same
	last202  time.Time
}

// answered is the part of an answer that says what it is.
type answered struct {
	ID    string `json:"id"`
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

func startPump(t *testing.T, url, model string) *pump {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	p := &pump{
		t: t, url: url, model: model, stop: stop, client: &http.Client{Transport: &http.Transport{}},
		accepted: map[string]bool{}, answers: map[string]int{}, slowest: map[string]time.Duration{},
	}
	p.wg.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				p.wg.Go(func() { p.submit(ctx, fmt.Sprintf("%s-%d", t.Name(), n)) })
			}
		}
	})
	t.Cleanup(func() {
		stop()
		p.wg.Wait()
		p.client.CloseIdleConnections()
	})
	return p
}

// submit posts one job, and returns whether it was accepted. It does not end
// with the pump: its answer is what counts.
func (p *pump) submit(ctx context.Context, key string) bool {
	body := fmt.Sprintf(`{"body":{"model":%q,"stream":true,"messages":[{"role":"user","content":"tell me of rivers"}]}}`, p.model)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/v1/jobs", strings.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	began := time.Now()
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Errorf("a job was not answered at all: %v", err)
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	took := time.Since(began)
	var a answered
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil {
		p.t.Errorf("a job was answered %s %q: %v", resp.Status, text, err)
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	what := strings.TrimSpace(strconv.Itoa(resp.StatusCode) + " " + a.Error.Code)
	p.answers[what]++
	p.slowest[what] = max(p.slowest[what], took)
	if resp.StatusCode != http.StatusAccepted {
		if a.Error.Message == "" || resp.Header.Get("x-should-retry") != "true" {
			p.t.Errorf("a job was refused without a word or with the wrong one: %s %s", text, resp.Header.Get("x-should-retry"))
		}
		p.unclear = append(p.unclear, key)
		return false
	}
	p.accepted[a.ID], p.last202 = true, time.Now()
	return true
}

// since waits for a job that is accepted after a time.
func (p *pump) since(when time.Time) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		p.mu.Lock()
		ok := p.last202.After(when)
		p.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("no job was accepted in the minute since %s", when.Format(time.TimeOnly))
		}
		pause(p.t.Context(), 20*time.Millisecond)
	}
}

// end stops the pump, and sends everything that was not accepted once more, as
// a client would that has the key.
func (p *pump) end() {
	p.t.Helper()
	p.stop()
	p.wg.Wait()
	again := p.unclear
	p.unclear = nil
	for _, key := range again {
		if !p.submit(p.t.Context(), key) {
			p.t.Errorf("the job of key %s is not accepted when all is well again", key)
		}
	}
}

// told says how the answers went, and holds refusals to a bound.
func (p *pump) told(bound time.Duration) {
	p.t.Helper()
	for _, what := range slices.Sorted(maps.Keys(p.answers)) {
		p.t.Logf("%4d answers %-22s the slowest after %s", p.answers[what], what, p.slowest[what].Round(time.Millisecond))
		if p.slowest[what] > bound {
			p.t.Errorf("an answer %s took %s, and %s is the bound", what, p.slowest[what], bound)
		}
	}
}

// settled follows every accepted job to its end, by SSE, and holds its row to
// that. check looks at one that did not complete; nil wants all completed.
func (p *pump) settled(check func(w *watcher) bool) {
	p.t.Helper()
	ends := map[event.Type]int{}
	for id := range p.accepted {
		w := &watcher{t: p.t, url: p.url, job: id}
		w.finish(time.Minute)
		ends[w.End]++
		if w.End != event.OutputCompleted && (check == nil || !check(w)) {
			p.t.Errorf("job %s ended as %s: %+v", id, w.End, w.Failed)
		}
		row := jobOf(p.t, p.url, id, "30s")
		if !row.Status.Ended() || (w.End == event.OutputCompleted) != (row.Error == nil) {
			p.t.Errorf("job %s, which ended as %s, is %s: %+v", id, w.End, row.Status, row.Error)
		}
	}
	p.t.Logf("%d jobs were accepted: %v", len(p.accepted), ends)
}

// pause waits, or until the test ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// goroutines is how many a process has.
func (p *process) goroutines() int {
	p.t.Helper()
	_, text := get(p.t.Context(), p.url+"/metrics")
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return int(n)
		}
	}
	p.t.Fatal("the process does not say how many goroutines it has")
	return 0
}

// calm waits until a process has about as many goroutines as it had: an outage
// must leave none behind.
func (p *process) calm(before int) {
	p.t.Helper()
	const slack = 40 // connections that are kept, clients of fetches that wait
	now := 0
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); pause(p.t.Context(), 200*time.Millisecond) {
		if now = p.goroutines(); now <= before+slack {
			p.t.Logf("%d goroutines before, %d after", before, now)
			return
		}
	}
	p.t.Errorf("%d goroutines, where it had %d before the outage", now, before)
}

// says asks a URL and wants an answer of that status within a bound. On a machine
// that stands still for a moment one answer may be late, and not all of a few.
func (p *process) says(path string, want int, code string, within time.Duration) {
	p.t.Helper()
	const tries = 3
	for try := 1; ; try++ {
		began := time.Now()
		status, body := get(p.t.Context(), p.url+path)
		took := time.Since(began)
		p.t.Logf("GET %s: %d after %s", path, status, took.Round(time.Millisecond))
		switch {
		case status != want || !strings.Contains(body, code) || took > within && try == tries:
			p.t.Errorf("GET %s: %d %s after %s; want %d %s within %s", path, status, body, took, want, code, within)
			return
		case took <= within:
			return
		}
	}
}
