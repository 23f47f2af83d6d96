//go:build interop

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/testenv"
)

// everyone's request: the same model, seed and prompt, so the same words.
const (
	hi      = `{"model":"sim","messages":[{"role":"user","content":"hi"}]}`
	hiWords = 64
)

// entry is a job that came in by one of the ways.
type entry struct {
	way       string
	job       string
	partition int32
	told      string   // what its own client was told of the answer; "" where that hears nothing
	events    []string // the records as the first watcher saw them: all others must see the same
}

// TestInteropOneRequestEachWay sends one request by every way in, and watches
// each job by every way out: as it runs, afterwards, and after every process was
// killed.
func TestInteropOneRequestEachWay(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	outs := []out{
		{"SSE", d.seenByJob},
		{"SSE partition", d.seenByPartition},
		{"WS job", d.seenBySocket},
		{"WS partition", d.seenBySocketPartition},
		{"job tail", d.seenByTail},
		{"Python", d.seenByPython(testenv.Python(t, "confluent-kafka==2.16.1"))},
	}
	start := func() (gateway *process, all []*process) {
		gateway = d.start("ingest,gateway")
		return gateway, []*process{gateway, d.start("processors"), d.start("projections")}
	}
	gateway, all := start()
	live := d.watchPartitions(gateway)
	entries := d.enterEveryWay(gateway)
	for _, e := range entries {
		e.partition = jobOf(t, gateway.url, e.job, "60s").Request.Partition
		e.events = live.of(t, e)
		e.check(t)
		if first := entries[0].text(); e.text() != first {
			t.Errorf("by %s it said %q, by %s %q", e.way, e.text(), entries[0].way, first)
		}
	}
	rows := d.compare("afterwards", gateway, entries, outs)

	for _, p := range all {
		p.kill()
	}
	gateway, _ = start()
	again := d.compare("after kill -9 of every process", gateway, entries, outs)
	if diff := cmp.Diff(rows, again); diff != "" {
		t.Errorf("the rows are not what they were (-before +after):\n%s", diff)
	}
}

// check holds what the first watcher saw to what the job's own client was told,
// and to what a job's events are.
func (e *entry) check(t *testing.T) {
	t.Helper()
	var s job.Transcript
	for i, record := range e.events {
		v, err := event.ScanHead([]byte(record))
		if err != nil {
			t.Fatalf("%s: %v: %s", e.way, err, record)
		}
		if string(v.Job) != e.job || v.Attempt != 1 || v.Seq != int64(i) {
			t.Errorf("%s: event %d is %s of attempt %d, seq %d", e.way, i, v.Job, v.Attempt, v.Seq)
		}
		if err := s.Apply(&v); err != nil {
			t.Errorf("%s: %v", e.way, err)
		}
	}
	if s.End != event.OutputCompleted || len(strings.Fields(s.Text())) != hiWords {
		t.Errorf("%s: it ended as %q and said %q", e.way, s.End, s.Text())
	}
	if e.told != "" && e.told != s.Text() {
		t.Errorf("%s: its own client was told %q, the log says %q", e.way, e.told, s.Text())
	}
}

// out is a way to see a job's events: it returns the records as they came.
type out struct {
	name string
	see  func(gateway *process, e *entry) []string
}

// compare holds every job, by every way out, to what was seen of it as it ran;
// its resource and its row too. It prints what it compared, and returns the rows.
func (d *deployment) compare(when string, gateway *process, entries []*entry, outs []out) map[string]string {
	d.t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprint(w, "way in\tjob\tp\tevents")
	for _, o := range outs {
		_, _ = fmt.Fprint(w, "\t", o.name)
	}
	_, _ = fmt.Fprint(w, "\tresource\trow\n")
	rows := map[string]string{}
	for _, e := range entries {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d", e.way, e.job, e.partition, len(e.events))
		for _, o := range outs {
			_, _ = fmt.Fprint(w, "\t", d.same(e, o.name, e.events, o.see(gateway, e)))
		}
		said := []string{entries[0].text()}
		_, _ = fmt.Fprint(w, "\t", d.same(e, "resource", said, d.resource(gateway, e)))
		row, output := d.rowOf(e)
		_, _ = fmt.Fprint(w, "\t", d.same(e, "row", said, []string{output}), "\n")
		rows[e.way] = row
	}
	_ = w.Flush()
	d.t.Logf("%s, of %d jobs with %d words each:\n%s", when, len(entries), hiWords, text.String())
	return rows
}

// same says for the table whether two are, and fails the test where they are not.
func (d *deployment) same(e *entry, name string, want, got []string) string {
	d.t.Helper()
	if slices.Equal(want, got) {
		return fmt.Sprint("same ", len(got))
	}
	d.t.Errorf("%s by %s is not what was seen as it ran (-want +got):\n%s", e.way, name, cmp.Diff(want, got))
	return "OTHER"
}

// text is what the job says.
func (e *entry) text() string {
	var s job.Transcript
	for _, record := range e.events {
		if v, err := event.ScanHead([]byte(record)); err == nil {
			_ = s.Apply(&v) // check has told
		}
	}
	return s.Text()
}

// resource reads GET /v1/jobs/{id}, by the name that the OpenAI API gives it too.
func (d *deployment) resource(gateway *process, e *entry) []string {
	d.t.Helper()
	r := jobOf(d.t, gateway.url, e.job, "30s")
	if _, minted := job.ParseID(e.job); minted {
		if other := jobOf(d.t, gateway.url, job.ChatID(e.job), "30s"); !cmp.Equal(r, other) {
			d.t.Errorf("%s: %s", e.way, cmp.Diff(r, other))
		}
	}
	if r.ID != e.job || r.Status != job.Completed || r.Attempt != 1 || r.Model != "sim" || r.Request.Partition != e.partition || len(r.Output) != 1 {
		d.t.Errorf("%s as a resource: %+v", e.way, r)
		return nil
	}
	return []string{r.Output[0].Message.Content}
}
