//go:build interop

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// foreign is a job that another program wrote to a request topic, and where.
type foreign struct {
	id        string
	partition int32
}

// setting reads one of the deployment's settings.
func (d *deployment) setting(name string) string {
	d.t.Helper()
	for _, e := range d.env {
		if v, ok := strings.CutPrefix(e, "PENSTOCK_"+name+"="); ok {
			return v
		}
	}
	d.t.Fatalf("the deployment has no setting %s", name)
	return ""
}

// follow watches foreign jobs before they have rows, by the partition that the
// reader names, and once more by their ids alone when they have.
func (d *deployment) follow(gateway *process, jobs []foreign) {
	d.t.Helper()
	first := map[string]*watcher{}
	for _, f := range jobs {
		w := &watcher{t: d.t, url: gateway.url, job: f.id, ask: fmt.Sprintf("?partition=%d", f.partition)}
		w.finish(60 * time.Second)
		if w.End != event.OutputCompleted || w.Text() == "" {
			d.t.Errorf("job %s ended as %q with the text %q", f.id, w.End, w.Text())
		}
		first[f.id] = w
	}
	projections := d.start("projections")
	for _, f := range jobs {
		d.row(f.id)
		again := &watcher{t: d.t, url: gateway.url, job: f.id}
		again.finish(30 * time.Second)
		if diff := cmp.Diff(first[f.id].events(), again.events()); diff != "" {
			d.t.Errorf("job %s is not replayed as it was (-first +again):\n%s", f.id, diff)
		}
		row := jobOf(d.t, gateway.url, f.id, "")
		if row.Status != job.Completed || row.Request == nil || row.Request.Partition != f.partition ||
			len(row.Output) != 1 || row.Output[0].Message.Content != again.Text() {
			d.t.Errorf("job %s as a resource: %+v", f.id, row)
		}
	}
	projections.stop()
}

// output runs a program of somebody else's to its end and returns what it printed.
func output(t *testing.T, stdin string, argv ...string) string {
	t.Helper()
	out, err := try(t.Context(), stdin, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(ctx context.Context, stdin string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", strings.Join(argv, " "), err, out, errs.String())
	}
	return string(out), err
}

// elsewhere tells how many of the jobs lie elsewhere than murmur2 of their ids says.
func elsewhere(jobs []foreign, partitions int32) (n int) {
	for _, f := range jobs {
		if f.partition != job.Partition(f.id, partitions) {
			n++
		}
	}
	return n
}
