package event

import (
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// FuzzEncode holds what is written by hand to what the library writes.
func FuzzEncode(f *testing.F) {
	f.Add("sim", "hello", "stop", 3, true)
	f.Add("", "", "", 0, false)
	f.Add("a\"b", "\xff\u2028<&>\n\x7f\x01", "l\\", -1, true)
	f.Fuzz(func(t *testing.T, model, text, finish string, n int, counted bool) {
		var usage *Usage
		if counted {
			usage = &Usage{PromptTokens: n, CompletionTokens: n / 2, TotalTokens: 7}
		}
		detailed := &Usage{PromptTokensDetails: jsontext.Value(`{"cached":1}`)}
		message := Message{Role: "assistant", Content: text}
		for _, payload := range []any{
			Completed{Model: model, Usage: usage},
			Completed{Model: model, Choices: []Choice{{n, finish}, {1, text}}, Usage: usage},
			Completed{Model: model, Usage: detailed},
			Completed{Model: model, Deltas: []Delta{{Content: text}}},
			Fact{Model: model, Usage: usage},
			Fact{Model: model, Output: []OutputChoice{{Index: n, Message: message, FinishReason: finish}}, Usage: usage},
			Fact{Model: model, Output: []OutputChoice{{Message: message}, {Index: 1, Message: message}}},
			Fact{Model: model, Output: []OutputChoice{{Message: Message{Role: model, Content: text, Reasoning: finish}}}, Usage: detailed},
			Fact{Model: model, Output: []OutputChoice{{Embedding: jsontext.Value(`[1]`)}}},
		} {
			want, err := json.Marshal(payload, jsontext.AllowInvalidUTF8(true))
			if err != nil {
				t.Fatal(err)
			}
			if got := Encode(payload); string(got) != string(want) {
				t.Errorf("%+v\n got %s\nwant %s", payload, got, want)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	usage := &Usage{PromptTokens: 7, CompletionTokens: 1, TotalTokens: 8}
	for name, payload := range map[string]any{
		"completed": Completed{Model: "sim", Choices: []Choice{{0, "stop"}}, Usage: usage},
		"fact":      Fact{Model: "sim", Output: []OutputChoice{{Message: Message{Role: "assistant", Content: "hello"}, FinishReason: "stop"}}, Usage: usage},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Encode(payload)
			}
		})
	}
}
