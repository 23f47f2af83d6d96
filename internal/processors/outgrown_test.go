package processors

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/topics"
)

// scan reads what stands of a lane on a partition, but for claims.
func (w *world) scan(topic string, lane event.Lane, partition int32) (found []event.Record) {
	w.t.Helper()
	for _, rec := range w.records(topic, partition) {
		if v, err := event.ScanHead(rec.Value); err == nil && v.Lane == lane && v.Type != event.LaneClaimed {
			found = append(found, rec)
		}
	}
	return found
}

// TestNoKeyOrHeaderOfARequestStopsItsPartition: a request may be four times as
// large as an output, and most of it may be key or header.
func TestNoKeyOrHeaderOfARequestStopsItsPartition(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		const partition = 1
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		noise := bytes.Repeat([]byte("k"), 1100<<10)
		keys := map[string][]byte{"none": nil, "another": []byte("theirs"), "large": noise, "traced": nil, "large-header": nil, "talk": []byte("c-1")}
		headers := map[string][]byte{"traced": []byte(trace), "large-header": noise}
		w.start("one", nil)
		large, err := w.cluster.NewProducer(kafka.ProducerConfig{MaxRecordBytes: topics.DefaultMaxRequestBytes})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(large.Close)
		var ids []string
		for id, key := range keys {
			rec := event.Record{
				Topic: w.names.Requests(event.Standard), Partition: partition, Key: key,
				Value: fmt.Appendf(nil, `{"job":%q,"data":{"body":{"model":%q}}}`, id, quick),
			}
			if id == "talk" {
				rec.Value = fmt.Appendf(nil, `{"job":%q,"conversation":"c-1","data":{"body":{"model":%q}}}`, id, quick)
			}
			if h, ok := headers[id]; ok {
				rec.Headers = []event.Header{{Key: "traceparent", Value: h}}
			}
			if _, err := large.Append(t.Context(), rec); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		for id, o := range w.outputs(ids...) {
			if o.End != event.OutputCompleted {
				t.Errorf("%s ended as %v", id, o.all)
			}
		}
		w.facts(ids...)
		w.committed()
		outputs := w.scan(w.names.Tokens(), event.Standard, partition)
		facts := w.scan(w.names.Jobs(), event.Standard, partition)
		for _, rec := range append(outputs, facts...) {
			v, err := event.ScanHead(rec.Value)
			if err != nil {
				t.Fatal(err)
			}
			want := string(v.Job)
			if want == "talk" {
				want = "c-1"
			}
			if string(rec.Key) != want {
				t.Errorf("%s of %s has the key %.40q", v.Type, v.Job, rec.Key)
			}
			if h := string(rec.Header("traceparent")); h != "" && (h != trace || string(v.Job) != "traced") {
				t.Errorf("%s of %s has the traceparent %.80q", v.Type, v.Job, h)
			}
			if edge := v.Type == event.OutputStarted || v.Type.Terminal(); edge && string(v.Job) == "traced" && rec.Header("traceparent") == nil {
				t.Errorf("%s of %s has no traceparent", v.Type, v.Job)
			}
		}
	})
}

// TestAnEventThatIsLargerThanTheLogTakesEndsItsJobAlone lets the log take less
// than what the bounds are made for, so that events get there that none should.
func TestAnEventThatIsLargerThanTheLogTakesEndsItsJobAlone(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		s := &scripted{play: func(_ context.Context, job string, _ int, say func(llm.Chunk, error) bool) {
			text := "a word"
			if job != "good" {
				text = strings.Repeat("0123456789", 12<<10)
			}
			_ = say(llm.Chunk{Content: text}, nil) && say(llm.Chunk{FinishReason: "stop"}, nil)
		}}
		w.extra = append(w.extra, s)
		w.start("one", func(c *Config) { c.MaxTokenBytes, c.MaxJobBytes = 100<<10, 8<<20 })
		const partition = 2
		for _, request := range []string{
			`{"job":"watched","data":{"body":{"model":"scripted/m"}}}`,
			`{"job":"unwatched","data":{"stream":false,"body":{"model":"scripted/m"}}}`,
			`{"job":"good","data":{"body":{"model":"scripted/m"}}}`,
		} {
			w.raw(event.Record{Topic: w.names.Requests(event.Batch), Partition: partition, Value: []byte(request)})
		}
		got, facts := w.outputs("watched", "unwatched", "good"), w.facts("watched", "unwatched", "good")
		for id, o := range got {
			end, fact := event.OutputFailed, event.JobFailed
			if id == "good" {
				end, fact = event.OutputCompleted, event.JobCompleted
			}
			if o.End != end || len(facts[id]) != 1 || facts[id][0].Type != fact || len(s.called(id)) != 1 {
				t.Errorf("%s: %v, facts %v, %d calls", id, o.all, facts[id], len(s.called(id)))
			}
			if id != "good" && (o.Failed.Code != "internal_error" || o.Failed.Retryable || !strings.Contains(o.Failed.Message, "102400 bytes")) {
				t.Errorf("%s: %+v", id, o.Failed)
			}
		}
		w.committed()
	})
}

// TestAFactThatIsLargerThanItsTopicTakesIsWrittenWithoutWhatWasSaid has a
// provider call the last of 128 tools in each of 128 choices, which takes little
// in deltas and much in a whole answer.
func TestAFactThatIsLargerThanItsTopicTakesIsWrittenWithoutWhatWasSaid(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		said := make(chan struct{})
		s := &scripted{play: func(ctx context.Context, job string, _ int, say func(llm.Chunk, error) bool) {
			for i := 0; job != "good" && i < 128; i++ {
				say(llm.Chunk{Index: i, ToolCalls: []byte(`[{"index":127,"function":{"arguments":"x"}}]`)}, nil)
			}
			if job == "stopped" {
				close(said)
				<-ctx.Done()
				say(llm.Chunk{}, ctx.Err())
				return
			}
			say(llm.Chunk{FinishReason: "stop"}, nil)
		}}
		w.extra = append(w.extra, s)
		w.start("one", func(c *Config) { c.MaxJobBytes = 200 << 10 })
		const partition = 2
		for _, id := range []string{"whole", "stopped", "good"} {
			w.raw(event.Record{
				Topic: w.names.Requests(event.Batch), Partition: partition,
				Value: fmt.Appendf(nil, `{"job":%q,"data":{"body":{"model":"scripted/m"}}}`, id),
			})
		}
		<-said
		w.raw(event.Record{Topic: w.names.Control(), Partition: partition, Value: []byte(`{"job":"stopped"}`)})
		got, facts := w.outputs("whole", "stopped", "good"), w.facts("whole", "stopped", "good")
		for id, want := range map[string]struct {
			end, fact event.Type
			data      string
		}{
			"whole":   {event.OutputCompleted, event.JobFailed, `{"code":"internal_error","message":"the job ended as job.completed, but what is to be kept of it takes `},
			"stopped": {event.OutputCancelled, event.JobCancelled, `{}`},
			"good":    {event.OutputCompleted, event.JobCompleted, `{"model":"m","output":[`},
		} {
			f := facts[id]
			if got[id].End != want.end || len(f) != 1 || f[0].Type != want.fact || !strings.HasPrefix(f[0].data, want.data) {
				t.Errorf("%s: %s, facts %v", id, got[id].End, f)
			}
		}
		w.committed()
		recs := w.scan(w.names.Jobs(), event.Batch, partition)
		for _, rec := range recs {
			v, err := event.ScanHead(rec.Value)
			if err != nil {
				t.Fatal(err)
			}
			if h := v.Head(); string(rec.Header("ce_id")) != event.FactID(&h) || string(rec.Header("ce_type")) != "io.penstock."+string(v.Type) {
				t.Errorf("%s of %s has the headers %q", v.Type, v.Job, rec.Headers)
			}
		}
	})
}
