package processors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// hostile is a provider that does what none should.
type hostile struct {
	stream func(yield func(llm.Chunk, error) bool)
}

func (hostile) Name() string { return "hostile" }

func (h hostile) Stream(context.Context, llm.Request) seq { return h.stream }

func (h hostile) Resolve(string) (llm.Provider, string, error) { return h, "m", nil }

// taken is a producer that takes everything.
type taken struct{ recs []event.Record }

func (p *taken) Later(rec event.Record, done func(kafka.Ack, error)) error { return p.Go(rec, done) }

func (p *taken) Go(rec event.Record, done func(kafka.Ack, error)) error {
	p.recs = append(p.recs, rec)
	done(kafka.Ack{}, nil)
	return nil
}

// answered runs a call's answer against a provider, and returns the types that
// were written, and the last event's data.
func answered(t *testing.T, limit int, stream func(yield func(llm.Chunk, error) bool)) ([]event.Type, string) {
	t.Helper()
	types, last, _ := answeredAndRead(t, limit, stream)
	return types, last
}

// answeredAndRead is answered, and returns what a reader has of the events too.
func answeredAndRead(t *testing.T, limit int, stream func(yield func(llm.Chunk, error) bool)) ([]event.Type, string, *job.Transcript) {
	t.Helper()
	out, read := &taken{}, &job.Transcript{}
	p := &Processor{
		cfg: Config{MaxJobBytes: limit, MaxTokenBytes: 1 << 20}.withDefaults(), models: hostile{stream},
		log: slog.New(slog.DiscardHandler), now: time.Now,
	}
	lp := engine.LP{Lane: event.Standard}
	g := newGate(t.Context(), lp, 1)
	g.let(1)
	o := &output{
		gate: g, out: out, topic: "tokens", head: event.Head{Tenant: "t", Job: "j", Attempt: 1, Lane: lp.Lane},
		now: time.Now, coalesce: p.cfg.coalesce(), limits: p.cfg.limits(), failed: func(*output, error) {}, ctx: t.Context(),
	}
	defer o.close()
	start := engine.Start{LP: lp, Gen: 1, Request: &engine.Request{Data: event.Request{Model: "m", Body: []byte(`{"model":"m"}`)}}}
	if _, err := p.answer(p.newCall(g, start), o); err != nil {
		t.Fatal(err)
	}
	var types []event.Type
	var last string
	for i := range out.recs {
		if n := len(out.recs[i].Value); n > 1<<20 {
			t.Errorf("event %d takes %d bytes", i, n)
		}
		v, err := event.ScanHead(out.recs[i].Value)
		if err != nil {
			t.Fatal(err)
		}
		types, last = append(types, v.Type), string(v.Data)
		if err := read.Apply(&v); err != nil {
			t.Error(err)
		}
	}
	_, fact := o.transcript.Fact()
	if limit > 0 && len(fact) > limit {
		t.Errorf("the fact takes %d bytes, and %d is the most", len(fact), limit)
	}
	return types, last, read
}

func TestWhatAProviderMayNotSendFailsItsJobAlone(t *testing.T) {
	big := strings.Repeat("\x01", 200<<10)
	for name, tc := range map[string]struct {
		stream func(yield func(llm.Chunk, error) bool)
		code   fault.Code
	}{
		"an index out of range": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Index: 5000, Content: "x"}, nil)
		}, fault.ProviderError},
		"tool calls that are none": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{ToolCalls: []byte(`{"a":1}`)}, nil)
		}, fault.ProviderError},
		"tool calls that are not JSON": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{ToolCalls: []byte(`[`)}, nil)
		}, fault.ProviderError},
		"a piece larger than a record": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Logprobs: []byte(`"` + strings.Repeat("a", 2<<20) + `"`)}, nil)
		}, fault.ProviderError},
		"logprobs larger than a record beside text": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Content: "x", Logprobs: []byte(`{"content":["` + strings.Repeat("a", 2<<20) + `"]}`)}, nil)
		}, fault.ProviderError},
		"a vector and text": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Index: 1000, Content: big, Embedding: []byte(`[1]`)}, nil)
		}, fault.ProviderError},
		"a vector and a finish reason": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Index: 1000, FinishReason: "stop", Embedding: []byte(`[1]`)}, nil)
		}, fault.ProviderError},
		"a finish reason as long as a book": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Content: "x", FinishReason: strings.Repeat("a", 2<<20)}, nil)
		}, fault.ProviderError},
		"the end of no choice": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Index: -1, FinishReason: "stop"}, nil)
		}, fault.ProviderError},
		"more ends than choices": {func(yield func(llm.Chunk, error) bool) {
			for i := 0; yield(llm.Chunk{Index: i, FinishReason: "stop"}, nil); i++ {
			}
		}, fault.ProviderError},
		"a usage as long as a book": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Content: "x", Usage: &llm.Usage{PromptTokensDetails: []byte(`{"a":"` + strings.Repeat("a", 2<<20) + `"}`)}}, nil)
		}, fault.ProviderError},
		"an answer without end": {func(yield func(llm.Chunk, error) bool) {
			for yield(llm.Chunk{Content: "on and on "}, nil) {
			}
		}, fault.ProviderError},
		"an answer too long at once": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Content: big}, nil)
		}, fault.ProviderError},
		"an error as long as a book": {func(yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{}, fault.New(fault.ProviderRejected, "%s", big))
		}, fault.ProviderRejected},
		"a panic": {func(func(llm.Chunk, error) bool) { panic("at the provider's") }, fault.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			types, last := answered(t, 256<<10, tc.stream)
			if types[0] != event.OutputStarted || types[len(types)-1] != event.OutputFailed {
				t.Errorf("%v", types)
			}
			if !strings.Contains(last, fmt.Sprintf("%q", tc.code)) || len(last) > 20<<10 {
				t.Errorf("%.200s; want %s", last, tc.code)
			}
		})
	}
}

// What fits into no record of the token topic as it comes is several events,
// each of which does, and a reader has all of it.
func TestAPieceThatIsLargerThanARecordIsCutAndNothingOfItIsLost(t *testing.T) {
	worst := func(kib int) string { return strings.Repeat("\x01", kib<<10) }
	for name, c := range map[string]llm.Chunk{
		"text and thinking":         {Content: worst(120), Reasoning: worst(120)},
		"text, thinking, a refusal": {Content: worst(60), Reasoning: worst(60), Refusal: worst(60)},
		"a long refusal":            {Refusal: worst(300)},
		"text beside logprobs":      {Content: strings.Repeat("a", 100<<10), Logprobs: []byte(`{"content":["` + strings.Repeat("a", 980<<10) + `"]}`)},
		"text beside a tool call": {Content: worst(100), Reasoning: worst(1), ToolCalls: []byte(
			`[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"` + strings.Repeat("a", 900<<10) + `"}}]`)},
	} {
		t.Run(name, func(t *testing.T) {
			var whole job.Transcript
			d := event.Delta{Content: c.Content, Reasoning: c.Reasoning, Refusal: c.Refusal, ToolCalls: c.ToolCalls, Logprobs: c.Logprobs}
			if err := whole.Say(&d); err != nil {
				t.Fatal(err)
			}
			types, _, read := answeredAndRead(t, 8<<20, func(yield func(llm.Chunk, error) bool) { yield(c, nil) })
			if len(types) < 4 || types[len(types)-1] != event.OutputCompleted {
				t.Errorf("%v", types)
			}
			if !slices.Equal(event.Encode(event.Fact{Output: read.Output()}), event.Encode(event.Fact{Output: whole.Output()})) {
				t.Errorf("a reader has another answer than the provider gave")
			}
		})
	}
}

// The longest end that a provider may send fits.
func TestTheLongestFinishReasonsOfAllChoicesFit(t *testing.T) {
	types, last := answered(t, 1<<20, func(yield func(llm.Chunk, error) bool) {
		details := []byte(`{"a":"` + strings.Repeat("a", maxDetailsBytes-8) + `"}`)
		for i := range 128 {
			yield(llm.Chunk{Index: i, FinishReason: strings.Repeat("\x01", maxFinishBytes)}, nil)
		}
		yield(llm.Chunk{Usage: &llm.Usage{PromptTokensDetails: details, CompletionTokensDetails: details}}, nil)
	})
	if types[len(types)-1] != event.OutputCompleted || len(last)+maxHeld > 1<<20-margin {
		t.Errorf("%v, with %d bytes", types, len(last))
	}
}

func TestAFinishSaidAgainAndAgainIsKeptOnce(t *testing.T) {
	_, last := answered(t, 0, func(yield func(llm.Chunk, error) bool) {
		for range 3 {
			yield(llm.Chunk{Content: "a", FinishReason: "stop"}, nil)
		}
	})
	if n := strings.Count(last, "finish_reason"); n != 1 {
		t.Errorf("%s", last)
	}
}

// commits is a group that refuses some.
type commits struct {
	answer func(n int, got []kafka.Commit) error
	calls  int
	taken  map[kafka.TopicPartition]int64
}

func (c *commits) Commit(_ context.Context, got ...kafka.Commit) error {
	c.calls++
	if err := c.answer(c.calls, got); err != nil {
		return err
	}
	for _, f := range got {
		c.taken[f.TopicPartition] = f.Next
	}
	return nil
}

func TestACommitThatFailsIsTriedAgainAndOneThatIsAnothersSparesTheRest(t *testing.T) {
	for name, answer := range map[string]func(n int, got []kafka.Commit) error{
		"kafka away": func(n int, _ []kafka.Commit) error {
			if n < 4 {
				return kafka.ErrUnavailable
			}
			return nil
		},
		"one is another's": func(_ int, got []kafka.Commit) error {
			if slices.ContainsFunc(got, func(f kafka.Commit) bool { return f.Partition == 9 }) {
				return fmt.Errorf("commit: %w", kafka.ErrNotMember)
			}
			return nil
		},
		"both": func(n int, got []kafka.Commit) error {
			switch {
			case n == 3:
				return kafka.ErrUnavailable
			case slices.ContainsFunc(got, func(f kafka.Commit) bool { return f.Partition == 9 }):
				return kafka.ErrNotMember
			default:
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &commits{answer: answer, taken: map[kafka.TopicPartition]int64{}}
				m, err := newMetrics(nil)
				if err != nil {
					t.Fatal(err)
				}
				c := newCommitter(&Processor{log: slog.New(slog.DiscardHandler), metrics: m})
				c.group = g
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- c.run(ctx) }()
				parts := []int32{0, 1, 2}
				if name != "kafka away" {
					parts = append(parts, 9)
				}
				for _, p := range parts {
					c.put(engine.Commit{LP: engine.LP{Lane: event.Standard, Partition: p}, Next: int64(p) + 1})
				}
				time.Sleep(10 * time.Second) //nolint:forbidigo // the bubble's clock
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				want := map[kafka.TopicPartition]int64{}
				for _, p := range []int32{0, 1, 2} {
					want[kafka.TopicPartition{Topic: "requests.standard", Partition: p}] = int64(p) + 1
				}
				if diff := cmp.Diff(want, g.taken); diff != "" {
					t.Error(diff)
				}
				if g.calls > 20 {
					t.Errorf("%d requests", g.calls)
				}
			})
		})
	}
}

func TestNothingFollowsAnOutputThatKafkaDidNotTake(t *testing.T) {
	p := &Processor{cfg: Config{}.withDefaults(), log: slog.New(slog.DiscardHandler), now: time.Now, box: newMailbox()}
	g := newGate(t.Context(), engine.LP{Lane: event.Standard}, 7)
	g.let(1)
	o := p.output(g, &engine.Start{LP: g.lp, Gen: 7, Request: &engine.Request{}}, &job.Transcript{})
	o.written(kafka.Ack{}, kafka.ErrUnknownOutcome)
	if err := g.pass(t.Context(), func(int64) error { return nil }); !errors.Is(err, errShut) {
		t.Errorf("an event was let through behind a hole: %v", err)
	}
	got := p.box.take(nil)
	if len(got) != 1 || got[0] != (engine.WriteFailed{LP: g.lp, Gen: 7}) {
		t.Errorf("%v", got)
	}
}
