package job

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
)

// out makes an output event as a reader sees it.
func out(t event.Type, attempt int, seq int64, data any) event.View {
	return event.View{
		Type: t, V: 1, Attempt: attempt, Seq: seq, Lane: event.Interactive, Epoch: 1,
		Time: fmt.Appendf(nil, "2026-11-22T15:04:%02d.000Z", seq%60), Data: event.Encode(data),
	}
}

func at(seq int64) time.Time { return time.Date(2026, 11, 22, 15, 4, int(seq%60), 0, time.UTC) }

// tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Fatal(args ...any)
}

func apply(t tester, tr *Transcript, views ...event.View) {
	t.Helper()
	for i := range views {
		if err := tr.Apply(&views[i]); err != nil {
			t.Fatal(err)
		}
	}
}

// said is what one choice is to have said, folded the plain way.
type said struct {
	there                       bool
	content, reasoning, refusal string
	tools                       [][2]string // name, arguments
}

// script draws a job's events and says what a transcript must make of them.
type script struct {
	views   []event.View
	choices [4]said
	deltas  int
	attempt int
	started event.Started
	end     event.Type
	ended   event.Completed
	failed  event.Failed
}

func drawScript(t *rapid.T) *script {
	s := &script{attempt: 1}
	add := func(kind event.Type, data any) {
		s.views = append(s.views, out(kind, s.attempt, int64(len(s.views)), data))
	}
	word := rapid.StringMatching(`[a-zé ]{0,4}`)
	for attempt := range rapid.IntRange(1, 3).Draw(t, "attempts") {
		if attempt > 0 {
			add(event.OutputSuperseded, event.Superseded{Reason: "lost"})
			s.attempt, s.choices, s.deltas = s.attempt+1, [4]said{}, 0
		}
		s.started = event.Started{Model: word.Draw(t, "model"), Provider: "sim"}
		add(event.OutputStarted, s.started)
		for range rapid.IntRange(0, 8).Draw(t, "deltas") {
			d := event.Delta{
				Index: rapid.IntRange(0, len(s.choices)-1).Draw(t, "index"), Content: word.Draw(t, "content"),
				Reasoning: word.Draw(t, "reasoning"), Refusal: word.Draw(t, "refusal"),
			}
			c := &s.choices[d.Index]
			c.there = true
			c.content, c.reasoning, c.refusal = c.content+d.Content, c.reasoning+d.Reasoning, c.refusal+d.Refusal
			if rapid.Bool().Draw(t, "calls a tool") {
				n := rapid.IntRange(0, min(len(c.tools), 2)).Draw(t, "tool")
				if n == len(c.tools) {
					c.tools = append(c.tools, [2]string{"look", ""})
					d.ToolCalls = fmt.Appendf(nil, `[{"index":%d,"id":"call_%d","type":"function","function":{"name":"look","arguments":""}}]`, n, n)
				} else {
					part := word.Draw(t, "arguments")
					c.tools[n][1] += part
					d.ToolCalls = fmt.Appendf(nil, `[{"index":%d,"function":{"arguments":%q}}]`, n, part)
				}
			}
			add(event.OutputDelta, d)
			s.deltas++
		}
		if rapid.Bool().Draw(t, "tool result") {
			add(event.OutputToolResult, event.ToolResult{CallID: "call_0", Content: "42"})
		}
	}
	s.end = rapid.SampledFrom([]event.Type{"", event.OutputCompleted, event.OutputFailed, event.OutputCancelled}).Draw(t, "end")
	switch s.end {
	case event.OutputCompleted:
		s.ended = event.Completed{Model: s.started.Model, Choices: []event.Choice{}, Usage: &event.Usage{TotalTokens: s.deltas}}
		for i := range s.choices {
			if s.choices[i].there || rapid.Bool().Draw(t, "a choice without a word") {
				s.ended.Choices = append(s.ended.Choices, event.Choice{Index: i, FinishReason: "stop"})
			}
		}
		add(s.end, s.ended)
	case event.OutputFailed:
		s.failed = event.Failed{Code: rapid.SampledFrom([]string{"expired", "overloaded"}).Draw(t, "code"), Message: "no", Retryable: true}
		add(s.end, s.failed)
	case event.OutputCancelled:
		add(s.end, struct{}{})
	default: // it has not ended
	}
	return s
}

// output is what the script's answer is to be.
func (s *script) output() []event.OutputChoice {
	all := []event.OutputChoice{}
	for i, c := range s.choices {
		o := event.OutputChoice{Index: i, Message: event.Message{
			Role: "assistant", Content: c.content, Reasoning: c.reasoning, Refusal: c.refusal,
		}}
		tools := make([]string, len(c.tools))
		for k, tool := range c.tools {
			tools[k] = fmt.Sprintf(`{"id":"call_%d","type":"function","function":{"name":%q,"arguments":%q}}`, k, tool[0], tool[1])
		}
		if len(tools) > 0 {
			o.Message.ToolCalls = jsontext.Value("[" + strings.Join(tools, ",") + "]")
		}
		named := slices.ContainsFunc(s.ended.Choices, func(e event.Choice) bool { return e.Index == i })
		if named {
			o.FinishReason = "stop"
		}
		if c.there || named {
			all = append(all, o)
		}
	}
	return all
}

func TestATranscriptSaysWhatWasSaidHoweverOftenItIsTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScript(t)
		var tr Transcript
		for i := range s.views {
			apply(t, &tr, s.views[i])
			if back := rapid.IntRange(0, i+1).Draw(t, "told again"); back <= i { // a run of what was told already
				apply(t, &tr, s.views[back:i+1]...)
			}
		}
		if diff := cmp.Diff(s.output(), tr.Output()); diff != "" {
			t.Fatalf("output (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(Progress{Attempt: s.attempt, NextSeq: int64(len(s.views)), End: s.end}, tr.Progress); diff != "" {
			t.Fatalf("progress (-want +got):\n%s", diff)
		}
		if tr.Text() != s.choices[0].content || tr.Reasoning() != s.choices[0].reasoning || tr.Deltas != s.deltas {
			t.Fatalf("text %q, reasoning %q, %d deltas, want %+v, %d", tr.Text(), tr.Reasoning(), tr.Deltas, s.choices[0], s.deltas)
		}
		if tr.Started != s.started || !tr.StartedAt.Equal(at(0)) {
			t.Fatalf("started %+v at %v", tr.Started, tr.StartedAt)
		}
		if ended := !tr.EndedAt.IsZero(); ended != (s.end != "") || ended && !tr.EndedAt.Equal(at(int64(len(s.views)-1))) {
			t.Fatalf("ended at %v, with %q", tr.EndedAt, s.end)
		}
		plain := s.choices[0].refusal == "" && len(s.choices[0].tools) == 0 && !s.choices[1].there && !s.choices[2].there && !s.choices[3].there
		if tr.PlainText() != plain {
			t.Fatalf("plain: %v", tr.PlainText())
		}
		if (tr.Bytes() > 0) != slices.ContainsFunc(s.choices[:], func(c said) bool {
			return c.content+c.reasoning+c.refusal != "" || len(c.tools) > 0
		}) {
			t.Fatalf("%d bytes for %+v", tr.Bytes(), s.choices)
		}
	})
}

func TestProgressTakesEverySeqOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScript(t)
		var p Progress
		told := map[int64]bool{}
		for range rapid.IntRange(0, 40).Draw(t, "n") {
			// A reader may begin anywhere and be set back, but has no gap.
			seq := rapid.Int64Range(0, min(p.NextSeq, int64(len(s.views))-1)).Draw(t, "seq")
			if fresh := p.Apply(&s.views[seq]); fresh == told[seq] {
				t.Fatalf("seq %d: fresh %v, told before %v", seq, fresh, told[seq])
			}
			told[seq] = true
		}
		if p.NextSeq != int64(len(told)) {
			t.Fatalf("next is %d after %d", p.NextSeq, len(told))
		}
	})
}

func TestNothingFollowsATerminalEvent(t *testing.T) {
	var tr Transcript
	apply(t, &tr,
		out(event.OutputDelta, 1, 0, event.Delta{Content: "a"}),
		out(event.OutputCancelled, 1, 1, struct{}{}),
		out(event.OutputDelta, 2, 2, event.Delta{Content: "b"}),
		out(event.OutputCompleted, 2, 3, event.Completed{}),
	)
	if want := (Progress{Attempt: 1, NextSeq: 2, End: event.OutputCancelled}); tr.Progress != want || tr.Text() != "a" {
		t.Errorf("%+v, %q", tr.Progress, tr.Text())
	}
}

func TestChoicesMayTakeTurns(t *testing.T) {
	var tr Transcript
	for seq := range int64(100) {
		apply(t, &tr, out(event.OutputDelta, 1, seq, event.Delta{Index: int(seq * 37 % maxChoices), Content: "x"}))
	}
	if got := len(tr.Output()); got != 100 {
		t.Errorf("%d choices", got)
	}
}

func TestAFactIsTheSameWhoeverFolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScript(t)
		var once, again Transcript
		apply(t, &once, s.views...)
		for i := range s.views { // a reader that was set back at every event
			apply(t, &again, s.views[:i+1]...)
		}
		kind, data := once.Fact()
		kind2, data2 := again.Fact()
		if kind != kind2 || string(data) != string(data2) {
			t.Fatalf("%s %s\n%s %s", kind, data, kind2, data2)
		}
		want := map[event.Type]event.Type{
			event.OutputCompleted: event.JobCompleted, event.OutputCancelled: event.JobCancelled, event.OutputFailed: event.JobFailed,
		}[s.end]
		if s.failed.Code == "expired" {
			want = event.JobExpired
		}
		if s.end != "" && kind != want {
			t.Fatalf("%s became %s", s.end, kind)
		}
		if s.end != event.OutputCompleted {
			return
		}
		var f event.Fact
		if err := event.DecodeData(data, &f); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(event.Fact{Model: s.ended.Model, Output: s.output(), Usage: s.ended.Usage}, f); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestAFactReadsAsItAlwaysDid(t *testing.T) {
	for name, c := range map[string]struct {
		views []event.View
		kind  event.Type
		data  string
	}{
		"completed": {[]event.View{
			out(event.OutputStarted, 1, 0, event.Started{Model: "sim", Provider: "sim"}),
			out(event.OutputDelta, 1, 1, event.Delta{Content: "Hello"}),
			out(event.OutputCompleted, 1, 2, event.Completed{Model: "sim", Choices: []event.Choice{{FinishReason: "stop"}}, Usage: &event.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3}}),
		}, event.JobCompleted, `{"model":"sim","output":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`},
		"completed, with all in its end": {[]event.View{
			out(event.OutputCompleted, 1, 0, event.Completed{Model: "sim", Choices: []event.Choice{{FinishReason: "stop"}}, Deltas: []event.Delta{{Content: "Hel"}, {Content: "lo"}}}),
		}, event.JobCompleted, `{"model":"sim","output":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}`},
		"cancelled": {[]event.View{out(event.OutputCancelled, 1, 0, struct{}{})}, event.JobCancelled, `{}`},
		"cancelled, with all in its end": {
			[]event.View{out(event.OutputCancelled, 1, 0, event.Stopped{Deltas: []event.Delta{{Index: 1, Content: "He"}}})},
			event.JobCancelled, `{"output":[{"index":1,"message":{"role":"assistant","content":"He"}}]}`,
		},
		"cancelled in the middle": {[]event.View{
			out(event.OutputStarted, 1, 0, event.Started{Model: "sim", Provider: "sim"}), out(event.OutputDelta, 1, 1, event.Delta{Content: "He"}),
			out(event.OutputCancelled, 1, 2, struct{}{}),
		}, event.JobCancelled, `{"model":"sim","output":[{"index":0,"message":{"role":"assistant","content":"He"}}]}`},
		"failed":  {[]event.View{out(event.OutputFailed, 1, 0, event.Failed{Code: "overloaded", Message: "m"})}, event.JobFailed, `{"code":"overloaded","message":"m","retryable":false}`},
		"expired": {[]event.View{out(event.OutputFailed, 1, 0, event.Failed{Code: "expired", Message: "m"})}, event.JobExpired, `{"code":"expired","message":"m","retryable":false}`},
	} {
		var tr Transcript
		apply(t, &tr, c.views...)
		if kind, data := tr.Fact(); kind != c.kind || string(data) != c.data {
			t.Errorf("%s: %s %s", name, kind, data)
		}
	}
}

func TestDataThatIsNotItsTypesIsToldAndIsProgressAllTheSame(t *testing.T) {
	for kind, bad := range map[event.Type][]string{
		event.OutputStarted:   {`{"model":7}`},
		event.OutputDelta:     {`{"content":7}`, `{"index":-1}`, `{"index":128}`, `{"tool_calls":7}`, `{"tool_calls":[{"index":-1}]}`, `{"tool_calls":[{"index":128}]}`, `[]`},
		event.OutputCompleted: {`{"choices":7}`, `{"deltas":{}}`, `{"deltas":[{"index":-1}]}`},
		event.OutputCancelled: {`{"deltas":[7]}`},
		event.OutputFailed:    {`{"code":7}`},
	} {
		for _, data := range bad {
			var tr Transcript
			v := out(kind, 1, 0, nil)
			v.Data = []byte(data)
			if err := tr.Apply(&v); err == nil {
				t.Errorf("%s %s: no error", kind, data)
			}
			if tr.NextSeq != 1 {
				t.Errorf("%s %s: next is %d", kind, data, tr.NextSeq)
			}
		}
	}
}

func TestATimeThatCannotBeReadIsNoError(t *testing.T) {
	v := out(event.OutputCancelled, 1, 0, struct{}{})
	v.Time = []byte("yesterday")
	var tr Transcript
	apply(t, &tr, v)
	if !tr.StartedAt.IsZero() || !tr.EndedAt.IsZero() || tr.End != event.OutputCancelled {
		t.Errorf("%+v", tr)
	}
}

func TestATranscriptWithoutOutputSaysNothing(t *testing.T) {
	var tr Transcript
	if tr.Text() != "" || tr.Reasoning() != "" || !tr.PlainText() || len(tr.Output()) != 0 || tr.Bytes() != 0 {
		t.Errorf("%+v", tr)
	}
}

func BenchmarkTranscriptApply(b *testing.B) {
	v := out(event.OutputDelta, 1, 0, event.Delta{Content: " world"})
	b.ReportAllocs()
	tr := &Transcript{}
	for b.Loop() {
		if v.Seq%4096 == 0 {
			tr, v.Seq = &Transcript{}, 0
		}
		if err := tr.Apply(&v); err != nil {
			b.Fatal(err)
		}
		v.Seq++
	}
}
