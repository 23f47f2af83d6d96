package processors

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/llm"
)

// unwatched writes a request of which only the end is to be written.
func (w *world) unwatched(lane event.Lane, id, model string) {
	w.t.Helper()
	w.write(lane, id, "", `{"stream":false,"body":{"model":"`+model+`","messages":[{"role":"user","content":"tell me of rivers"}]}}`)
}

func TestOfAnUnwatchedJobOnlyTheEndIsWrittenAndItSaysAll(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		w.start("one", nil)
		const model = "sim:tokens=40,ttft=1ms,gap=1ms"
		w.unwatched(event.Batch, "alone", model)
		watched := w.request(event.Batch, model, "")
		got := w.outputs("alone", watched)
		o := got["alone"]
		if diff := cmp.Diff([]event.Type{event.OutputCompleted}, o.all); diff != "" || o.seqs[0] != 0 || o.Attempt != 1 {
			t.Errorf("its events (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(got[watched].Output(), o.Output()); diff != "" || o.Text() == "" {
			t.Errorf("it does not say what the watched one says (-watched +it):\n%s", diff)
		}
		facts := w.facts("alone", watched)
		if f := facts["alone"]; len(f) != 1 || f[0].Type != event.JobCompleted {
			t.Fatalf("facts %v", f)
		}
		if diff := cmp.Diff(facts[watched][0].data, facts["alone"][0].data); diff != "" {
			t.Errorf("the fact is another than the watched one's (-watched +it):\n%s", diff)
		}
		w.committed()
	})
}

func TestAnUnwatchedJobThatSaysTooMuchForOneRecordIsWrittenAsItComes(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	big := strings.Repeat("0123456789", 20<<10) // of which three do not fit
	s := &scripted{play: func(_ context.Context, _ string, _ int, say func(llm.Chunk, error) bool) {
		for range 3 {
			say(llm.Chunk{Content: big}, nil)
		}
		say(llm.Chunk{Content: "the end", FinishReason: "stop"}, nil)
	}}
	w.extra = append(w.extra, s)
	w.start("one", nil)
	w.unwatched(event.Standard, "much", "scripted/m")
	o := w.outputs("much")["much"]
	if o.Text() != strings.Repeat(big, 3)+"the end" {
		t.Errorf("it says %d bytes", len(o.Text()))
	}
	if o.all[0] != event.OutputStarted || o.all[1] != event.OutputDelta || o.End != event.OutputCompleted {
		t.Errorf("%v", o.all)
	}
}

func TestAnUnwatchedJobThatIsCancelledSaysWhatItHadSaid(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	said := make(chan struct{})
	s := &scripted{play: func(ctx context.Context, _ string, _ int, say func(llm.Chunk, error) bool) {
		say(llm.Chunk{Content: "half of"}, nil)
		close(said)
		<-ctx.Done()
		say(llm.Chunk{}, ctx.Err())
	}}
	w.extra = append(w.extra, s)
	w.start("one", nil)
	w.unwatched(event.Standard, "stopped", "scripted/m")
	<-said
	w.cancel("stopped")
	o := w.outputs("stopped")["stopped"]
	if diff := cmp.Diff([]event.Type{event.OutputCancelled}, o.all); diff != "" || o.Text() != "half of" {
		t.Errorf("%q (-want +got):\n%s", o.Text(), diff)
	}
	f := w.facts("stopped")["stopped"]
	const want = `{"output":[{"index":0,"message":{"role":"assistant","content":"half of"}}]}`
	if len(f) != 1 || f[0].Type != event.JobCancelled || f[0].data != want {
		t.Errorf("facts %v", f)
	}
}

func TestAnUnwatchedJobOfALostOwnerBeginsAgainAndEndsOnce(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	started := make(chan struct{}, 2)
	s := &scripted{play: func(ctx context.Context, _ string, _ int, say func(llm.Chunk, error) bool) {
		say(llm.Chunk{Content: "whole"}, nil)
		started <- struct{}{}
		select {
		case <-ctx.Done():
			say(llm.Chunk{}, ctx.Err())
		case <-time.After(time.Second):
			say(llm.Chunk{FinishReason: "stop"}, nil)
		}
	}}
	w.extra = append(w.extra, s)
	first := w.start("one", func(c *Config) { c.Grace = time.Millisecond })
	w.unwatched(event.Standard, "taken", "scripted/m")
	<-started
	first.end(t)
	w.start("two", nil)
	o := w.outputs("taken")["taken"]
	if diff := cmp.Diff([]event.Type{event.OutputCompleted}, o.all); diff != "" || o.Text() != "whole" || o.Attempt != 1 {
		t.Errorf("%q in attempt %d (-want +got):\n%s", o.Text(), o.Attempt, diff)
	}
}

func TestOnlyWhatNobodyWaitsForSharesARequest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stream bool
		want   []event.Type
	}{
		"watched":   {true, []event.Type{event.JobCompleted}},
		"unwatched": {false, []event.Type{event.OutputCompleted, event.JobCompleted}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTaskWorld(t)
			defer w.p.workers.end()
			w.log.noting = true
			w.run(w.requests(1, tt.stream))
			if diff := cmp.Diff(tt.want, w.log.later); diff != "" {
				t.Errorf("what may wait (-want +got):\n%s", diff)
			}
		})
	}
}
