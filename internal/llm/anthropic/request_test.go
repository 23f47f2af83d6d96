package anthropic_test

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
)

// canonical makes JSON comparable.
func canonical(t *testing.T, raw string) string {
	t.Helper()
	v := jsontext.Value(raw)
	if err := v.Canonicalize(); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	_ = v.Indent()
	return string(v)
}

// said is a body of Messages, of which what every request has may be left out.
func said(rest string) string {
	out := "{" + rest
	for _, field := range []string{`"max_tokens":`, `"messages":`, `"stream":`, `"model":`} {
		if strings.Contains(rest, field) {
			continue
		}
		value := map[string]string{
			`"max_tokens":`: "8192", `"stream":`: "true", `"model":`: `"m"`,
			`"messages":`: `[{"role":"user","content":[{"type":"text","text":"hi"}]}]`,
		}[field]
		if out != "{" {
			out += ","
		}
		out += field + value
	}
	return out + "}"
}

func TestChatCompletionsAreSaidInMessages(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	f := serve(t, map[string]script{"m": stream(start, open, text("a"), shut, stop, done)})
	p := f.provider(t)
	for name, c := range map[string][2]string{
		"a greeting":               {hi, ``},
		"max_tokens":               {hi + `,"max_tokens":5`, `"max_tokens":5`},
		"max_completion_tokens":    {hi + `,"max_completion_tokens":20000`, `"max_tokens":20000`},
		"numbers in any form":      {hi + `,"max_tokens":5e2,"max_completion_tokens":50.0,"top_k":4.0e1,"n":1.0,"top_logprobs":0.0`, `"max_tokens":50,"top_k":40`},
		"the smaller limit":        {hi + `,"max_tokens":7,"max_completion_tokens":6`, `"max_tokens":6`},
		"the knobs":                {hi + `,"temperature":0.5,"top_p":0.25,"top_k":40,"stop":"x"`, `"temperature":0.5,"top_p":0.25,"top_k":40,"stop_sequences":["x"]`},
		"many stops":               {hi + `,"stop":["x","y"],"temperature":0`, `"stop_sequences":["x","y"],"temperature":0`},
		"knobs without a likeness": {hi + `,"frequency_penalty":1,"presence_penalty":1,"logit_bias":{"1":2},"seed":4,"store":true,"stream":false,"stream_options":{},"service_tier":"flex","verbosity":"low","penstock":{},"n":1,"logprobs":false,"top_logprobs":0,"modalities":["text"],"audio":null,"stop":null,"tool_choice":null,"metadata":{"a":"b"}`, ``},
		"who asks":                 {hi + `,"user":"u1"`, `"metadata":{"user_id":"u1"}`},
		"who asks, twice":          {hi + `,"user":"u1","safety_identifier":"s1"`, `"metadata":{"user_id":"s1"}`},
		"who asks, by metadata":    {hi + `,"metadata":{"user_id":"u2"}`, `"metadata":{"user_id":"u2"}`},
		"effort":                   {hi + `,"reasoning_effort":"high"`, `"output_config":{"effort":"high"}`},
		"no reasoning":             {hi + `,"reasoning_effort":"none"`, `"thinking":{"type":"disabled"}`},
		"thinking":                 {hi + `,"thinking":{"type":"enabled","budget_tokens":2048}`, `"thinking":{"type":"enabled","budget_tokens":2048}`},
		"a form":                   {hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object","properties":{"b":{},"a":{}}}}}`, `"output_config":{"format":{"type":"json_schema","schema":{"type":"object","properties":{"b":{},"a":{}}}}}`},
		"no form":                  {hi + `,"response_format":{"type":"text"}`, ``},
		"a cache for all":          {hi + `,"cache_control":{"type":"ephemeral","ttl":"1h"}`, `"cache_control":{"type":"ephemeral","ttl":"1h"}`},
		"systems": {
			`"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"},{"role":"developer","content":[{"type":"text","text":"be kind","cache_control":{"type":"ephemeral"}}]}]`,
			`"system":[{"type":"text","text":"be brief"},{"type":"text","text":"be kind","cache_control":{"type":"ephemeral"}}]`,
		},
		"parts": {
			`"messages":[{"role":"user","content":[{"type":"text","text":"what"},{"type":"text","text":""},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}},{"type":"image_url","image_url":{"url":"https://h/x.png"},"cache_control":{"type":"ephemeral"}},{"type":"file","file":{"file_data":"data:application/pdf;base64,BBBB","filename":"x.pdf"}}]}]`,
			`"messages":[{"role":"user","content":[{"type":"text","text":"what"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"image","source":{"type":"url","url":"https://h/x.png"},"cache_control":{"type":"ephemeral"}},{"type":"document","title":"x.pdf","source":{"type":"base64","media_type":"application/pdf","data":"BBBB"}}]}]`,
		},
		"a round of tools": {
			`"messages":[{"role":"user","content":"hi","cache_control":{"type":"ephemeral"}},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":""}}]},{"role":"tool","tool_call_id":"c1","content":"one"},{"role":"tool","tool_call_id":"c2","content":[{"type":"text","text":"two"}],"cache_control":{"type":"ephemeral"}},{"role":"user","content":"and?"},{"role":"tool","tool_call_id":"c3","content":""},{"role":"assistant","content":"well","refusal":"no"}]`,
			`"messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]},{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"f","input":{"a":1}},{"type":"tool_use","id":"c2","name":"g","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"one"}]},{"type":"tool_result","tool_use_id":"c2","content":[{"type":"text","text":"two"}],"cache_control":{"type":"ephemeral"}}]},{"role":"user","content":[{"type":"text","text":"and?"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c3"}]},{"role":"assistant","content":[{"type":"text","text":"well"},{"type":"text","text":"no"}]}]`,
		},
		"tools": {
			hi + `,"tools":[{"type":"function","function":{"name":"f","description":"does f","strict":true,"parameters":{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"number"}},"required":["z"]}}},{"type":"function","function":{"name":"g"},"cache_control":{"type":"ephemeral"}},{"type":"function","function":{"name":"h","strict":false,"parameters":null,"cache_control":{"type":"ephemeral"}}}]`,
			`"tools":[{"name":"f","description":"does f","strict":true,"input_schema":{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"number"}},"required":["z"]}},{"name":"g","input_schema":{"type":"object","properties":{}},"cache_control":{"type":"ephemeral"}},{"name":"h","input_schema":{"type":"object","properties":{}},"cache_control":{"type":"ephemeral"}}]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := llmtest.Listen(t, p, asking("m", c[0])); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(canonical(t, said(c[1])), canonical(t, f.Last(t).Body)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestWhichToolIsToBeCalledIsSaidInMessages(t *testing.T) {
	f := serve(t, map[string]script{"m": stream(start, open, text("a"), shut, stop, done)})
	p := f.provider(t)
	const tools = `"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}]`
	for choice, want := range map[string]string{
		``:                             ``,
		`,"tool_choice":"auto"`:        ``,
		`,"tool_choice":"none"`:        `{"type":"none"}`,
		`,"tool_choice":"required"`:    `{"type":"any"}`,
		`,"parallel_tool_calls":false`: `{"type":"auto","disable_parallel_tool_use":true}`,
		`,"parallel_tool_calls":true`:  ``,
		`,"tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false`: `{"type":"tool","name":"f","disable_parallel_tool_use":true}`,
	} {
		if _, err := llmtest.Listen(t, p, asking("m", tools+choice)); err != nil {
			t.Fatal(err)
		}
		body := f.Last(t).Body
		_, rest, found := strings.Cut(body, `"tool_choice":`)
		var got string
		if found {
			got = rest[:strings.Index(rest, "}")+1]
		}
		if found != (want != "") || found && canonical(t, got) != canonical(t, want) {
			t.Errorf("%s went out as %s, want %s", choice, got, want)
		}
	}
}

// What has no likeness in Messages is refused, and its field named.
func TestWhatMessagesCannotSayIsRefusedByName(t *testing.T) {
	f := serve(t, nil)
	p := f.provider(t)
	message := func(m string) string { return `"messages":[{"role":"user","content":"hi"},` + m + `]` }
	part := func(p string) string {
		return message(`{"role":"user","content":[{"type":"text","text":"x"},` + p + `]}`)
	}
	const hi = `"messages":[{"role":"user","content":"hi"}],`
	for body, field := range map[string]string{
		`"messages":[]`: "messages", `"x":1`: "messages", `"messages":[{"role":"system","content":"x"}]`: "messages",
		`"messages":{}`: "messages", `"messages":[7]`: "messages[0]", hi + `"max_tokens":"x"`: "max_tokens",
		hi + `"max_tokens":0`: "max_tokens", hi + `"max_completion_tokens":-1`: "max_tokens",
		hi + `"n":2`: "n", hi + `"logprobs":true`: "logprobs", hi + `"top_logprobs":3`: "top_logprobs",
		hi + `"audio":{"voice":"x"}`: "audio", hi + `"modalities":["text","audio"]`: "modalities",
		hi + `"functions":[]`: "functions", hi + `"function_call":"auto"`: "function_call", hi + `"web_search_options":{}`: "web_search_options",
		hi + `"temperature":1.5`: "temperature", hi + `"temperature":-1`: "temperature",
		hi + `"reasoning_effort":"minimal"`: "reasoning_effort", hi + `"thinking":true`: "thinking", hi + `"cache_control":1`: "cache_control",
		hi + `"stop":7`: "stop", hi + `"stop":[7]`: "stop[0]",
		hi + `"response_format":{"type":"json_object"}`:                                                      "response_format",
		hi + `"response_format":{"type":"json_schema"}`:                                                      "response_format.json_schema.schema",
		hi + `"tools":[{"type":"custom","custom":{"name":"x"}}]`:                                             "tools[0].type",
		hi + `"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]`:                         "tools[0].function.parameters",
		hi + `"tools":[{"type":"function","function":{"name":"f"},"cache_control":"x"}]`:                     "tools[0].cache_control",
		hi + `"tool_choice":"some"`:                                                                          "tool_choice",
		hi + `"tool_choice":{"type":"allowed_tools"}`:                                                        "tool_choice",
		hi + `"tool_choice":{"type":"function"}`:                                                             "tool_choice.function.name",
		hi + `"tool_choice":{"type":7}`:                                                                      "tool_choice.type",
		message(`{"role":"function","content":"x"}`):                                                         "messages[1].role",
		message(`{"content":"x"}`):                                                                           "messages[1].role",
		message(`{"role":"user","content":""}`):                                                              "messages[1].content",
		message(`{"role":"assistant"}`):                                                                      "messages[1].content",
		message(`{"role":"user","content":7}`):                                                               "messages[1].content",
		message(`{"role":"user","content":[{"type":7}]}`):                                                    "messages[1].content[0].type",
		message(`{"role":"tool","content":"x"}`):                                                             "messages[1].tool_call_id",
		message(`{"role":"assistant","audio":{"id":"x"}}`):                                                   "messages[1].audio",
		message(`{"role":"assistant","function_call":{}}`):                                                   "messages[1].function_call",
		message(`{"role":"user","content":"x","cache_control":[]}`):                                          "messages[1].cache_control",
		message(`{"role":"system","content":[{"type":"image_url","image_url":{"url":"https://h/x"}}]}`):      "messages[1].content",
		message(`{"role":"assistant","tool_calls":[{"id":"c","type":"custom"}]}`):                            "messages[1].tool_calls[0].type",
		message(`{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"x"}}]}`):    "messages[1].tool_calls[0].function.arguments",
		message(`{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"a"}}]}`): "messages[1].tool_calls[0].function.arguments",
		part(`{"type":"input_audio","input_audio":{}}`):                                                      "messages[1].content[1].type",
		part(`{"type":"image_url","image_url":{"url":"file:///x"}}`):                                         "messages[1].content[1].image_url.url",
		part(`{"type":"image_url","image_url":{"url":"data:image/tiff;base64,AA"}}`):                         "messages[1].content[1].image_url.url",
		part(`{"type":"file","file":{"file_id":"file-1"}}`):                                                  "messages[1].content[1].file.file_data",
		part(`{"type":"text","text":"x","cache_control":7}`):                                                 "messages[1].content[1].cache_control",
	} {
		err := faulty(t, p, asking("m", body))
		if err.Code != fault.InvalidRequest || err.Param != field || !strings.HasPrefix(err.Message, field) {
			t.Errorf("%s: %s of %s: %s; want an invalid_request of %s", body, err.Code, err.Param, err.Message, field)
		}
	}
	for _, body := range []string{``, `[]`, `{`, `{"messages":`} {
		if err := faulty(t, p, llm.Request{Model: "m", Body: []byte(body)}); err.Code != fault.InvalidJSON {
			t.Errorf("%s: %v", body, err)
		}
	}
	if f.Count() > 0 {
		t.Error("the server was asked all the same")
	}
}

func TestItGoesOnWhereTheModelTakesItsOwnBeginning(t *testing.T) {
	f := serve(t, map[string]script{"claude-haiku-4-5-20251001": stream(start, open, text(" world"), shut, stop, done)})
	p := f.provider(t)
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	ask := func(model, rest string) llm.Request { return asking(model, hi+rest) }
	for name, c := range map[string]struct {
		req    llm.Request
		prefix llm.Prefix
		want   bool
	}{
		"a model that does":       {ask("claude-haiku-4-5", ""), llm.Prefix{Content: "Hello"}, true},
		"a dated one":             {ask("claude-sonnet-4-5-20250929", `,"response_format":{"type":"text"}`), llm.Prefix{Content: "Hello", Chunks: 3}, true},
		"a newer one":             {ask("claude-opus-4-6", ""), llm.Prefix{Content: "Hello"}, false},
		"one that begins alike":   {ask("claude-haiku-4-55", ""), llm.Prefix{Content: "Hello"}, false},
		"not begun":               {ask("claude-opus-5", `,"thinking":{"type":"adaptive"}`), llm.Prefix{}, true},
		"tool calls were lost":    {ask("claude-haiku-4-5", ""), llm.Prefix{Chunks: 2}, false},
		"thinking":                {ask("claude-haiku-4-5", ""), llm.Prefix{Reasoning: "hm", Content: "Hello"}, false},
		"thinking that was asked": {ask("claude-haiku-4-5", `,"thinking":{"type":"enabled","budget_tokens":1024}`), llm.Prefix{Content: "Hello"}, false},
		"effort":                  {ask("claude-opus-4-5", `,"reasoning_effort":"low"`), llm.Prefix{Content: "Hello"}, false},
		"white space at the end":  {ask("claude-haiku-4-5", ""), llm.Prefix{Content: "Hello\n"}, false},
		"a form":                  {ask("claude-haiku-4-5", `,"response_format":{"type":"json_schema"}`), llm.Prefix{Content: "{"}, false},
		"a tool that must be":     {ask("claude-haiku-4-5", `,"tool_choice":"required"`), llm.Prefix{Content: "Hello"}, false},
		"no JSON":                 {llm.Request{Model: "claude-haiku-4-5", Body: []byte(`{`)}, llm.Prefix{Content: "Hello"}, false},
		"another endpoint":        {llm.Request{Endpoint: llm.Embeddings, Model: "claude-haiku-4-5", Body: []byte(`{}`)}, llm.Prefix{}, false},
	} {
		if got := p.CanContinue(c.req, c.prefix); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	var got strings.Builder
	for c, err := range p.Continue(t.Context(), ask("claude-haiku-4-5-20251001", ""), llm.Prefix{Content: "Hello"}) {
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString(c.Content)
	}
	want := said(`"model":"claude-haiku-4-5-20251001","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]},{"role":"assistant","content":[{"type":"text","text":"Hello"}]}]`)
	if diff := cmp.Diff(canonical(t, want), canonical(t, f.Last(t).Body)); diff != "" || got.String() != " world" {
		t.Errorf("it went on with %q (-want +got)\n%s", got.String(), diff)
	}
}
