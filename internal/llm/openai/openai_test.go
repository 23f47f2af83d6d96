package openai_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
	"github.com/penstock-io/penstock/internal/llm/openai"
)

func TestConformance(t *testing.T) {
	scripts := map[string]script{
		"good": stream(role, delta("one"), delta(" two"), delta(" three"), finish, usage),
		"slow": then(raw(sse(role, delta("one"))...), stalls),
		"429":  refuse(429, map[string]string{"Retry-After": "7"}, `{"error":{"message":"slow down"}}`),
		"500":  refuse(500, nil, `<html>oops</html>`),
		"400":  refuse(400, nil, `{"error":{"message":"messages is missing","code":"x","param":null,"type":"invalid_request_error"}}`),
		"504":  refuse(504, nil, ``),
		"cut":  then(raw("data: "+delta("half")+"\n\ndata: {\"choi"), breaks),
		"junk": raw("data: {{{\n\n"),
	}
	var failing []llmtest.Failure
	for model, code := range map[string]fault.Code{
		"429": fault.RateLimited, "500": fault.ProviderError, "400": fault.ProviderRejected, "504": fault.ProviderTimeout,
		"cut": fault.ProviderError, "junk": fault.ProviderError, "none": fault.ModelNotFound,
	} {
		failing = append(failing, llmtest.Failure{Name: model, Request: request(model), Code: code})
	}
	llmtest.Run(t, func(t *testing.T) llm.Provider {
		t.Helper()
		return serve(t, scripts).provider(t, openai.Config{})
	}, llmtest.Options{
		Request: request("good"), Slow: request("slow"), Failing: failing,
		Settle: func(p llm.Provider) { p.(*openai.Provider).Close() },
	})
}

func TestAChunkIsMappedWhole(t *testing.T) {
	const call = `[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]`
	p := serve(t, map[string]script{"m": stream(
		`{"choices":[{"index":0,"delta":{"role":"assistant","reasoning":"hm","reasoning_content":"hm"}},{"index":1,"delta":{"content":"second"}}],"error":null}`,
		`{"choices":[{"index":0,"delta":{"reasoning_content":" so\n","reasoning":null,"tool_calls":null}}]}`,
		`{"choices":[{"index":0,"delta":{"content":"é\u0000","tool_calls":[]},"logprobs":{"content":[{"token":"é","logprob":-0.10}]}}]}`,
		`{"choices":[{"index":0,"delta":{"content":null,"tool_calls":`+call+`}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`,
		`{"choices":[{"index":0,"delta":{"refusal":"no","reasoning":{"odd":1}},"finish_reason":""}]}`,
		`{"choices":[{"index":1,"delta":{"content":"!"},"finish_reason":"length"}]}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":5}}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`,
	)}).provider(t, openai.Config{})
	got, err := llmtest.Listen(t, p, request("m"))
	if err != nil {
		t.Fatal(err)
	}
	want := []llm.Chunk{
		{Reasoning: "hm"},
		{Index: 1, Content: "second"},
		{Reasoning: " so\n"},
		{Content: "é\x00", Logprobs: []byte(`{"content":[{"token":"é","logprob":-0.10}]}`)},
		{ToolCalls: []byte(call)},
		{Refusal: "no"},
		{Index: 1, Content: "!", FinishReason: "length"},
		{FinishReason: "tool_calls"},
		{Usage: &llm.Usage{PromptTokens: 1, CompletionTokens: 5, TotalTokens: 6}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTheClientsBodyGoesOutAsItCame(t *testing.T) {
	f := serve(t, map[string]script{"m": stream(delta("x"), finish)})
	p := f.provider(t, openai.Config{Name: "mine", Key: "k1"})
	for body, want := range map[string]string{
		`{"model":"a/b"}`: `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`,
		` { "seed" : 12345678901234567890 , "t":1.10, "mo\u0064el":"x", "model":"y", "stream":false,"u\u00e9":"\u00e9","n":2}  `: `{"seed":12345678901234567890,"t":1.10,"u\u00e9":"\u00e9","n":2,"model":"m","stream":true,"stream_options":{"include_usage":true}}`,
		`{"stream_options":{"include_usage":false,"include_obfuscation":false},"x":{"model":1, "a":[ 1 ]},"model":"m"}`:          `{"x":{"model":1, "a":[ 1 ]},"model":"m","stream":true,"stream_options":{"include_obfuscation":false,"include_usage":true}}`,
		`{"n":1.0,"max_tokens":1e2,"top_logprobs":20e-1,"seed":-4.0,"temperature":1.0,"top_p":1e0,"dimensions":0.5}`:             `{"n":1,"max_tokens":100,"top_logprobs":2,"seed":-4,"temperature":1.0,"top_p":1e0,"dimensions":0.5,"model":"m","stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","stream_options":null,"odd":"a<b"}`:                                                                        `{"odd":"a<b","model":"m","stream":true,"stream_options":{"include_usage":true}}`,
	} {
		if _, err := llmtest.Listen(t, p, llm.Request{Model: "m", Body: []byte(body)}); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		got := f.Last(t)
		if got.Body != want {
			t.Errorf("%s went out as\n%s, want\n%s", body, got.Body, want)
		}
		if got.Header.Get("Content-Type") != "application/json" {
			t.Errorf("as %q", got.Header.Get("Content-Type"))
		}
	}
	if p.Name() != "mine" {
		t.Errorf("its name is %q", p.Name())
	}
}

func TestARequestThatCannotBeSentIsRefused(t *testing.T) {
	f := serve(t, nil)
	p := f.provider(t, openai.Config{})
	ok := `{"model":"m"}`
	for name, c := range map[string]struct {
		req  llm.Request
		code fault.Code
	}{
		"another endpoint": {llm.Request{Endpoint: "/v1/embeddings", Model: "m", Body: []byte(ok)}, fault.InvalidRequest},
		"no object":        {llm.Request{Model: "m", Body: []byte(`[]`)}, fault.InvalidJSON},
		"nothing":          {llm.Request{Model: "m", Body: []byte(``)}, fault.InvalidJSON},
		"half an object":   {llm.Request{Model: "m", Body: []byte(`{"a":1`)}, fault.InvalidJSON},
		"half a name":      {llm.Request{Model: "m", Body: []byte(`{"a`)}, fault.InvalidJSON},
		"no value":         {llm.Request{Model: "m", Body: []byte(`{"a":}`)}, fault.InvalidJSON},
		"more behind it":   {llm.Request{Model: "m", Body: []byte(`{} {}`)}, fault.InvalidJSON},
		"odd options":      {llm.Request{Model: "m", Body: []byte(`{"stream_options":5}`)}, fault.InvalidRequest},
		"odd model":        {llm.Request{Model: "\xff", Body: []byte(ok)}, fault.InvalidRequest},
	} {
		if chunks, err := faulty(t, p, c.req); err.Code != c.code || len(chunks) > 0 {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	if f.Count() > 0 {
		t.Error("the server was asked all the same")
	}
}

func TestOnlyTheGivenKeyIsShown(t *testing.T) {
	for name, value := range map[string]string{
		"OPENAI_API_KEY": "secret", "OPENAI_ORG_ID": "secret", "OPENAI_PROJECT_ID": "secret",
		"OPENAI_BASE_URL": "http://127.0.0.1:1/secret", "OPENAI_CUSTOM_HEADERS": "X-Secret: secret",
	} {
		t.Setenv(name, value)
	}
	f := serve(t, map[string]script{"m": stream(delta("x"), finish)})
	for key, want := range map[string]string{"": "", "k1": "Bearer k1"} {
		if _, err := llmtest.Listen(t, f.provider(t, openai.Config{Key: key}), request("m")); err != nil {
			t.Fatal(err)
		}
		got := f.Last(t)
		if auth := got.Header.Get("Authorization"); auth != want {
			t.Errorf("with key %q it showed %q", key, auth)
		}
		if id := got.Header.Get("X-Client-Request-Id"); id != "job_1-2" {
			t.Errorf("the request is named %q", id)
		}
		if all := fmt.Sprint(got.Header); strings.Contains(all, "secret") {
			t.Errorf("it sent what the environment holds: %s", all)
		}
	}
}

func TestTheAddressIsTakenAsTheSDKsTakeIt(t *testing.T) {
	f := serve(t, map[string]script{"m": stream(delta("x"), finish)})
	for suffix, want := range map[string]string{
		"": "/v1/chat/completions", "/": "/v1/chat/completions", "/v1": "/v1/chat/completions",
		"/v1/": "/v1/chat/completions", "/api/v3": "/api/v3/chat/completions",
	} {
		p, err := openai.New(openai.Config{BaseURL: f.URL + suffix})
		if err != nil {
			t.Fatal(err)
		}
		_, err = llmtest.Listen(t, p, request("m"))
		p.Close()
		if got := f.Last(t).Path; err != nil || got != want {
			t.Errorf("%q led to %s, %v; want %s", suffix, got, err, want)
		}
	}
	for _, bad := range []string{"", "127.0.0.1:80", "localhost", "ftp://h/v1", "http://", "http://h/v1?key=secret", "http://h/#x", "http://u:secret@h:x/"} {
		if _, err := openai.New(openai.Config{Name: "mine", BaseURL: bad}); err == nil || !strings.HasPrefix(err.Error(), "mine: ") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNothingIsRetriedAndConnectionsAreKept(t *testing.T) {
	f := serve(t, map[string]script{
		"m":   stream(delta("x"), finish, usage),
		"503": refuse(503, map[string]string{"x-should-retry": "true"}, `{}`),
	})
	p := f.provider(t, openai.Config{})
	if _, err := faulty(t, p, request("503")); err.Code != fault.ProviderError {
		t.Errorf("it ended with %v", err)
	}
	if f.Count() != 1 {
		t.Errorf("it was asked %d times", f.Count())
	}
	conns := map[string]bool{}
	for range 20 {
		if _, err := llmtest.Listen(t, p, request("m")); err != nil {
			t.Fatal(err)
		}
		conns[f.Last(t).Conn] = true
	}
	if len(conns) != 1 {
		t.Errorf("20 calls one after the other took %d connections", len(conns))
	}
}

func TestARefusalSaysWhyAndHowLongToWait(t *testing.T) {
	date := map[string]string{"Date": "Mon, 02 Nov 2026 10:00:00 GMT", "Retry-After": "Mon, 02 Nov 2026 10:00:30 GMT"}
	long := strings.Repeat("é", 1<<20)
	for name, c := range map[string]struct {
		play  script
		code  fault.Code
		says  string
		after time.Duration
	}{
		"seconds":        {refuse(429, map[string]string{"Retry-After": "7"}, `{"error":{"message":"slow down"}}`), fault.RateLimited, "status 429: slow down", 7 * time.Second},
		"milliseconds":   {refuse(429, map[string]string{"Retry-After": "7", "Retry-After-Ms": "1500.5"}, `{"error":"slow down"}`), fault.RateLimited, ": slow down", 1500500 * time.Microsecond},
		"a date":         {refuse(503, date, `{"message":"later"}`), fault.ProviderError, "status 503: later", 30 * time.Second},
		"a bad date":     {refuse(503, map[string]string{"Date": "x", "Retry-After": date["Retry-After"]}, ``), fault.ProviderError, "status 503", 0},
		"no time":        {refuse(503, map[string]string{"Retry-After": "soon"}, ``), fault.ProviderError, "", 0},
		"in the past":    {refuse(429, map[string]string{"Retry-After": "-1"}, ``), fault.RateLimited, "", 0},
		"no number":      {refuse(429, map[string]string{"Retry-After": "NaN"}, ``), fault.RateLimited, "", 0},
		"for ever":       {refuse(429, map[string]string{"Retry-After": "Inf"}, ``), fault.RateLimited, "", 24 * time.Hour},
		"FastAPI":        {refuse(422, nil, `{"detail":"field required"}`), fault.ProviderRejected, ": field required", 0},
		"a page":         {refuse(502, nil, `<html>secret</html>`), fault.ProviderError, "openai answered with status 502", 0},
		"the key":        {refuse(401, nil, `{"error":{"message":"wrong key sk-secret"}}`), fault.ProviderRejected, "key", 0},
		"no such model":  {refuse(404, nil, `{"error":{"message":"no such model","code":404}}`), fault.ModelNotFound, ": no such model", 0},
		"a long one":     {refuse(400, nil, `{"error":{"message":"x`+strings.Repeat("é", 2<<10)+`"}}`), fault.ProviderRejected, "é…", 0},
		"without an end": {refuse(400, nil, `{"error":{"message":"`+long+`"}}`), fault.ProviderRejected, "status 400", 0},
		"redirected":     {refuse(304, nil, ``), fault.ProviderError, "status 304", 0},
		"accepted":       {refuse(202, nil, `{"message":"queued"}`), fault.ProviderError, "status 202: queued", 0},
		"broken off":     {then(refuse(500, map[string]string{"Content-Length": "100"}, `{`), breaks), fault.ProviderError, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, map[string]script{"m": c.play}).provider(t, openai.Config{})
			_, err := faulty(t, p, request("m"))
			if err.Code != c.code || !strings.Contains(err.Message, c.says) || err.RetryAfter != c.after {
				t.Errorf("%v, after %s; want %s: …%s…, after %s", err, err.RetryAfter, c.code, c.says, c.after)
			}
			if strings.Contains(err.Message, "secret") || len(err.Message) > 2<<10 {
				t.Errorf("it says too much: %s", err.Message)
			}
		})
	}
}

func TestNobodyThereIsAFaultThatKeepsTheAddress(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	for url, want := range map[string]string{
		"http://" + l.Addr().String():     "connection refused",
		"http://no-such-host.invalid:123": "could not be reached",
	} {
		p, err := openai.New(openai.Config{BaseURL: url})
		if err != nil {
			t.Fatal(err)
		}
		_, got := faulty(t, p, request("m"))
		if got.Code != fault.ProviderError || !strings.Contains(got.Message, want) || strings.Contains(got.Message, l.Addr().String()) || strings.Contains(got.Message, "invalid") {
			t.Errorf("%s: %s, %s", url, got.Code, got.Message)
		}
	}
	gone := serve(t, map[string]script{"m": breaks}).provider(t, openai.Config{})
	if _, got := faulty(t, gone, request("m")); got.Code != fault.ProviderError {
		t.Errorf("a connection that breaks at once: %v", got)
	}
}

func TestADeadlineEndsACallThatStalls(t *testing.T) {
	f := serve(t, map[string]script{"late": then(raw(sse(delta("x"))...), stalls), "mute": stalls, "deaf": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }})
	p := f.provider(t, openai.Config{})
	for _, model := range []string{"late", "mute", "deaf"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		var last error
		for _, err := range p.Stream(ctx, request(model)) {
			last = err
		}
		cancel()
		if !errors.Is(last, context.DeadlineExceeded) || time.Since(began) > 20*time.Second {
			t.Errorf("%s: %v after %s", model, last, time.Since(began))
		}
	}
}

func TestAServerThatKeepsTheLineOpenBehindTheEndIsNotWaitedFor(t *testing.T) {
	p := serve(t, map[string]script{"m": then(stream(delta("x"), finish), stalls)}).provider(t, openai.Config{})
	began := time.Now()
	if chunks, err := llmtest.Listen(t, p, request("m")); err != nil || content(chunks) != "x" {
		t.Errorf("%+v, %v", chunks, err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAnEndlessLineIsNotHeld(t *testing.T) {
	sent := make(chan int, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n, piece := 0, strings.Repeat("x", 1<<20)
		_, _ = io.WriteString(w, "data: ")
		for range 100 {
			wrote, err := io.WriteString(w, piece)
			if n += wrote; err != nil {
				break
			}
		}
		sent <- n
	}))
	defer s.Close()
	p, err := openai.New(openai.Config{BaseURL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := faulty(t, p, request("m")); err.Code != fault.ProviderError || !strings.Contains(err.Message, "more than 4194304 bytes") {
		t.Errorf("it ended with %v", err)
	}
	if n := <-sent; n > 64<<20 {
		t.Errorf("it took %d bytes", n)
	}
}
