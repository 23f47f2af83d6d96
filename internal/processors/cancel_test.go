package processors

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/llm"
)

// scripted is a provider that does what a test says for each call of a job,
// counted from 1, and remembers when it was called.
type scripted struct {
	play func(ctx context.Context, job string, call int, yield func(llm.Chunk, error) bool)

	mu    sync.Mutex
	calls map[string][]time.Time
}

func (*scripted) Name() string { return "scripted" }

func (s *scripted) Stream(ctx context.Context, req llm.Request) seq {
	return func(yield func(llm.Chunk, error) bool) {
		s.mu.Lock()
		if s.calls == nil {
			s.calls = map[string][]time.Time{}
		}
		s.calls[req.Job] = append(s.calls[req.Job], time.Now())
		n := len(s.calls[req.Job])
		s.mu.Unlock()
		s.play(ctx, req.Job, n, yield)
	}
}

func (s *scripted) called(job string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[job]
}

// hangs waits for ctx, as a provider does that says nothing.
func hangs(ctx context.Context, yield func(llm.Chunk, error) bool) {
	<-ctx.Done()
	yield(llm.Chunk{}, ctx.Err())
}

// says writes some text and ends well.
func finishes(yield func(llm.Chunk, error) bool) {
	_ = yield(llm.Chunk{Content: "all is "}, nil) && yield(llm.Chunk{Content: "well", FinishReason: "stop"}, nil)
}

// cancel writes a cancel as any producer may, beside its job's request.
func (w *world) cancel(id string) {
	w.t.Helper()
	w.raw(event.Record{
		Topic: w.names.Control(), Partition: w.partitionOf(id), Key: []byte(id),
		Value: []byte(`{"job":"` + id + `"}`),
	})
}

// partitionOf is where a job lies whose key is its id, or whose id was minted.
func (w *world) partitionOf(id string) int32 {
	if m, ok := job.ParseID(id); ok {
		return m.Partition
	}
	return job.Partition(id, w.partitions)
}

const long = "sim:tokens=4000,ttft=0s,gap=50ms" // three minutes, which nobody waits for

func (w *world) cancelledFact(id string) {
	w.t.Helper()
	if f := w.facts(id)[id]; len(f) != 1 || f[0].Type != event.JobCancelled {
		w.t.Errorf("job %s: facts %v", id, f)
	}
}

func TestACancelBreaksOffWhatRuns(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		p := w.start("one", nil)
		id, other := w.request(event.Standard, long, ""), w.request(event.Standard, "sim:tokens=40,ttft=0s,gap=20ms", "")
		w.outputsUntil(func(o *told) bool { return o.NextSeq > 3 }, id, other)
		w.cancel(id)
		w.cancel(id)
		got := w.outputs(id, other)
		if o := got[id]; o.End != event.OutputCancelled || o.Text() == "" || o.Attempt != 1 {
			t.Errorf("%v %q", o.all, o.Text())
		}
		if got[other].End != event.OutputCompleted {
			t.Errorf("another job ended as %v", got[other].all)
		}
		w.cancelledFact(id)
		w.cancel(id) // after its end
		w.committed()
		p.end(t)
		if n := len(w.outputs(id)[id].seqs); n != len(got[id].seqs) {
			t.Errorf("%d events follow the end", n-len(got[id].seqs))
		}
	})
}

func TestACancelEndsWhatWaitsWithoutTheModel(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	let := make(chan struct{})
	s := &scripted{play: func(ctx context.Context, _ string, _ int, yield func(llm.Chunk, error) bool) {
		select {
		case <-let:
			finishes(yield)
		case <-ctx.Done():
			yield(llm.Chunk{}, ctx.Err())
		}
	}}
	w.extra = append(w.extra, s)
	w.start("one", func(c *Config) { c.Engine.MaxInFlight = 1 })
	const conversation = "conv-1"
	first := w.request(event.Standard, "scripted/m", conversation)
	behind := w.request(event.Standard, "scripted/m", conversation)
	last := w.request(event.Standard, "scripted/m", conversation)
	w.outputsUntil(func(o *told) bool { return o.NextSeq > 0 }, first) // it holds the only slot
	alone := w.request(event.Standard, "scripted/m", "")
	w.cancel(behind)
	w.cancel(alone)
	got := w.outputs(behind, alone)
	for id, o := range got {
		if o.End != event.OutputCancelled || len(o.all) != 1 || len(s.called(id)) != 0 {
			t.Errorf("job %s: %v, and the model was called %d times", id, o.all, len(s.called(id)))
		}
	}
	w.cancelledFact(behind)
	w.cancelledFact(alone)
	close(let)
	for id, o := range w.outputs(first, last) {
		if o.End != event.OutputCompleted {
			t.Errorf("job %s: %v", id, o.all)
		}
	}
	w.committed()
}

func TestACancelMayOvertakeItsJob(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		s := &scripted{play: func(_ context.Context, _ string, _ int, yield func(llm.Chunk, error) bool) { finishes(yield) }}
		w.extra = append(w.extra, s)
		w.cancel("mine")
		w.raw(event.Record{Topic: w.names.Control(), Partition: job.Partition("mine", w.partitions), Value: []byte("nonsense")})
		w.raw(event.Record{Topic: w.names.Control(), Partition: job.Partition("mine", w.partitions), Value: []byte(`{"job":"a b"}`)})
		w.raw(event.Record{Topic: w.names.Control(), Partition: job.Partition("mine", w.partitions), Value: []byte(`{"type":"job.unheard_of","job":"q"}`)})
		before := w.start("one", nil)
		w.write(event.Batch, "mine", "", `{"body":{"model":"scripted/m"}}`)
		w.write(event.Batch, "other", "", `{"body":{"model":"scripted/m"}}`)
		got := w.outputs("mine", "other")
		if got["mine"].End != event.OutputCancelled || len(s.called("mine")) != 0 || got["other"].End != event.OutputCompleted {
			t.Errorf("%v, %v", got["mine"].all, got["other"].all)
		}
		w.committed()
		before.end(t)
	})
}

// TestACancelThatNobodyReadsCountsForTheNextOwner kills an owner in the middle
// of an answer, and cancels the job while nobody owns it.
func TestACancelThatNobodyReadsCountsForTheNextOwner(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		l := newLink()
		w.behind(l).start("one", func(c *Config) {
			mortal(c)
			c.Grace, c.Engine.MaxInFlight = time.Millisecond, 3 // one is kept for interactive
		})
		said, deaf := w.request(event.Standard, long, ""), w.request(event.Standard, "deaf/"+long, "")
		w.outputsUntil(func(o *told) bool { return o.NextSeq > 3 }, said, deaf)
		waits := w.request(event.Standard, long, "")
		l.kill()
		for _, id := range []string{said, deaf, waits} {
			w.cancel(id)
		}
		w.start("two", nil)
		for id, o := range w.outputs(said, deaf, waits) {
			if o.End != event.OutputCancelled || o.Attempt != 1 {
				t.Errorf("job %s: attempt %d, %v", id, o.Attempt, o.all)
			}
			if (o.Text() != "") != (id != waits) {
				t.Errorf("job %s says %q", id, o.Text())
			}
			w.cancelledFact(id)
		}
		w.committed()
		w.start("three", nil) // which makes the others hand over
		after := w.request(event.Standard, quick, "")
		w.outputs(after)
		if o := w.outputs(said)[said]; o.all[len(o.all)-1] != event.OutputCancelled {
			t.Errorf("it went on: %v", o.all)
		}
	})
}

func TestTheFactOfACancelledJobHoldsWhatWasSaid(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	w.start("one", nil)
	id := w.request(event.Standard, long, "")
	w.outputsUntil(func(o *told) bool { return o.NextSeq > 3 }, id)
	w.cancel(id)
	text := w.outputs(id)[id].Text()
	w.facts(id)
	for _, rec := range w.records(w.names.Jobs(), w.partitionOf(id)) {
		v, err := event.ScanHead(rec.Value)
		if err != nil || v.Type != event.JobCancelled {
			continue
		}
		var fact event.Cancelled
		if err := event.DecodeData(v.Data, &fact); err != nil {
			t.Fatal(err)
		}
		if len(fact.Output) != 1 || fact.Output[0].Message.Content != text || !strings.HasPrefix(fact.Model, "sim:") {
			t.Errorf("%s, said %q", v.Data, text)
		}
		return
	}
	t.Error("there is no fact")
}
