package openai_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/openai"
)

// FuzzAnswer has a server answer with anything: the call ends, says nothing
// behind its error, and names what was wrong by a code of the provider's.
func FuzzAnswer(f *testing.F) {
	stream := "text/event-stream"
	for _, body := range []string{
		"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n",
		"data: {\"choices\":[{\"index\":-1}]}\r\n\r\n", "data: {\"error\":{\"message\":7,\"code\":[]}}\n\n", "data:\ndata:{}\n\n", ":\n\nevent: x\nid: \x00\ndata: [DONE]\n\n",
		"data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"index\":1}]}}]}\n\n", "\xef\xbb\xbfdata: null\n\n", "data: {\"choices\":[{\"index\":127,\"logprobs\":{}}]}",
	} {
		f.Add(200, stream, []byte(body))
	}
	f.Add(429, "application/json", []byte(`{"error":{"message":"slow down","code":429}}`))
	f.Add(500, "", []byte("\xff\x00"))
	f.Add(200, "application/json", []byte(`{"choices":[]}`))
	type reply struct {
		status int
		kind   string
		body   []byte
	}
	var now atomic.Pointer[reply]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r := now.Load()
		w.Header()["Content-Type"] = []string{r.kind}
		w.WriteHeader(r.status)
		_, _ = w.Write(r.body)
	}))
	f.Cleanup(srv.Close)
	p, err := openai.New(openai.Config{BaseURL: srv.URL})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(p.Close)
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		now.Store(&reply{status, kind, body})
		var failed error
		for c, err := range p.Stream(t.Context(), llm.Request{Endpoint: "/v1/chat/completions", Model: "m", Body: []byte(`{"model":"m"}`)}) {
			if failed != nil {
				t.Fatalf("%+v, %v came behind %v", c, err, failed)
			}
			failed = err
		}
		if fe, ok := errors.AsType[*fault.Error](failed); failed != nil && (!ok || fe.Code == fault.Internal || fe.Message == "") {
			t.Fatalf("%d %q %q: %v", status, kind, body, failed)
		}
	})
}
