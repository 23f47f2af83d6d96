package processors

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

func TestEveryVectorIsAnEventOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		types, last := answered(t, 1<<20, func(yield func(llm.Chunk, error) bool) {
			for i := range 200 { // more than there may be choices
				if !yield(llm.Chunk{Index: i, Embedding: []byte(`[1,2]`)}, nil) {
					return
				}
			}
			yield(llm.Chunk{Usage: &llm.Usage{PromptTokens: 7, TotalTokens: 7, PromptTokensDetails: []byte(`{"cached_tokens":1}`)}}, nil)
		})
		want := slices.Concat([]event.Type{event.OutputStarted}, slices.Repeat([]event.Type{event.OutputDelta}, 200), []event.Type{event.OutputCompleted})
		if diff := cmp.Diff(want, types); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if want := `{"model":"m","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":0,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":1}}}`; last != want {
			t.Errorf("it ended with %s", last)
		}
	})
}

func TestAVectorThatTheLogCannotHoldFailsItsJob(t *testing.T) {
	for says, c := range map[string]llm.Chunk{
		"that is none":                    {Embedding: []byte(`{"a":1}`)},
		"that is not JSON":                {Embedding: []byte(`[1`)},
		"no input":                        {Index: 2048, Embedding: []byte(`[1]`)},
		"larger than the log takes":       {Embedding: fmt.Appendf(nil, "[%s0]", strings.Repeat("0,", 1<<19))},
		"logprobs":                        {Content: "x", Logprobs: []byte(`{"content":7}`)},
		"longer than the 700000 bytes th": {Embedding: fmt.Appendf(nil, "[%s0]", strings.Repeat("0,", 350_000))},
	} {
		synctest.Test(t, func(t *testing.T) {
			types, last := answered(t, 700_000, func(yield func(llm.Chunk, error) bool) { yield(c, nil) })
			if !slices.Equal(types, []event.Type{event.OutputStarted, event.OutputFailed}) || !strings.Contains(last, string(fault.ProviderError)) || !strings.Contains(last, says) {
				t.Errorf("%s: %v, %s", says, types, last)
			}
		})
	}
}

// eager is a provider that would go on from anything.
type eager struct{}

func (eager) Name() string { return "eager" }

func (e eager) Resolve(string) (llm.Provider, string, error) { return e, "m", nil }

func (eager) Stream(context.Context, llm.Request) seq {
	return func(yield func(llm.Chunk, error) bool) { yield(llm.Chunk{Embedding: []byte(`[1]`)}, nil) }
}

func (eager) CanContinue(llm.Request, llm.Prefix) bool { return true }

func (eager) Continue(context.Context, llm.Request, llm.Prefix) seq {
	return func(yield func(llm.Chunk, error) bool) { yield(llm.Chunk{}, fault.New(fault.Internal, "it went on")) }
}

// A takeover in the middle of vectors begins them anew.
func TestVectorsAreNotContinued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, lp := &taken{}, engine.LP{Lane: event.Standard}
		g := newGate(t.Context(), lp, 1)
		g.let(1)
		metrics, err := newMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		p := &Processor{cfg: Config{MaxTokenBytes: 1 << 20}.withDefaults(), models: eager{}, log: slog.New(slog.DiscardHandler), now: time.Now, metrics: metrics}
		var before job.Transcript
		for seq, d := range []any{event.Started{}, event.Delta{Embedding: []byte(`[1]`)}} {
			kind := []event.Type{event.OutputStarted, event.OutputDelta}[seq]
			if err := before.Apply(&event.View{Type: kind, Attempt: 1, Seq: int64(seq), Data: event.Encode(d)}); err != nil {
				t.Fatal(err)
			}
		}
		o := &output{
			gate: g, out: out, topic: "tokens", head: event.Head{Tenant: "t", Job: "j", Attempt: 1, Lane: lp.Lane}, transcript: before,
			now: time.Now, coalesce: p.cfg.coalesce(), limits: p.cfg.limits(), failed: func(*output, error) {}, ctx: t.Context(),
		}
		defer o.close()
		start := engine.Start{LP: lp, Gen: 1, Request: &engine.Request{Data: event.Request{Model: "m", Body: []byte(`{"model":"m"}`)}}}
		if _, err := p.answer(p.newCall(g, start), o); err != nil {
			t.Fatal(err)
		}
		var types []event.Type
		for i := range out.recs {
			v, err := event.ScanHead(out.recs[i].Value)
			if err != nil {
				t.Fatal(err)
			}
			types = append(types, v.Type)
		}
		if diff := cmp.Diff([]event.Type{event.OutputSuperseded, event.OutputStarted, event.OutputDelta, event.OutputCompleted}, types); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if o.transcript.Attempt != 2 {
			t.Errorf("attempt %d", o.transcript.Attempt)
		}
	})
}
