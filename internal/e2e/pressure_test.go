package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// offered is the answer to a job that was offered.
type offered struct {
	status int
	header http.Header
	body   string
}

// offer posts a job with headers.
func offer(t *testing.T, url, body string, headers ...string) offered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/jobs", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return offered{resp.StatusCode, resp.Header, string(text)}
}

// loadOf is the load of a lane as a process tells it.
func loadOf(t *testing.T, url, lane string) (state string, outstanding int64) {
	t.Helper()
	status, body := get(t.Context(), url+"/v1/load")
	var rep struct {
		Lanes []struct {
			Lane        string `json:"lane"`
			State       string `json:"state"`
			Outstanding int64  `json:"outstanding"`
		} `json:"lanes"`
	}
	if err := json.Unmarshal([]byte(body), &rep); err != nil || status != http.StatusOK {
		t.Fatalf("GET /v1/load: %d %s: %v", status, body, err)
	}
	for _, l := range rep.Lanes {
		if l.Lane == lane {
			return l.State, l.Outstanding
		}
	}
	t.Fatalf("there is no lane %s in %s", lane, body)
	return "", 0
}

// TestWithoutProcessorsLanesFillThenShedThenRecover: what is let in is bounded
// though nobody works, is said with 429 and Retry-After, and is let in again
// without a restart once it is worked off. Nothing that was let in is lost.
func TestWithoutProcessorsLanesFillThenShedThenRecover(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	front := spawn(t, "front", append(d.env, "PENSTOCK_MAX_OUTSTANDING=standard=10;batch=10"),
		"run", "--roles", "ingest,gateway,projections").ready()
	const body = `{"body":{"model":"sim:tokens=2,ttft=0s,gap=0s","messages":[]}}`

	waitUntil(t, "the load is seen", func() bool {
		_, rep := get(t.Context(), front.url+"/v1/load")
		return strings.Contains(rep, `"signal":"fresh"`)
	})
	first := offer(t, front.url, body, "Idempotency-Key", "first")
	if first.status != http.StatusAccepted {
		t.Fatalf("a fresh deployment answers %d: %s", first.status, first.body)
	}
	taken := []string{firstID(t, first.body)}
	refused := 0
	for n := 0; refused < 20; n++ {
		a := offer(t, front.url, body)
		switch a.status {
		case http.StatusAccepted:
			taken = append(taken, firstID(t, a.body))
		case http.StatusTooManyRequests:
			refused++
			after, err := strconv.Atoi(a.header.Get("Retry-After"))
			if err != nil || after < 1 || after > 60 || a.header.Get("X-Should-Retry") != "true" ||
				!strings.Contains(a.body, `"code":"overloaded"`) || !strings.Contains(a.body, "no processor works on it") {
				t.Fatalf("%v %s", a.header, a.body)
			}
		default:
			t.Fatalf("%d: %s", a.status, a.body)
		}
		if n > 500 {
			t.Fatal("it takes in whatever comes")
		}
	}
	if len(taken) > 4*8 { // four partitions, of 0.8 of ten each
		t.Errorf("%d were let in", len(taken))
	}
	waitUntil(t, "all that was let in is outstanding", func() bool {
		state, outstanding := loadOf(t, front.url, "standard")
		return state == "shedding" && outstanding == int64(len(taken))
	})
	if again := offer(t, front.url, body, "Idempotency-Key", "first"); again.status != http.StatusAccepted || again.body != first.body {
		t.Errorf("a repeat of what was let in: %d: %s", again.status, again.body)
	}
	if a := offer(t, front.url, strings.Replace(body, `{"body"`, `{"lane":"interactive","body"`, 1)); a.status != http.StatusAccepted {
		t.Errorf("another lane: %d: %s", a.status, a.body)
	}

	// More than there is room for, while processors come: each waits its turn.
	path := filepath.Join(t.TempDir(), "jobs.jsonl")
	lines := strings.Repeat(`{"lane":"batch","body":{"model":"sim:tokens=2,ttft=0s,gap=0s","messages":[]}}`+"\n", 150)
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	submit := exec.CommandContext(t.Context(), program, "job", "submit", "--server", front.url, "-f", path, "-o", "jsonl")
	var out, errs bytes.Buffer
	submit.Stdout, submit.Stderr = &out, &errs
	if err := submit.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "batch sheds", func() bool { state, _ := loadOf(t, front.url, "batch"); return state == "shedding" })
	d.start("processors")
	if err := submit.Wait(); err != nil || strings.Count(out.String(), `"status":"queued"`) != 150 || !strings.Contains(errs.String(), "a lane is full") {
		t.Errorf("job submit: %v, %d of 150 lines\n%s", err, strings.Count(out.String(), `"status":"queued"`), errs.String())
	}
	for _, id := range taken {
		if r := jobOf(t, front.url, id, "60s"); r.Status != "completed" {
			t.Errorf("%s was let in and is %s", id, r.Status)
		}
	}
	waitUntil(t, "it opens again", func() bool {
		state, outstanding := loadOf(t, front.url, "standard")
		return state == "open" && outstanding == 0
	})
	if a := offer(t, front.url, body); a.status != http.StatusAccepted {
		t.Errorf("once it is worked off: %d: %s", a.status, a.body)
	}
	soon := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	if a := offer(t, front.url, strings.Replace(body, `{"body"`, fmt.Sprintf(`{"deadline":%q,"body"`, soon), 1)); a.status != http.StatusAccepted {
		t.Errorf("with a deadline that can be met: %d: %s", a.status, a.body)
	}
}

// firstID is the id of a receipt.
func firstID(t *testing.T, receipt string) string {
	t.Helper()
	var r struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(receipt), &r); err != nil || r.ID == "" {
		t.Fatalf("%s is no receipt: %v", receipt, err)
	}
	return r.ID
}

// waitUntil asks again until it is so.
func waitUntil(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("a minute later it is still not so that %s", what)
		}
		<-time.After(50 * time.Millisecond)
	}
}
