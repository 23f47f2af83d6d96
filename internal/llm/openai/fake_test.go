package openai_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
	"github.com/penstock-io/penstock/internal/llm/openai"
	"github.com/penstock-io/penstock/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Settled(m)) }

// fake is an OpenAI-compatible server; what it does depends on the model.
type fake struct{ *llmtest.Server }

type script = llmtest.Script

func serve(t *testing.T, scripts map[string]script) fake {
	t.Helper()
	return fake{llmtest.Serve(t, scripts, func(string) script {
		return refuse(http.StatusNotFound, nil, `{"error":{"message":"no such model","type":"invalid_request_error","param":"model","code":"model_not_found"}}`)
	})}
}

// provider is one for the fake server, closed before it.
func (f fake) provider(t *testing.T, cfg openai.Config) *openai.Provider {
	t.Helper()
	cfg.BaseURL = f.URL
	p, err := openai.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// raw sends pieces as they stand, each in a write of its own.
func raw(pieces ...string) script {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, piece := range pieces {
			_, _ = io.WriteString(w, piece)
			w.(http.Flusher).Flush()
		}
	}
}

// stream sends events and a proper end.
func stream(events ...string) script { return raw(append(sse(events...), "data: [DONE]\n\n")...) }

func sse(events ...string) []string {
	var out []string
	for _, e := range events {
		out = append(out, "data: "+e+"\n\n")
	}
	return out
}

// then plays scripts one after the other.
func then(scripts ...script) script {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, s := range scripts {
			s(w, r)
		}
	}
}

// breaks breaks the connection.
func breaks(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// stalls says nothing more until the client has gone.
func stalls(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func refuse(status int, header map[string]string, body string) script {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// delta is a chunk of choice 0, as OpenAI writes it.
func delta(content string) string {
	quoted, _ := json.Marshal(content)
	return fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%s},"logprobs":null,"finish_reason":null}],"usage":null}`, quoted)
}

const (
	role   = `{"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"finish_reason":null}]}`
	finish = `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
	usage  = `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0}}}`
)

func request(model string) llm.Request {
	return llm.Request{
		Job: "job_1", Attempt: 2, Endpoint: "/v1/chat/completions", Model: model,
		Body: []byte(`{"model":"p/` + model + `","messages":[{"role":"user","content":"hi"}]}`),
	}
}

// faulty is llmtest.Listen for a call that must fail.
func faulty(t *testing.T, p llm.Provider, req llm.Request) ([]llm.Chunk, *fault.Error) {
	t.Helper()
	chunks, err := llmtest.Listen(t, p, req)
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("it ended with %v, want a fault; it said %+v", err, chunks)
	}
	return chunks, f
}

func content(chunks []llm.Chunk) string {
	var b strings.Builder
	for _, c := range chunks {
		b.WriteString(c.Content)
	}
	return b.String()
}
