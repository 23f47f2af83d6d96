package processors

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

func overloaded(after time.Duration) *fault.Error {
	f := fault.New(fault.RateLimited, "come back later")
	f.RetryAfter = after
	return f
}

func hurried(c *Config) {
	c.Retry = engine.Backoff{Tries: 3, Base: 20 * time.Millisecond, Cap: 10 * time.Minute}
}

// retryings reads the job.retrying facts of a job that has ended.
func (w *world) retryings(id string) (out []event.Retrying, attempts []int) {
	w.t.Helper()
	w.facts(id)
	for _, rec := range w.records(w.names.Jobs(), w.partitionOf(id)) {
		v, err := event.ScanHead(rec.Value)
		if err != nil || v.Type != event.JobRetrying || string(v.Job) != id {
			continue
		}
		var r event.Retrying
		if err := event.DecodeData(v.Data, &r); err != nil {
			w.t.Fatal(err)
		}
		out, attempts = append(out, r), append(attempts, v.Attempt)
	}
	return out, attempts
}

// TestAProviderThatFailsBeforeItSaysAnythingIsAskedAgain has one slot: the job
// that waits for its next try gives it to others, and keeps its key.
func TestAProviderThatFailsBeforeItSaysAnythingIsAskedAgain(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		const rest = 5 * time.Second // in which the other job is called
		begun := make(chan struct{})
		s := &scripted{}
		var fails string
		s.play = func(ctx context.Context, id string, n int, yield func(llm.Chunk, error) bool) {
			switch {
			case id == fails && n == 1: // late, so that output.started is in the log
				select {
				case <-begun:
				case <-ctx.Done():
				}
				yield(llm.Chunk{}, fault.New(fault.ProviderError, "a gateway fell over"))
			case id == fails && n == 2: // at once
				yield(llm.Chunk{}, overloaded(rest))
			default:
				finishes(yield)
			}
		}
		w.extra = append(w.extra, s)
		const conversation = "conv-1"
		fails = w.request(event.Standard, "scripted/m", conversation)
		next := w.request(event.Standard, "scripted/m", conversation)
		w.start("one", func(c *Config) {
			hurried(c)
			c.Engine.MaxInFlight = 1
		})
		w.outputsUntil(func(o *told) bool { return o.NextSeq > 0 }, fails)
		other := w.request(event.Standard, "scripted/m", "")
		close(begun)
		got := w.outputs(fails, next, other)
		o := got[fails]
		want := []event.Type{event.OutputStarted, event.OutputSuperseded, event.OutputStarted, event.OutputDelta, event.OutputCompleted}
		but := slices.DeleteFunc(slices.Clone(o.all), func(t event.Type) bool { return t == event.OutputDelta })
		if o.End != event.OutputCompleted || o.Text() != "all is well" || o.Attempt != 3 || len(s.called(fails)) != 3 {
			t.Errorf("attempt %d, %d calls, %v, want %v", o.Attempt, len(s.called(fails)), o.all, want)
		}
		if n := len(but); n < 4 || n > 6 || but[1] != event.OutputSuperseded { // the second try may have come to its output.started
			t.Errorf("%v", o.all)
		}
		if calls := s.called(fails); calls[2].Sub(calls[1]) < rest {
			t.Errorf("it was asked again after %v, and wanted %v", calls[2].Sub(calls[1]), rest)
		}
		if got[next].StartedAt.Before(o.EndedAt) {
			t.Error("the conversation's next job did not wait")
		}
		if calls := s.called(fails); s.called(other)[0].After(calls[2]) {
			t.Error("another job waited for the slot of one that rests")
		}
		retryings, attempts := w.retryings(fails)
		if len(retryings) != 2 || retryings[0].Code != "provider_error" || retryings[1].Code != "rate_limited" || !slices.Equal(attempts, []int{1, 2}) {
			t.Errorf("%+v of attempts %v", retryings, attempts)
		}
		w.committed()
	})
}

func TestRetriesHaveAnEnd(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	deadline := time.Now().Add(2 * time.Minute) // sooner than the provider would have it again
	s := &scripted{play: func(ctx context.Context, id string, _ int, yield func(llm.Chunk, error) bool) {
		switch id {
		case "rejected":
			yield(llm.Chunk{}, fault.New(fault.ProviderRejected, "no"))
		case "late":
			yield(llm.Chunk{}, overloaded(5*time.Minute))
		case "much-later":
			yield(llm.Chunk{}, overloaded(time.Hour))
		case "spoke":
			_ = yield(llm.Chunk{Content: "I"}, nil) && yield(llm.Chunk{}, fault.New(fault.ProviderError, "cut"))
		default:
			yield(llm.Chunk{}, fault.New(fault.ProviderError, "no luck"))
		}
	}}
	w.extra = append(w.extra, s)
	w.start("one", hurried)
	ids := []string{"exhausted", "rejected", "much-later", "spoke", "late"}
	for _, id := range ids {
		data := `{"body":{"model":"scripted/m"}}`
		if id == "late" {
			data = `{"body":{"model":"scripted/m"},"deadline":"` + deadline.UTC().Format(time.RFC3339Nano) + `"}`
		}
		w.write(event.Standard, id, "", data)
	}
	got := w.outputs(ids...)
	for id, want := range map[string]struct {
		calls     int
		code      fault.Code
		retryable bool
		text      string
	}{
		"exhausted":  {3, fault.ProviderError, true, ""},
		"rejected":   {1, fault.ProviderRejected, false, ""},
		"much-later": {1, fault.RateLimited, true, ""},
		"spoke":      {1, fault.ProviderError, true, "I"},
		"late":       {1, fault.RateLimited, true, ""},
	} {
		o := got[id]
		if o.End != event.OutputFailed || o.Failed.Code != string(want.code) || o.Failed.Retryable != want.retryable ||
			len(s.called(id)) != want.calls || o.Text() != want.text {
			t.Errorf("%s: %d calls, %+v, %q; want %+v", id, len(s.called(id)), o.Failed, o.Text(), want)
		}
	}
	w.committed()
}

func TestAModelThatIsSilentForTooLongIsBrokenOff(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	s := &scripted{play: func(ctx context.Context, id string, n int, yield func(llm.Chunk, error) bool) {
		switch {
		case id == "once" && n > 1:
			finishes(yield)
		case id == "middle":
			if yield(llm.Chunk{Content: "I was about to"}, nil) {
				hangs(ctx, yield)
			}
		case id == "empty": // signs of life that say nothing
			for range time.Tick(20 * time.Millisecond) {
				if ctx.Err() != nil {
					yield(llm.Chunk{}, ctx.Err())
					return
				}
				if !yield(llm.Chunk{}, nil) {
					return
				}
			}
		default:
			hangs(ctx, yield)
		}
	}}
	w.extra = append(w.extra, s)
	w.start("one", func(c *Config) {
		hurried(c)
		c.FirstToken, c.NextToken = 2500*time.Millisecond, 2400*time.Millisecond
	})
	ids := []string{"once", "middle", "empty", "never", "deadline"}
	for _, id := range ids {
		data := `{"body":{"model":"scripted/m"}}`
		if id == "deadline" {
			data = `{"body":{"model":"scripted/m"},"deadline":"` + time.Now().Add(150*time.Millisecond).UTC().Format(time.RFC3339Nano) + `"}`
		}
		w.write(event.Interactive, id, "", data)
	}
	got := w.outputs(ids...)
	if o := got["once"]; o.End != event.OutputCompleted || o.Attempt != 2 {
		t.Errorf("once: attempt %d, %v", o.Attempt, o.all)
	}
	for id, want := range map[string]struct {
		calls      int
		code, says string
		text       string
	}{
		"middle":   {1, "provider_timeout", "2.4s", "I was about to"},
		"empty":    {3, "provider_timeout", "2.5s", ""},
		"never":    {3, "provider_timeout", "2.5s", ""},
		"deadline": {-1, "deadline_exceeded", "deadline", ""},
	} {
		o := got[id]
		if o.End != event.OutputFailed || o.Failed.Code != want.code || !strings.Contains(o.Failed.Message, want.says) || o.Text() != want.text ||
			want.calls >= 0 && len(s.called(id)) != want.calls {
			t.Errorf("%s: %d calls, %+v, %q; want %+v", id, len(s.called(id)), o.Failed, o.Text(), want)
		}
	}
	w.committed()
}

// TestAJobThatRestsIsCancelledAndHandedOver has two jobs wait for a try that is
// a while off: one is cancelled, the other taken up by the next owner.
func TestAJobThatRestsIsCancelledAndHandedOver(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	s := &scripted{play: func(_ context.Context, id string, n int, yield func(llm.Chunk, error) bool) {
		if n == 1 {
			yield(llm.Chunk{}, overloaded(time.Hour))
			return
		}
		finishes(yield)
	}}
	w.extra = append(w.extra, s)
	patient := func(c *Config) { c.Retry = engine.Backoff{Tries: 3, Base: time.Second, Cap: 2 * time.Hour} }
	a := w.start("one", patient)
	w.write(event.Standard, "cancelled", "", `{"body":{"model":"scripted/m"}}`)
	w.write(event.Standard, "handed-over", "", `{"body":{"model":"scripted/m"}}`)
	for s.called("cancelled") == nil || s.called("handed-over") == nil {
		if !sleep(t.Context(), 10*time.Millisecond) {
			t.Fatal("they were not called")
		}
	}
	w.cancel("cancelled")
	if o := w.outputs("cancelled")["cancelled"]; o.End != event.OutputCancelled || len(s.called("cancelled")) != 1 {
		t.Errorf("%v after %d calls", o.all, len(s.called("cancelled")))
	}
	w.cancelledFact("cancelled")
	a.end(t) // nothing is in flight: it does not wait for an hour
	w.start("two", patient)
	if o := w.outputs("handed-over")["handed-over"]; o.End != event.OutputCompleted || len(s.called("handed-over")) != 2 {
		t.Errorf("%v after %d calls", o.all, len(s.called("handed-over")))
	}
	w.committed()
}
