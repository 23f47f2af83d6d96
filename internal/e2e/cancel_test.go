package e2e

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// endless lasts longer than any test.
const endless = "sim:tokens=100000,ttft=0s,gap=50ms"

// cancelJob asks for a job to be stopped, and returns the answer's status.
func cancelJob(t *testing.T, url, id string) (int, *job.Resource) {
	t.Helper()
	resp, err := http.Post(url+"/v1/jobs/"+id+"/cancel", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var r job.Resource
	if resp.StatusCode < http.StatusBadRequest {
		if err := json.Unmarshal(body, &r); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode, &r
}

// cancelled wants a job's stream and resource to say that it was cancelled.
func cancelled(t *testing.T, w *watcher) {
	t.Helper()
	w.finish(60 * time.Second)
	if w.End != event.OutputCancelled || w.Attempt > 1 {
		t.Errorf("job %s ended as %s in attempt %d", w.job, w.End, w.Attempt)
	}
	r := jobOf(t, w.url, w.job, "30s")
	said := ""
	if len(r.Output) > 0 {
		said = r.Output[0].Message.Content
	}
	if r.Status != job.Cancelled || said != w.Text() {
		t.Errorf("job %s is %s and said %q, and its stream %q", w.job, r.Status, said, w.Text())
	}
}

// TestACancelledJobStaysCancelled cancels jobs over HTTP, kills the processor
// between the cancel and the end, and starts another.
func TestACancelledJobStaysCancelled(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	gateway := d.start("ingest,gateway,projections")
	first := d.start("processors")
	watch := func() *watcher {
		w := &watcher{t: t, url: gateway.url, job: submit(t, gateway.url, endless).ID}
		if err := w.read(t.Context(), func(int) bool { return w.NextSeq > 3 }); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		return w
	}
	calm, killed := watch(), watch()
	if status, r := cancelJob(t, gateway.url, calm.job); status != http.StatusAccepted || r.ID != calm.job || r.Status.Ended() {
		t.Fatalf("%d %+v", status, r)
	}
	cancelled(t, calm)
	if status, r := cancelJob(t, gateway.url, calm.job); status != http.StatusOK || r.Status != job.Cancelled {
		t.Errorf("once more: %d %+v", status, r)
	}
	if status, r := cancelJob(t, gateway.url, neverWas(calm.job)); status != http.StatusNotFound {
		t.Errorf("a job that never was, but %s: %d %+v", calm.job, status, r)
	}

	if status, _ := cancelJob(t, gateway.url, killed.job); status != http.StatusAccepted {
		t.Fatal(status)
	}
	first.kill()
	second := d.start("processors")
	cancelled(t, killed)

	// Nobody owns the lanes when these are cancelled: one runs, one waits.
	runs := watch()
	second.kill()
	waits := &watcher{t: t, url: gateway.url, job: submit(t, gateway.url, endless).ID}
	for _, w := range []*watcher{runs, waits} {
		if status, _ := cancelJob(t, gateway.url, w.job); status != http.StatusAccepted {
			t.Fatal(status)
		}
	}
	d.start("processors")
	cancelled(t, runs)
	cancelled(t, waits)
	if runs.Text() == "" || waits.Text() != "" {
		t.Errorf("the one that ran said %q, the one that waited %q", runs.Text(), waits.Text())
	}
}
