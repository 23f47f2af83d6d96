package openai

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// opening is what the chunks of these tests begin with.
const opening = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795774098,"model":"a \"b\"",`

func chunks(usage bool) *Chunks {
	return NewChunks("chatcmpl-1", time.Unix(1795774098, 999), `a "b"`, usage)
}

func TestADeltaBecomesAChunkOfOneLine(t *testing.T) {
	for data, want := range map[string]string{
		`{"index":0,"content":"Hello"}`:                 `"content":"Hello"`,
		`{"index":0,"content":"a \"b\\\" \n é } ,"}`:    `"content":"a \"b\\\" \n é } ,"`,
		`{"index":0,"content":"\\"}`:                    `"content":"\\"`,
		`{"index":0,"reasoning":"hm"}`:                  `"reasoning_content":"hm"`,
		`{"index":0,"content":"x","reasoning":"y"}`:     `"content":"x","reasoning_content":"y"`,
		`{"index":0,"refusal":"no"}`:                    `"refusal":"no"`,
		`{"index":0}`:                                   ``,
		`{"content":"order","index":0}`:                 `"content":"order"`,
		`{"index":0,"later":{"error":1},"content":"x"}`: `"content":"x"`,
		"{\"index\":0,\"tool_calls\":[ {\"index\":0,\r\n\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}} ]}": `"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]`,
	} {
		got, err := chunks(false).AppendDelta([]byte("before "), []byte(data))
		if err != nil {
			t.Errorf("%s: %v", data, err)
			continue
		}
		comma := ","
		if want == "" {
			comma = ""
		}
		want = "before " + opening + `"choices":[{"index":0,"delta":{"role":"assistant"` + comma + want + `},"finish_reason":null}]}` + "\n\n"
		if string(got) != want {
			t.Errorf("%s became\n%swant\n%s", data, got, want)
		}
	}
}

func TestLogprobsAreTheChoicesAndNotTheDeltas(t *testing.T) {
	got, err := chunks(false).AppendDelta(nil, []byte(`{"index":0,"content":"x","logprobs":{"content":[{"token":"x","logprob":-0.10,"bytes":null,"top_logprobs":[]}]}}`))
	want := opening + `"choices":[{"index":0,"delta":{"role":"assistant","content":"x"},"logprobs":{"content":[{"token":"x","logprob":-0.10,"bytes":null,"top_logprobs":[]}]},"finish_reason":null}]}` + "\n\n"
	if string(got) != want || err != nil {
		t.Errorf("got %v\n%swant\n%s", err, got, want)
	}
}

func TestTheRoleIsToldOnceAChoice(t *testing.T) {
	c := chunks(false)
	var b []byte
	for _, data := range []string{
		`{"index":1,"content":"a"}`, `{"index":0,"content":"b"}`, `{"index":1,"content":"c"}`, `{"index":127,"content":"d"}`, `{"index":127,"content":"e"}`,
	} {
		var err error
		if b, err = c.AppendDelta(b, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(string(b), `"role":"assistant"`); n != 3 {
		t.Errorf("the role is told %d times of 3 choices:\n%s", n, b)
	}
	c.Begin("") // another attempt
	b, _ = c.AppendDelta(nil, []byte(`{"index":1,"content":"a"}`))
	if !strings.Contains(string(b), `"role"`) {
		t.Errorf("a new attempt does not tell it again: %s", b)
	}
}

func TestWhatIsNoDeltaIsAnErrorAndNoChunk(t *testing.T) {
	for _, data := range []string{
		``, `{`, `[]`, `{"index":128,"content":"x"}`, `{"index":-1,"content":"x"}`, `{"index":0,"content":"x"`, `{"index":0,"content":"x}`,
		`{"index":0,"content":"x\"}`, `{"index":,"content":"x"}`, `{"index":0,"content":"x"} {}`, `{"index":9999,"content":"x"}`,
	} {
		if got, err := chunks(false).AppendDelta(nil, []byte(data)); err == nil || len(got) > 0 {
			t.Errorf("%s became %s", data, got)
		}
	}
}

func TestTheEndHasAFinishReasonForEachChoiceThenUsageThenDone(t *testing.T) {
	end := &event.Completed{
		Model: "m", Choices: []event.Choice{{FinishReason: "length"}, {Index: 2, FinishReason: "tool_calls"}, {Index: 2, FinishReason: "stop"}, {Index: 500}},
		Usage: &event.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3, PromptTokensDetails: jsontext.Value(`{ "cached_tokens": 1 }`)},
	}
	finish := func(rest string) string { return opening + `"choices":[{` + rest + "}]}\n\n" }
	body := finish(`"index":0,"delta":{},"finish_reason":"length"`) +
		finish(`"index":2,"delta":{"role":"assistant","content":""},"finish_reason":"tool_calls"`) + // without a word before
		finish(`"index":1,"delta":{},"finish_reason":"stop"`) // of which the provider told no end
	usage := opening + `"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}}` + "\n\n"
	for _, asked := range []bool{false, true} {
		c := chunks(asked)
		for _, data := range []string{`{"index":0,"content":"a"}`, `{"index":1,"content":"b"}`} {
			if _, err := c.AppendDelta(nil, []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		want := body + "data: [DONE]\n\n"
		if asked {
			want = body + usage + "data: [DONE]\n\n"
		}
		if got := string(c.AppendEnd(nil, end)); got != want {
			t.Errorf("usage asked for: %v; got\n%swant\n%s", asked, got, want)
		}
	}
	if got := string(chunks(true).AppendEnd(nil, &event.Completed{})); got != "data: [DONE]\n\n" {
		t.Errorf("without choices and usage it ends in %s", got)
	}
}

// TestNoChunkHasAFieldError: openai-go tests that it exists, the AI SDK that it
// is in the chunk.
func TestNoChunkHasAFieldError(t *testing.T) {
	c := chunks(true)
	b, err := c.AppendDelta(nil, []byte(`{"index":0,"content":"error","error":null}`))
	if err != nil {
		t.Fatal(err)
	}
	b = c.AppendEnd(b, &event.Completed{Choices: []event.Choice{{FinishReason: "stop"}}, Usage: &event.Usage{}})
	for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n\n"), "\n\n") {
		if line == "data: [DONE]" {
			continue
		}
		var chunk map[string]jsontext.Value
		if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &chunk); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if _, ok := chunk["error"]; ok {
			t.Errorf("%s has a field error", line)
		}
	}
}

func TestAFailureInTheMiddleIsTheErrorShape(t *testing.T) {
	got := string(AppendError(nil, fault.New(fault.AttemptSuperseded, "void\nall of it")))
	want := `data: {"error":{"message":"void\nall of it","type":"server_error","param":null,"code":"attempt_superseded"}}` + "\n\n"
	if got != want {
		t.Errorf("got %swant %s", got, want)
	}
}

func BenchmarkAppendDelta(b *testing.B) {
	for name, data := range map[string]string{
		"text":       `{"index":0,"content":" harbour"}`,
		"escapes":    `{"index":0,"content":"line \"one\"\nline two\n"}`,
		"tool calls": `{"index":0,"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}`,
	} {
		b.Run(name, func(b *testing.B) {
			c, buf, raw := chunks(false), make([]byte, 0, 1024), []byte(data)
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if buf, err = c.AppendDelta(buf[:0], raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestTextCostsNoAllocation(t *testing.T) {
	c, buf, raw := chunks(false), make([]byte, 0, 1024), []byte(`{"index":0,"content":"a \"word\""}`)
	if n := testing.AllocsPerRun(100, func() { buf, _ = c.AppendDelta(buf[:0], raw) }); n > 0 {
		t.Errorf("a delta of text costs %v allocations", n)
	}
}

// FuzzAppendDelta holds the quick way for a delta to the decoder's answer.
func FuzzAppendDelta(f *testing.F) {
	for _, s := range []string{`{"index":0,"content":"x"}`, `{"index":12,"content":"a\"}"}`, `{"index":0,"content":"x","refusal":"y"}`, `{"index":01,"content":"x"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		index, content, ok := scanText(data)
		if !jsontext.Value(data).IsValid() || !ok {
			return // what stands on the topic was written by the processors, and is JSON
		}
		want, err := readDelta(data)
		if err != nil {
			t.Fatalf("%s: scanned as %d %s, and is none: %v", data, index, content, err)
		}
		if index != want.Index || string(content) != string(want.Content) {
			t.Fatalf("%s: scanned as %d %s", data, index, content)
		}
	})
}
