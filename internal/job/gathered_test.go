package job

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
)

func TestLogprobsAreGatheredTokenByToken(t *testing.T) {
	var tr Transcript
	apply(t, &tr,
		out(event.OutputDelta, 1, 0, event.Delta{Content: "a", Logprobs: []byte(`{"content":[{"token":"a","logprob":-0.10,"bytes":null,"top_logprobs":[]}],"refusal":null}`)}),
		out(event.OutputDelta, 1, 1, event.Delta{Content: "b", Logprobs: []byte(`{"content":[{"token":"b","logprob":-1e2}]}`)}),
		out(event.OutputDelta, 1, 2, event.Delta{Refusal: "no", Logprobs: []byte(`{"refusal":[{"token":"no"}],"other":1}`)}),
		out(event.OutputDelta, 1, 3, event.Delta{Index: 1, Content: "c"}),
		out(event.OutputCompleted, 1, 4, event.Completed{Choices: []event.Choice{{Index: 0, FinishReason: "stop"}, {Index: 1, FinishReason: "length"}}}),
	)
	want := []event.OutputChoice{
		{
			Message: event.Message{Role: "assistant", Content: "ab", Refusal: "no"}, FinishReason: "stop",
			Logprobs: []byte(`{"content":[{"token":"a","logprob":-0.10,"bytes":null,"top_logprobs":[]},{"token":"b","logprob":-1e2}],"refusal":[{"token":"no"}]}`),
		},
		{Index: 1, Message: event.Message{Role: "assistant", Content: "c"}, FinishReason: "length"},
	}
	if diff := cmp.Diff(want, tr.Output()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, bad := range []string{`{"content":7}`, `[]`} {
		if err := (&Transcript{}).Say(&event.Delta{Logprobs: []byte(bad)}); err == nil || !strings.HasPrefix(err.Error(), "logprobs: ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := (&Transcript{}).Say(&event.Delta{Logprobs: []byte(`null`)}); err != nil {
		t.Errorf("null: %v", err)
	}
}

func TestAnEmbeddingsJobIsItsVectors(t *testing.T) {
	var tr Transcript
	apply(t, &tr,
		out(event.OutputStarted, 1, 0, event.Started{Model: "m", Provider: "p"}),
		out(event.OutputDelta, 1, 1, event.Delta{Index: 1, Embedding: []byte(`"AACAPw=="`)}),
		out(event.OutputDelta, 1, 2, event.Delta{Embedding: []byte(`[0.5,-1e-3]`)}),
	)
	if tr.PlainText() {
		t.Error("vectors are taken for a text to go on from")
	}
	if got := tr.Bytes(); got != 21 {
		t.Errorf("it takes %d bytes", got)
	}
	apply(t, &tr, out(event.OutputCompleted, 1, 3, event.Completed{Model: "m", Usage: &event.Usage{PromptTokens: 2, TotalTokens: 2, PromptTokensDetails: []byte(`{"cached_tokens":1}`)}}))
	kind, data := tr.Fact()
	want := `{"model":"m","output":[{"index":0,"embedding":[0.5,-1e-3]},{"index":1,"embedding":"AACAPw=="}],` +
		`"usage":{"prompt_tokens":2,"completion_tokens":0,"total_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}`
	if diff := cmp.Diff(want, string(data)); diff != "" || kind != event.JobCompleted {
		t.Errorf("%s (-want +got)\n%s", kind, diff)
	}
	var back event.Fact
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tr.Output(), back.Output); diff != "" {
		t.Errorf("read again (-want +got)\n%s", diff)
	}
}

func TestAnAttemptsVectorsGoWithIt(t *testing.T) {
	var tr Transcript
	apply(t, &tr,
		out(event.OutputDelta, 1, 0, event.Delta{Index: 2047, Embedding: []byte(`[1]`)}),
		out(event.OutputSuperseded, 1, 1, event.Superseded{Reason: "lost"}),
		out(event.OutputDelta, 2, 2, event.Delta{Embedding: []byte(`[2]`)}),
	)
	if diff := cmp.Diff([]event.OutputChoice{{Embedding: []byte(`[2]`)}}, tr.Output()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWhatCannotBeAVectorIsRefused(t *testing.T) {
	for name, d := range map[string]event.Delta{
		"index: 2048 is no input: it must be 0 to 2047":                   {Index: 2048, Embedding: []byte(`[1]`)},
		"index: -1 is no input: it must be 0 to 2047":                     {Index: -1, Embedding: []byte(`[1]`)},
		"embedding: a vector must be an array of numbers, or base64 text": {Embedding: []byte(`{}`)},
		"index: 128 is no choice: it must be 0 to 127":                    {Index: 128, Content: "x"},
	} {
		if err := (&Transcript{}).Say(&d); err == nil || err.Error() != name {
			t.Errorf("%v, want %s", err, name)
		}
	}
}
