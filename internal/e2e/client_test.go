package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// submit posts a job and returns its receipt.
func submit(t *testing.T, url, model string) *job.Resource {
	t.Helper()
	body := fmt.Sprintf(`{"body":{"model":%q,"messages":[{"role":"user","content":"tell me of rivers"}]}}`, model)
	resp, err := http.Post(url+"/v1/jobs", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("a job was answered %s: %s", resp.Status, text)
	}
	var r job.Resource
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// jobOf asks for a job, waiting for its end where wait says so.
func jobOf(t *testing.T, url, id, wait string) *job.Resource {
	t.Helper()
	if wait != "" {
		wait = "?wait=" + wait
	}
	status, body := get(t.Context(), url+"/v1/jobs/"+id+wait)
	if status != http.StatusOK {
		t.Fatalf("job %s: %d %s", id, status, body)
	}
	var r job.Resource
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// message is one event of a stream, as it came.
type message struct{ id, data string }

// watcher reads a job's events over SSE, and takes the stream up again by the
// last id that it saw.
type watcher struct {
	t    *testing.T
	url  string // of the server; it may change between two reads
	job  string
	ask  string              // the query, such as "?partition=3"
	last string              // Last-Event-ID
	wait time.Duration       // before it comes back, as the stream said last
	late func(time.Duration) // nil, or told of each event how old it was when it came
	got  []message
	job.Transcript
}

// errCut is why a read ended that was to end early.
var errCut = errors.New("cut")

// read reads until the stream ends, or stop says so of a message; it returns
// nil when the job has ended.
func (w *watcher) read(ctx context.Context, stop func(n int) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/v1/jobs/"+w.job+"/events"+w.ask, nil)
	if err != nil {
		return err
	}
	if w.last != "" {
		req.Header.Set("Last-Event-ID", w.last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNoContent:
		return nil
	case resp.StatusCode != http.StatusOK:
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("the events of %s: %s: %s", w.job, resp.Status, text)
	}
	lines := bufio.NewReader(resp.Body)
	var m message
	for n := 0; ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			if w.End != "" && errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "retry: "):
			ms, err := strconv.Atoi(line[len("retry: "):])
			if err != nil {
				return fmt.Errorf("the events of %s: %w", w.job, err)
			}
			w.wait = time.Duration(ms) * time.Millisecond
		case strings.HasPrefix(line, "id: "):
			m.id = line[4:]
		case strings.HasPrefix(line, "data: "):
			m.data = line[6:]
		case line == "" && m.data != "":
			w.take(m)
			m = message{}
			n++
			if stop != nil && stop(n) {
				return errCut
			}
		}
	}
}

// take checks that a message is the next of its job.
func (w *watcher) take(m message) {
	v, err := event.ScanHead([]byte(m.data))
	if err != nil {
		w.t.Errorf("not an event: %v: %s", err, m.data)
		return
	}
	if string(v.Job) != w.job || v.Seq != w.NextSeq {
		w.t.Errorf("job %s: %s with seq %d of %s came, where seq %d was next", w.job, v.Type, v.Seq, v.Job, w.NextSeq)
	}
	if w.late != nil {
		w.late(time.Since(v.Head().Time))
	}
	if m.id == "" {
		w.t.Errorf("job %s: seq %d has no id", w.job, v.Seq)
	}
	w.got, w.last = append(w.got, m), m.id
	if err := w.Apply(&v); err != nil {
		w.t.Error(err)
	}
}

// events are the records as they came. Their cursors are left out: what a cursor
// knows of the fence depends on where its reader began.
func (w *watcher) events() []string {
	all := make([]string, len(w.got))
	for i, m := range w.got {
		all[i] = m.data
	}
	return all
}

// finish reads to the job's end, however often it is cut off on the way.
func (w *watcher) finish(within time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), within)
	defer cancel()
	for {
		err := w.read(ctx, nil)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("job %s did not end within %s: at seq %d: %v", w.job, within, w.NextSeq, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
