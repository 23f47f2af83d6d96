package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

const (
	quick = "sim:tokens=8,ttft=0s,gap=0s"
	slow  = "sim:tokens=80,ttft=10ms,gap=50ms" // some four seconds
)

// TestEverythingIsKilledAndNothingIsLost is the skeleton's promise: a job's
// tokens over SSE, its row, and the same tokens again after every process was
// killed and started anew.
func TestEverythingIsKilledAndNothingIsLost(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	start := func() (gateway *process, all []*process) {
		gateway = d.start("ingest,gateway")
		return gateway, []*process{gateway, d.start("processors"), d.start("projections")}
	}
	gateway, all := start()
	before := &watcher{t: t, url: gateway.url, job: submit(t, gateway.url, quick).ID}
	before.finish(30 * time.Second)
	var watchers []*watcher
	for range 8 {
		w := &watcher{t: t, url: gateway.url, job: submit(t, gateway.url, slow).ID}
		watchers = append(watchers, w)
		if err := w.read(t.Context(), func(int) bool { return w.NextSeq > 5 }); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
	}
	for _, p := range all {
		p.kill()
	}
	gateway, all = start()
	for _, w := range append(watchers, before) {
		w.url = gateway.url
		w.finish(60 * time.Second)
		if w.End != event.OutputCompleted || w.Attempt != 1 {
			t.Errorf("job %s ended as %s in attempt %d", w.job, w.End, w.Attempt)
		}
	}
	for _, w := range append(watchers, before) {
		again := &watcher{t: t, url: gateway.url, job: w.job}
		again.finish(30 * time.Second)
		if diff := cmp.Diff(w.events(), again.events()); diff != "" {
			t.Errorf("job %s is not replayed as it was (-first +again):\n%s", w.job, diff)
		}
		row := jobOf(t, gateway.url, w.job, "30s")
		if row.Status != job.Completed || len(row.Output) != 1 || row.Output[0].Message.Content != w.Text() {
			t.Errorf("job %s as a resource: %+v", w.job, row)
		}
	}
	d.row(before.job)
	for _, p := range all {
		p.stop()
	}
}

// row waits for a job's row in PostgreSQL, asked for straight.
func (d *deployment) row(id string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	var url string
	for _, e := range d.env {
		if v, ok := strings.CutPrefix(e, "PENSTOCK_POSTGRES="); ok {
			url = v
		}
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for {
		var status string
		err := conn.QueryRow(ctx, "select status from penstock.jobs where id = $1", id).Scan(&status)
		if err == nil && status == string(job.Completed) {
			return
		}
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			d.t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			d.t.Fatalf("job %s has no row that says that it is completed, but %q", id, status)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestAClientCutOffAtRandomPlacesMissesNothing cuts clients dozens of times each
// while the processors are killed and rebalanced under them.
func TestAClientCutOffAtRandomPlacesMissesNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	gateway := d.start("ingest,gateway")
	first := d.start("processors")
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		cuts int
	)
	for i := range 6 {
		id := submit(t, gateway.url, "sim:tokens=150,ttft=10ms,gap=40ms").ID
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			w := &watcher{t: t, url: gateway.url, job: id}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			for {
				at := 1 + random.IntN(6)
				err := w.read(ctx, func(n int) bool { return n >= at })
				if err == nil {
					break
				}
				if ctx.Err() != nil {
					t.Errorf("job %s did not end: at seq %d: %v", id, w.NextSeq, err)
					return
				}
				mu.Lock()
				cuts++
				mu.Unlock()
			}
			if n := len(strings.Fields(w.Text())); w.End != event.OutputCompleted || n != 150 {
				t.Errorf("job %s ended as %s with %d words", id, w.End, n)
			}
		})
	}
	second := d.start("processors")
	first.kill()
	wg.Wait()
	t.Logf("cut off %d times", cuts)
	if cuts < 60 {
		t.Errorf("only %d cuts: the test does not do what it says", cuts)
	}
	second.stop()
}

// TestAnAcceptedJobIsNever404 asks for jobs that no projection knows of.
func TestAnAcceptedJobIsNever404(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	gateway := d.start("ingest,gateway")
	r := submit(t, gateway.url, quick)
	if got := jobOf(t, gateway.url, r.ID, ""); got.Status != job.Queued || got.Lane != event.Standard {
		t.Errorf("before it is run: %+v", got)
	}
	d.start("processors")
	if got := jobOf(t, gateway.url, r.ID, "30s"); got.Status != job.Completed || len(got.Output) != 1 {
		t.Errorf("after it was run: %+v", got)
	}
	status, body := get(t.Context(), gateway.url+"/v1/jobs/"+neverWas(r.ID))
	if status != http.StatusNotFound {
		t.Errorf("a job that never was: %d %s", status, body)
	}
	projections := d.start("projections")
	d.row(r.ID)
	projections.stop()
}

// neverWas is the id of a job that never was, but for its last letter that of one
// that was.
func neverWas(id string) string {
	all, last := id[:len(id)-1], id[len(id)-1:]
	if last == "z" {
		return all + "y"
	}
	return all + "z"
}

// TestDevOutlivesKill9 kills `penstock dev` in the middle of an answer.
func TestDevOutlivesKill9(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dev := func() *process { return spawn(t, "dev", nil, "dev", "--data", dir).ready() }
	p := dev()
	done := &watcher{t: t, url: p.url, job: submit(t, p.url, quick).ID}
	done.finish(time.Minute)
	w := &watcher{t: t, url: p.url, job: submit(t, p.url, slow).ID}
	if err := w.read(t.Context(), func(int) bool { return w.NextSeq > 5 }); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.kill()
	p = dev()
	w.url = p.url
	w.finish(time.Minute)
	if w.End != event.OutputCompleted {
		t.Errorf("ended as %s", w.End)
	}
	again := &watcher{t: t, url: p.url, job: done.job}
	again.finish(30 * time.Second)
	if !slices.Equal(done.events(), again.events()) {
		t.Errorf("job %s is not replayed as it was", done.job)
	}
	if got := jobOf(t, p.url, w.job, "30s"); got.Status != job.Completed {
		t.Errorf("%+v", got)
	}
	p.stop()
}
