package openai_test

import (
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
	"github.com/penstock-io/penstock/internal/llm/openai"
)

func TestStreamsAreReadAsServersWriteThem(t *testing.T) {
	lines := func(s ...string) script { return raw(strings.Join(s, "")) }
	for name, c := range map[string]struct {
		play script
		want string
	}{
		"carriage returns":       {lines("data: "+delta("a")+"\r\n\r\n", "data: "+finish+"\r\n\r\ndata: [DONE]\r\n\r\n"), "a"},
		"no space":               {lines("data:"+delta("a")+"\n\n", "data:"+finish+"\n\ndata:[DONE]\n\n"), "a"},
		"comments and fields":    {lines(": ping\n\n", "event: message\nid: 1\nretry: 5\ndata: "+delta("a")+"\n\n", "event: x\n\n", "data: "+finish+"\n\n"), "a"},
		"an event of two lines":  {lines("data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n"), "a"},
		"no [DONE]":              {lines("data: "+delta("a")+"\n\n", "data: "+finish+"\n\n"), "a"},
		"no last empty line":     {lines("data: "+delta("a")+"\n\n", "data: "+finish+"\n"), "a"},
		"[DONE] in half a line":  {lines("data: "+delta("a")+"\n\n", "data: "+finish+"\n\ndata: [DONE]"), "a"},
		"no finish reason":       {stream(delta("a")), "a"},
		"cut behind the finish":  {then(raw(sse(delta("a"), finish)...), breaks), "a"},
		"an error that is null":  {stream(`{"error":null,"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}`), "a"},
		"a name that is twice":   {stream(`{"id":1,"id":2,"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}`), "a"},
		"bytes that are no text": {stream("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\xff\"},\"finish_reason\":\"stop\"}]}"), "a\uFFFD"},
		"a long event":           {stream(delta(strings.Repeat("é", 100_000)), finish), strings.Repeat("é", 100_000)},
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, map[string]script{"m": c.play}).provider(t, openai.Config{})
			chunks, err := llmtest.Listen(t, p, request("m"))
			if err != nil {
				t.Fatal(err)
			}
			if got := content(chunks); got != c.want {
				t.Errorf("it said %.80q, want %.80q", got, c.want)
			}
			if last := chunks[len(chunks)-1]; last.FinishReason != "stop" {
				t.Errorf("the last chunk is %+v", last)
			}
		})
	}
}

func TestAStreamThatGoesWrongIsAFault(t *testing.T) {
	for name, c := range map[string]struct {
		play script
		code fault.Code
		says string
		said string // before it
	}{
		"ended early":             {raw(sse(delta("a"))...), fault.ProviderError, "broke off", "a"},
		"cut off":                 {then(raw(sse(delta("a"))...), breaks), fault.ProviderError, "broke off", "a"},
		"cut off in a line":       {then(raw("data: "+delta("a")+"\n\ndata: {\"choices\":[{\"ind"), breaks), fault.ProviderError, "broke off", "a"},
		"ended in a line":         {raw("data: " + delta("a") + "\n\ndata: {\"choices\":[{\"ind"), fault.ProviderError, "broke off", "a"},
		"one choice of two ended": {raw(sse(delta("a"), `{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"stop"}]}`)...), fault.ProviderError, "broke off", "ab"},
		"no stream":               {refuse(200, nil, `{"choices":[{"message":{"content":"a"}}]}`), fault.ProviderError, `answered with "application/json" in place`, ""},
		"nothing":                 {raw(), fault.ProviderError, "in place of a stream", ""},
		"[DONE] alone":            {stream(), fault.ProviderError, "without an answer", ""},
		"no JSON":                 {stream(delta("a"), `{"choices":[}`), fault.ProviderError, "no chunk", "a"},
		"another shape":           {stream(`{"choices":[{"delta":{"content":["a"]}}]}`), fault.ProviderError, "no chunk", ""},
		"a choice below 0":        {stream(`{"choices":[{"index":-1,"delta":{"content":"a"}}]}`), fault.ProviderError, "choice -1", ""},
		"a choice far away":       {stream(`{"choices":[{"index":1000000000,"delta":{"content":"a"}}]}`), fault.ProviderError, "choice 1000000000", ""},
		"a tool call not to keep": {stream(`{"choices":[{"index":0,"delta":{"tool_calls":[{"a":1,"a":2}]}}]}`), fault.ProviderError, "twice", ""},
		"logprobs not to keep":    {stream(`{"choices":[{"index":0,"delta":{},"logprobs":{"a":1,"a":2}}]}`), fault.ProviderError, "twice", ""},
		"an event of many lines":  {raw(strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 5) + "\n"), fault.ProviderError, "more than", ""},

		"an error":              {stream(delta("a"), `{"error":{"message":"the card is hot","type":"server_error","code":null}}`), fault.ProviderError, "middle of its answer: the card is hot", "a"},
		"an error that is text": {stream(`{"error":"the card is hot"}`), fault.ProviderError, ": the card is hot", ""},
		"an error with status":  {stream(delta("a"), `{"error":{"message":"slow down","code":429},"choices":[{"index":0,"delta":{"content":"x"}}]}`), fault.RateLimited, "status 429: slow down", "a"},
		"with status as text":   {stream(`{"error":{"message":"too long","code":"400"}}`), fault.ProviderRejected, "too long", ""},
		"a rate limit":          {stream(`{"error":{"message":"slow down","code":"rate_limit_exceeded"}}`), fault.RateLimited, "slow down", ""},
		"a rate limit by type":  {stream(`{"error":{"message":"slow down","type":"rate_limit_error"}}`), fault.RateLimited, "slow down", ""},
		"a spent budget":        {stream(`{"error":{"message":"pay","code":"insufficient_quota"}}`), fault.RateLimited, "pay", ""},
		"a wrong request":       {stream(`{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}`), fault.ProviderRejected, "too long", ""},
		"an error's event":      {raw("event: error\ndata: {\"message\":\"hot\"}\n\n"), fault.ProviderError, ": hot", ""},
		"an event of no JSON":   {raw("event: error\ndata: oh\n\n"), fault.ProviderError, "middle of its answer", ""},
		"an event with error":   {raw("event: error\ndata: {\"error\":{\"message\":\"hot\"}}\n\n"), fault.ProviderError, ": hot", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, map[string]script{"m": c.play}).provider(t, openai.Config{})
			chunks, err := faulty(t, p, request("m"))
			if err.Code != c.code || !strings.Contains(err.Message, c.says) {
				t.Errorf("it ended with %v, want %s: …%s…", err, c.code, c.says)
			}
			if got := content(chunks); got != c.said {
				t.Errorf("it said %q before, want %q", got, c.said)
			}
		})
	}
}

// However the network cuts a stream up, it says the same.
func TestPiecesDoNotMatter(t *testing.T) {
	whole := strings.Join(append(sse(role, delta("one"), delta(" é"), delta(strings.Repeat("x", 9000)), finish, usage), "data: [DONE]\n\n"), "")
	want := "one é" + strings.Repeat("x", 9000)
	var pieces []string
	p := serve(t, map[string]script{"m": func(w http.ResponseWriter, r *http.Request) { raw(pieces...)(w, r) }}).provider(t, openai.Config{})
	rapid.Check(t, func(rt *rapid.T) {
		pieces = nil
		for rest := whole; rest != ""; {
			n := min(rapid.IntRange(1, 5000).Draw(rt, "piece"), len(rest))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		chunks, err := llmtest.Listen(t, p, request("m"))
		if err != nil || content(chunks) != want || chunks[len(chunks)-1].Usage == nil {
			rt.Fatalf("it said %.40q, %v", content(chunks), err)
		}
	})
}

// Wherever a stream is cut off before its finish, that is told, and nothing is
// made up.
func TestACutIsToldWhereverItIs(t *testing.T) {
	whole := strings.Join(sse(role, delta("one"), delta(" two")), "")
	cut := 0
	p := serve(t, map[string]script{"m": func(w http.ResponseWriter, r *http.Request) { raw(whole[:cut])(w, r); breaks(w, r) }}).provider(t, openai.Config{})
	for cut = range whole {
		chunks, err := faulty(t, p, request("m"))
		if err.Code != fault.ProviderError || !strings.HasPrefix("one two", content(chunks)) {
			t.Errorf("cut at %d it said %q, %v", cut, content(chunks), err)
		}
	}
}
