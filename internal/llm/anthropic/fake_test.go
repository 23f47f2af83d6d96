package anthropic_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/anthropic"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
	"github.com/penstock-io/penstock/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Settled(m)) }

// fake is a server that speaks Messages; what it answers depends on the model.
type fake struct{ *llmtest.Server }

type script = llmtest.Script

func serve(t *testing.T, scripts map[string]script) fake {
	t.Helper()
	return fake{llmtest.Serve(t, scripts, func(model string) script {
		return refuse(http.StatusNotFound, `{"type":"error","error":{"type":"not_found_error","message":"model: `+model+`"}}`)
	})}
}

// provider is one for the fake server, closed before it.
func (f fake) provider(t *testing.T) *anthropic.Provider {
	t.Helper()
	p, err := anthropic.New(anthropic.Config{BaseURL: f.URL, Key: "k1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func refuse(status int, body string) script {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// stream sends events, each named by its type.
func stream(events ...string) script {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, sse(events...))
		_ = http.NewResponseController(w).Flush()
	}
}

func sse(events ...string) string {
	var b strings.Builder
	for _, e := range events {
		var head struct {
			Type string `json:"type"`
		}
		_ = json.Unmarshal([]byte(e), &head)
		fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", head.Type, e)
	}
	return b.String()
}

// The events of an answer.
const (
	start = `{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1,"service_tier":"standard"}}}`
	open  = `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`
	ping  = `{"type": "ping"}`
	shut  = `{"type":"content_block_stop","index":0}`
	stop  = `{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":4}}`
	done  = `{"type":"message_stop"}`
)

func text(s string) string {
	return `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"` + s + `"}}`
}

func request(model string) llm.Request {
	return asking(model, `"messages":[{"role":"user","content":"hi"}]`)
}

func asking(model, body string) llm.Request {
	return llm.Request{Job: "job_1", Attempt: 1, Endpoint: "/v1/chat/completions", Model: model, Body: []byte(`{"model":"anthropic/` + model + `",` + body + `}`)}
}

// faulty is llmtest.Listen for a call that must fail.
func faulty(t *testing.T, p llm.Provider, req llm.Request) *fault.Error {
	t.Helper()
	chunks, err := llmtest.Listen(t, p, req)
	f, ok := err.(*fault.Error) //nolint:errorlint // a provider's is not wrapped
	if !ok {
		t.Fatalf("%s: it ended with %v, want a fault; it said %+v", req.Body, err, chunks)
	}
	return f
}
