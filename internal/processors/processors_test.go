package processors

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/llm"
)

type seq = iter.Seq2[llm.Chunk, error]

const quick = "sim:tokens=5,ttft=0s,gap=0s"

// both runs a test on the embedded broker and on a real Kafka.
func both(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, onEmbedded(t))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		test(t, onKafka(t))
	})
}

func TestAJobIsRunAndToldAndCommitted(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		p := w.start("one", nil)
		var ids []string
		for _, lane := range event.Lanes() {
			for range 10 {
				ids = append(ids, w.request(lane, quick, ""))
			}
		}
		got := w.outputs(ids...)
		for id, o := range got {
			if o.End != event.OutputCompleted || o.all[0] != event.OutputStarted || o.Attempt != 1 {
				t.Errorf("job %s: %v", id, o.all)
			}
			if n := len(strings.Fields(o.Text())); n != 5 {
				t.Errorf("job %s says %d words, not 5: %q", id, n, o.Text())
			}
		}
		for id, f := range w.facts(ids...) {
			if len(f) != 1 || f[0].Type != event.JobCompleted {
				t.Errorf("job %s: facts %v", id, f)
			}
		}
		w.committed()
		p.end(t)
	})
}

func TestWhatCannotBeRunEndsInWordsAndBlocksNothing(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	w.start("one", nil)
	topic := w.names.Requests(event.Standard)
	for _, value := range []string{"", "nonsense", `{"job":"a/b","data":{"body":{"model":"sim"}}}`, `{"job":"x","data":{}}`, "\x00\xff"} {
		w.raw(event.Record{Topic: topic, Partition: 1, Value: []byte(value), Key: []byte("k")})
	}
	w.raw(event.Record{Topic: topic, Partition: 1, Value: []byte(`{"type":"job.unheard_of","v":1,"job":"q","data":{}}`)})
	w.raw(event.Record{Topic: topic, Partition: 1, Value: []byte(`{"job":"mine","data":{"body":{"model":"` + quick + `"}}}`)})
	unknown := w.request(event.Standard, "nobody-knows-it", "")
	w.write(event.Standard, "late", "", `{"deadline":"2020-01-01T00:00:00Z","body":{"model":"sim"}}`)
	refused := w.request(event.Standard, "sim:error=400", "")
	got := w.outputs("mine", unknown, "late", refused)
	if got["mine"].End != event.OutputCompleted {
		t.Errorf("a foreign producer's request behind poison ended as %v", got["mine"].all)
	}
	for id, code := range map[string]string{unknown: "model_not_found", "late": "deadline_exceeded"} {
		if got[id].End != event.OutputFailed || got[id].Failed.Code != code {
			t.Errorf("%s: %v, %+v; want it failed as %s", id, got[id].all, got[id].Failed, code)
		}
	}
	if got[refused].End != event.OutputFailed {
		t.Errorf("%v", got[refused].all)
	}
	w.committed()
	dead := w.records(w.names.Dead(), 0)
	if len(dead) != 5 {
		t.Fatalf("%d dead letters, want 5", len(dead))
	}
	if d, err := event.ParseDeadLetter(&dead[1]); err != nil || string(d.Value) != "nonsense" || d.Reason == "" || d.Partition != 1 || d.Stage != "processors" {
		t.Errorf("the second dead letter: %+v, %v", d, err)
	}
}

func TestAConversationRunsInOrderAndOthersPassIt(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	let := make(chan struct{})
	w.extra = append(w.extra, &scripted{play: func(ctx context.Context, _ string, _ int, yield func(llm.Chunk, error) bool) {
		select {
		case <-let:
			finishes(yield)
		case <-ctx.Done():
			yield(llm.Chunk{}, ctx.Err())
		}
	}})
	w.start("one", nil)
	slow := w.request(event.Interactive, "scripted/m", "conv-1")
	next := w.request(event.Interactive, quick, "conv-1")
	other := w.request(event.Interactive, quick, "")
	w.outputs(other) // does not wait for the slow conversation
	close(let)
	got := w.outputs(slow, next)
	if got[next].StartedAt.Before(got[slow].EndedAt) {
		t.Errorf("the conversation's second job began at %v, before the first ended at %v", got[next].StartedAt, got[slow].EndedAt)
	}
}

func TestTheSameJobTwiceRunsOnce(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	w.start("one", nil)
	data := `{"repeat":true,"body":{"model":"` + quick + `"}}`
	id := w.request(event.Standard, quick, "")
	w.write(event.Standard, id, "", data)
	w.outputs(id)
	w.facts(id)
	w.committed()
	w.write(event.Standard, id, "", data)
	after := w.request(event.Standard, quick, "")
	got := w.outputs(id, after)
	w.committed()
	if n := len(got[id].seqs); got[id].all[n-1] != event.OutputCompleted {
		t.Errorf("%v", got[id].all)
	}
	if f := w.facts(id, after); len(f[id]) != 1 {
		t.Errorf("the job has %d terminal facts", len(f[id]))
	}
}

func TestSIGTERMFinishesWhatIsInFlightAndHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	a := w.start("one", func(c *Config) { c.Grace = time.Minute })
	id := w.request(event.Standard, "sim:tokens=20,ttft=0s,gap=20ms", "")
	w.outputsUntil(func(o *told) bool { return o.NextSeq > 3 }, id)
	a.end(t)
	got := w.outputs(id)[id]
	if got.End != event.OutputCompleted || got.Attempt != 1 {
		t.Errorf("%v", got.all)
	}
	w.committed()
	begun := time.Now()
	w.start("two", nil)
	next := w.request(event.Standard, quick, "")
	w.outputs(next)
	t.Logf("the successor answered %v after its start", time.Since(begun))
}
