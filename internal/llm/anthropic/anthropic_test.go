package anthropic_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/anthropic"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
)

func TestConformance(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		stream(start, open, text("one"))(w, r)
		<-r.Context().Done()
	}
	scripts := map[string]script{
		"good": stream(start, open, ping, text("one"), text(" two"), text(" three"), shut, stop, done),
		"slow": slow,
		"529":  refuse(529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`),
		"429":  refuse(429, `{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}`),
		"400":  refuse(400, `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: 1 > 0"}}`),
	}
	failing := []llmtest.Failure{
		{Name: "no messages", Request: asking("good", `"messages":[]`), Code: fault.InvalidRequest},
		{Name: "embeddings", Request: llm.Request{Endpoint: llm.Embeddings, Model: "good", Body: []byte(`{"input":"x"}`)}, Code: fault.InvalidRequest},
	}
	for model, code := range map[string]fault.Code{
		"529": fault.ProviderError, "429": fault.RateLimited, "400": fault.ProviderRejected, "none": fault.ModelNotFound,
	} {
		failing = append(failing, llmtest.Failure{Name: model, Request: request(model), Code: code})
	}
	llmtest.Run(t, func(t *testing.T) llm.Provider {
		t.Helper()
		// Without Continue, of which the suite asks every prefix.
		return plain{serve(t, scripts).provider(t)}
	}, llmtest.Options{
		Request: request("good"), Slow: request("slow"), Failing: failing,
		Settle: func(p llm.Provider) { p.(plain).Provider.(*anthropic.Provider).Close() },
	})
}

// plain hides that a provider can continue.
type plain struct{ llm.Provider }

func TestServersThatMisbehave(t *testing.T) {
	llmtest.RunHostile(t, llmtest.Hostile{
		Open: func(t *testing.T, url string) llm.Provider {
			t.Helper()
			p, err := anthropic.New(anthropic.Config{BaseURL: url, Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			return p
		},
		Settle:  func(p llm.Provider) { p.(*anthropic.Provider).Close() },
		Request: request("m"),
		Begin:   sse(start, open),
		Text:    func(s string) string { return "data: " + text(s) + "\n\n" },
		Finish:  sse(shut, stop),
		Done:    sse(done),
		Line:    "data: ",
	})
}

func TestAnswersBecomeChoiceDeltas(t *testing.T) {
	events := []string{
		`{"type":"message_start","message":{"usage":{"input_tokens":10,"cache_creation_input_tokens":20,"cache_read_input_tokens":30,"output_tokens":1}}}`,
		`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"abc"}}`,
		`{"type":"content_block_stop","index":0}`,
		`{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"x"}}`,
		`{"type":"content_block_stop","index":1}`,
		`{"type":"content_block_start","index":2,"content_block":{"type":"text","text":"Let "}}`,
		`{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"me see\n"}}`,
		`{"type":"content_block_delta","index":2,"delta":{"type":"citations_delta","citation":{}}}`,
		`{"type":"content_block_stop","index":2}`,
		`{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_1","name":"weather","input":{}}}`,
		`{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":""}}`,
		`{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"city\": \"K"}}`,
		`{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"öln\"}"}}`,
		`{"type":"content_block_stop","index":3}`,
		`{"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"toolu_2","name":"now","input":{}}}`,
		`{"type":"content_block_stop","index":4}`,
		`{"type":"an_event_of_tomorrow","news":{"x":1}}`,
		`{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"input_tokens":null,"output_tokens":42,"output_tokens_details":{"thinking_tokens":7}}}`,
		done,
	}
	got, err := llmtest.Listen(t, serve(t, map[string]script{"m": stream(events...)}).provider(t), request("m"))
	if err != nil {
		t.Fatal(err)
	}
	want := []llm.Chunk{
		{Reasoning: "hm"},
		{Content: "Let "},
		{Content: "me see\n"},
		{ToolCalls: []byte(`[{"index":0,"id":"toolu_1","type":"function","function":{"name":"weather","arguments":""}}]`)},
		{ToolCalls: []byte(`[{"index":0,"function":{"arguments":"{\"city\": \"K"}}]`)},
		{ToolCalls: []byte(`[{"index":0,"function":{"arguments":"öln\"}"}}]`)},
		{ToolCalls: []byte(`[{"index":1,"id":"toolu_2","type":"function","function":{"name":"now","arguments":""}}]`)},
		{ToolCalls: []byte(`[{"index":1,"function":{"arguments":"{}"}}]`)},
		{FinishReason: "tool_calls"},
		{Usage: &llm.Usage{
			PromptTokens: 60, CompletionTokens: 42, TotalTokens: 102,
			PromptTokensDetails:     []byte(`{"cached_tokens":30,"cache_creation_tokens":20}`),
			CompletionTokensDetails: []byte(`{"reasoning_tokens":7}`),
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestReasonsToStop(t *testing.T) {
	for reason, want := range map[string]string{
		"end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "of_tomorrow": "stop",
		"max_tokens": "length", "model_context_window_exceeded": "length", "tool_use": "tool_calls", "refusal": "content_filter",
	} {
		p := serve(t, map[string]script{"m": stream(start, open, text("a"), shut, strings.Replace(stop, "end_turn", reason, 1), text("behind the end"), done)}).provider(t)
		chunks, err := llmtest.Listen(t, p, request("m"))
		if err != nil || len(chunks) != 3 || chunks[1].FinishReason != want || chunks[2].Usage == nil {
			t.Errorf("%s: %+v, %v; want %s", reason, chunks, err, want)
		}
	}
	p := serve(t, map[string]script{"m": stream(`{"type":"message_start","message":{}}`, done)}).provider(t)
	if chunks, err := llmtest.Listen(t, p, request("m")); err != nil || len(chunks) != 1 || chunks[0].FinishReason != "stop" {
		t.Errorf("an end without a reason and without usage: %+v, %v", chunks, err)
	}
}

func TestAnErrorInTheMiddleHasItsStatussCode(t *testing.T) {
	for kind, want := range map[string]fault.Code{
		"overloaded_error": fault.ProviderError, "api_error": fault.ProviderError, "of_tomorrow": fault.ProviderError,
		"rate_limit_error": fault.RateLimited, "timeout_error": fault.ProviderTimeout, "not_found_error": fault.ModelNotFound,
		"invalid_request_error": fault.ProviderRejected, "authentication_error": fault.ProviderRejected,
		"billing_error": fault.ProviderRejected, "permission_error": fault.ProviderRejected, "request_too_large": fault.ProviderRejected,
	} {
		p := serve(t, map[string]script{"m": stream(start, open, text("a"), `{"type":"error","error":{"type":"`+kind+`","message":"secret or not"}}`)}).provider(t)
		err := faulty(t, p, request("m"))
		if err.Code != want || strings.Contains(err.Message, "secret") == (kind == "authentication_error") {
			t.Errorf("%s: %v, want %s", kind, err, want)
		}
	}
	for _, data := range []string{`{"type":"error"}`, `oh`, `{"message":"oh"}`} {
		p := serve(t, map[string]script{"m": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, "event: error\ndata: %s\n\n", data)
		}}).provider(t)
		if err := faulty(t, p, request("m")); err.Code != fault.ProviderError || !strings.Contains(err.Message, "middle of its answer") {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func TestAnEventOfAnotherShapeIsAFault(t *testing.T) {
	p := serve(t, map[string]script{"m": stream(start, `{"type":"content_block_stop","index":{}}`)}).provider(t)
	if err := faulty(t, p, request("m")); err.Code != fault.ProviderError || !strings.Contains(err.Message, "no part of an answer") {
		t.Error(err)
	}
}

func TestToolCallsWithoutEndAreNotKept(t *testing.T) {
	events := []string{start}
	for i := range 200 {
		events = append(events, fmt.Sprintf(`{"type":"content_block_start","index":%d,"content_block":{"type":"tool_use","id":"t","name":"n"}}`, i))
	}
	p := serve(t, map[string]script{"m": stream(events...)}).provider(t)
	if err := faulty(t, p, request("m")); !strings.Contains(err.Message, "more than 128 tool calls") {
		t.Error(err)
	}
}

func TestOnlyTheGivenKeyIsShownAndNothingIsRetried(t *testing.T) {
	for name, value := range map[string]string{
		"ANTHROPIC_API_KEY": "secret", "ANTHROPIC_AUTH_TOKEN": "secret", "ANTHROPIC_CUSTOM_HEADERS": "X-Secret: secret",
		"ANTHROPIC_BASE_URL": "http://127.0.0.1:1/secret",
	} {
		t.Setenv(name, value)
	}
	f := serve(t, map[string]script{"m": stream(start, open, text("a"), shut, stop, done), "529": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3")
		refuse(529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`)(w, r)
	}})
	p := f.provider(t)
	if _, err := llmtest.Listen(t, p, request("m")); err != nil {
		t.Fatal(err)
	}
	got := f.Last(t)
	if got.Path != "/v1/messages" || got.Header.Get("X-Api-Key") != "k1" || got.Header.Get("Anthropic-Version") != "2023-06-01" {
		t.Errorf("%s with %v", got.Path, got.Header)
	}
	if all := fmt.Sprint(got.Header); strings.Contains(all, "secret") {
		t.Errorf("it sent what the environment holds: %s", all)
	}
	before := f.Count()
	if err := faulty(t, p, request("529")); err.Code != fault.ProviderError || err.RetryAfter != 3*time.Second || !strings.HasSuffix(err.Message, "status 529: Overloaded") {
		t.Errorf("%v after %s", err, err.RetryAfter)
	}
	if n := f.Count() - before; n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	if p.Name() != "anthropic" {
		t.Error(p.Name())
	}
	for _, bad := range []string{"api.anthropic.com", "ftp://h", "http://h?key=secret"} {
		if _, err := anthropic.New(anthropic.Config{BaseURL: bad}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := anthropic.New(anthropic.Config{}); err != nil {
		t.Error(err)
	}
}
