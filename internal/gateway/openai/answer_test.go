package openai

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
)

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAnAnswerHasAllThatWasSaid(t *testing.T) {
	output := []event.OutputChoice{
		{Message: event.Message{Role: "assistant", Content: "Hi", Reasoning: "hm"}, FinishReason: "stop", Logprobs: jsontext.Value(`{"content":[]}`)},
		{Index: 1, Message: event.Message{Role: "assistant", ToolCalls: jsontext.Value(`[{"id":"c"}]`)}, FinishReason: "tool_calls"},
		{Index: 2, Message: event.Message{Role: "assistant", Refusal: "no"}, FinishReason: "stop"},
		{Index: 3, Message: event.Message{Role: "assistant"}},
	}
	end := &event.Completed{Model: "m", Usage: &event.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3, CompletionTokensDetails: jsontext.Value(`{"reasoning_tokens":1}`)}}
	want := `{"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m","choices":[` +
		`{"index":0,"message":{"role":"assistant","content":"Hi","reasoning_content":"hm","refusal":null},"logprobs":{"content":[]},"finish_reason":"stop"},` +
		`{"index":1,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c"}]},"logprobs":null,"finish_reason":"tool_calls"},` +
		`{"index":2,"message":{"role":"assistant","content":null,"refusal":"no"},"logprobs":null,"finish_reason":"stop"},` +
		`{"index":3,"message":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"completion_tokens_details":{"reasoning_tokens":1}}}`
	if got := encode(t, NewCompletion("chatcmpl-1", time.Unix(7, 0), end, output)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEmbeddingsAreAnsweredAsTheyCame(t *testing.T) {
	output := []event.OutputChoice{{Embedding: jsontext.Value(`[0.5,-1e-7]`)}, {Index: 1, Embedding: jsontext.Value(`"AACAPw=="`)}, {Index: 2}}
	end := &event.Completed{Model: "m", Usage: &event.Usage{PromptTokens: 4, TotalTokens: 4}}
	want := `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1e-7]},{"object":"embedding","index":1,"embedding":"AACAPw=="}],` +
		`"model":"m","usage":{"prompt_tokens":4,"total_tokens":4}}`
	if got := encode(t, NewEmbeddings(end, output)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAModelIsAsTheAPIListsIt(t *testing.T) {
	if got, want := encode(t, NewModel("fast", "openai")), `{"id":"fast","object":"model","created":0,"owned_by":"openai"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
