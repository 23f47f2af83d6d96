package genai

import (
	"context"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/simulated"
)

// scripted answers with what a test says.
type scripted struct {
	chunks []llm.Chunk
	err    error
}

func (scripted) Name() string { return "scripted" }

func (s scripted) Stream(context.Context, llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		for _, c := range s.chunks {
			if !yield(c, nil) {
				return
			}
		}
		if s.err != nil {
			yield(llm.Chunk{}, s.err)
		}
	}
}

type one struct{ llm.Provider }

func (o one) Resolve(model string) (llm.Provider, string, error) {
	if model == "" {
		return nil, "", fault.New(fault.ModelNotFound, "none")
	}
	return o.Provider, model, nil
}

// counts gives how often each series was observed, by its labels' values.
func counts(t *testing.T, reg *prometheus.Registry, name string) map[string]uint64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == name })
	got := map[string]uint64{}
	if at < 0 {
		return got
	}
	for _, m := range families[at].GetMetric() {
		values := make([]string, len(m.GetLabel()))
		for i, l := range m.GetLabel() { // by name: error type, operation, provider, model, token type
			values[i] = l.GetValue()
		}
		got[strings.Join(values, " ")] = m.GetHistogram().GetSampleCount()
	}
	return got
}

func TestCallsAreCountedByHowTheyEnded(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	o, err := New(reg, nil)
	if err != nil {
		t.Fatal(err)
	}
	run := func(p llm.Provider, model string, most int) {
		watched, name, err := o.Models(one{p}).Resolve(model)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range watched.Stream(t.Context(), llm.Request{Model: name, Endpoint: "/v1/chat/completions"}) {
			if most--; most == 0 || err != nil {
				break
			}
		}
	}
	hello := []llm.Chunk{{Content: "hel"}, {Content: "lo", FinishReason: "stop", Usage: &llm.Usage{PromptTokens: 3, CompletionTokens: 2}}}
	run(scripted{chunks: hello}, "m", -1)
	run(scripted{chunks: hello}, "m", 1)
	run(scripted{err: fault.New(fault.RateLimited, "slow down")}, "m", -1)
	run(scripted{chunks: hello[:1], err: context.Canceled}, "m", -1)
	for name, want := range map[string]map[string]uint64{
		"gen_ai_client_operation_duration_seconds": {
			" chat scripted m": 1, "cancelled chat scripted m": 2, "rate_limited chat scripted m": 1,
		},
		"gen_ai_client_operation_time_to_first_chunk_seconds": {"chat scripted m": 3},
		"gen_ai_client_token_usage":                           {"chat scripted m input": 1, "chat scripted m output": 1},
	} {
		if diff := cmp.Diff(want, counts(t, reg, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := New(reg, nil); err == nil {
		t.Error("a registry took the metrics twice")
	}
	if _, _, err := o.Models(one{scripted{}}).Resolve(""); err == nil {
		t.Error("a model that nobody serves was found")
	}
}

func TestAWatchedProviderStillGoesOnFromAPrefix(t *testing.T) {
	t.Parallel()
	o, err := New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p, _, _ := o.Models(one{scripted{}}).Resolve("m"); p.Name() != "scripted" {
		t.Errorf("it is named %q", p.Name())
	} else if _, ok := p.(llm.Continuer); ok {
		t.Error("a provider that cannot continue says that it can")
	}
	p, name, err := o.Models(one{simulated.New()}).Resolve("sim:tokens=8,ttft=0s,gap=0s")
	if err != nil {
		t.Fatal(err)
	}
	c, ok := p.(llm.Continuer)
	if !ok {
		t.Fatal("a provider that can continue does not say so any more")
	}
	req := llm.Request{Model: name, Body: []byte(`{"messages":[{"role":"user","content":"hi"}]}`)}
	say := func(answer iter.Seq2[llm.Chunk, error]) string {
		var text strings.Builder
		for chunk, err := range answer {
			if err != nil {
				t.Fatal(err)
			}
			text.WriteString(chunk.Content)
		}
		return text.String()
	}
	whole := say(p.Stream(t.Context(), req))
	prefix := llm.Prefix{Content: whole[:10]}
	if !c.CanContinue(req, prefix) || say(c.Continue(t.Context(), req, prefix)) != whole[10:] {
		t.Errorf("it does not go on from %q of %q", prefix.Content, whole)
	}
}
