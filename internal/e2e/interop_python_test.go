//go:build interop

package e2e

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
)

// TestInteropPythonConsumer holds the sample of the docs to what SSE shows of
// the same jobs, where owners were frozen, thawed (so that they write what no
// longer counts) and killed in the middle of their answers.
func TestInteropPythonConsumer(t *testing.T) {
	t.Parallel()
	python := testenv.Python(t, "confluent-kafka==2.16.1")
	d := deploy(t)
	gateway := d.start("ingest,gateway")
	read := func(id string) string {
		out, err := try(t.Context(), "", python, "../../docs/examples/read_tokens.py", "--events", d.setting("KAFKA"), id, d.setting("PREFIX")+"tokens")
		if err != nil {
			t.Error(err)
		}
		return out
	}
	var watchers []*watcher
	live := map[string]chan string{}
	const rounds = 4 // one takeover with a zombie is wanted; a thawed owner may be too slow to write
	for zombies, round := 0, 0; zombies == 0; round++ {
		if round == rounds {
			t.Fatalf("no owner wrote anything after it was thawed, in %d rounds", rounds)
		}
		begun := d.takeover(gateway)
		for _, w := range begun {
			said := make(chan string, 1)
			live[w.job] = said
			go func() { said <- read(w.job) }()
		}
		for _, w := range begun {
			w.finish(2 * time.Minute)
		}
		watchers = append(watchers, begun...)
		zombies = d.fenced()
		t.Logf("round %d: %d outputs in the log do not count", round, zombies)
	}
	for _, w := range watchers {
		var want []string
		for _, m := range w.got {
			want = append(want, m.data)
		}
		for when, got := range map[string]string{"as it ran": <-live[w.job], "afterwards": read(w.job)} {
			if diff := cmp.Diff(want, strings.Split(strings.TrimSuffix(got, "\n"), "\n")); diff != "" {
				t.Errorf("job %s, read %s, is not what SSE shows (-SSE +sample):\n%s", w.job, when, diff)
			}
		}
		if w.End != event.OutputCompleted || len(strings.Fields(w.Text())) != 200 {
			t.Errorf("job %s ended as %q with %d words", w.job, w.End, len(strings.Fields(w.Text())))
		}
	}
}

// takeover runs jobs on an owner that is frozen in the middle and thawed when
// its successor goes on; the successor is killed in the middle too.
func (d *deployment) takeover(gateway *process) []*watcher {
	d.t.Helper()
	frozen := d.start("processors")
	var watchers []*watcher
	for range 8 {
		w := &watcher{t: d.t, url: gateway.url, job: submit(d.t, gateway.url, "sim:tokens=200,ttft=10ms,gap=60ms").ID}
		watchers = append(watchers, w)
		d.until(w, w.NextSeq+5)
	}
	d.signal(frozen, syscall.SIGSTOP)
	was := make([]int64, len(watchers))
	for i, w := range watchers {
		was[i] = w.NextSeq
	}
	second := d.start("processors")
	for i, w := range watchers {
		d.until(w, was[i]+40) // more than could be on its way when the owner was frozen
	}
	d.signal(frozen, syscall.SIGCONT)
	for _, w := range watchers {
		d.until(w, w.NextSeq+5)
	}
	d.late(watchers)
	second.kill()
	return watchers
}

// late writes what the first owner might have on its way for that long: events
// further on in its jobs than its successors are. Without a fence they count.
func (d *deployment) late(watchers []*watcher) {
	d.t.Helper()
	c := d.cluster()
	defer c.Close()
	p, err := c.NewProducer(kafka.ProducerConfig{})
	if err != nil {
		d.t.Fatal(err)
	}
	defer p.Close()
	for _, w := range watchers {
		v, err := event.ScanHead([]byte(w.got[0].data))
		if err != nil {
			d.t.Fatal(err)
		}
		id, ok := job.ParseID(w.job)
		if !ok {
			d.t.Fatalf("%s is not an id", w.job)
		}
		h := v.Head()
		h.Type, h.Seq = event.OutputDelta, 190
		_, err = p.Append(d.t.Context(), event.Record{
			Topic: d.setting("PREFIX") + "tokens", Partition: id.Partition, Key: []byte(w.job),
			Value: event.Append(nil, &h, []byte(`{"index":0,"content":" too late"}`)),
		})
		if err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *deployment) cluster() *kafka.Cluster {
	d.t.Helper()
	c, err := kafka.Open(d.t.Context(), kafka.Config{Brokers: []string{d.setting("KAFKA")}})
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// until reads a job's events up to a seq, or its end.
func (d *deployment) until(w *watcher, seq int64) {
	d.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for w.NextSeq < seq && w.End == "" {
		err := w.read(d.t.Context(), func(int) bool { return w.NextSeq >= seq })
		if err != nil && !errors.Is(err, errCut) && time.Now().After(deadline) {
			d.t.Fatalf("job %s at seq %d: %v", w.job, w.NextSeq, err)
		}
	}
}

func (d *deployment) signal(p *process, sig syscall.Signal) {
	d.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
}

// fenced counts the outputs in the log that the fence drops, but for those of late.
func (d *deployment) fenced() (n int) {
	d.t.Helper()
	ctx := d.t.Context()
	c := d.cluster()
	defer c.Close()
	topic := d.setting("PREFIX") + "tokens"
	ends, err := c.Offsets(ctx, topic, kafka.End())
	if err != nil {
		d.t.Fatal(err)
	}
	for p, end := range ends {
		var f fence.Filter
		for recs, err := range c.Scan(ctx, kafka.TopicPartition{Topic: topic, Partition: p}, 0, end) {
			if err != nil {
				d.t.Fatal(err)
			}
			for i := range recs {
				v, err := event.ScanHead(recs[i].Value)
				if err != nil {
					d.t.Fatal(err)
				}
				if !f.Admit(&v) && v.Type.Output() && !bytes.Contains(v.Data, []byte("too late")) {
					n++
				}
			}
		}
	}
	return n
}
