package anthropic_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/anthropic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// asked is a request as the fake server had it.
type asked struct {
	path   string
	header http.Header
	body   string
}

// fake is a server that speaks Messages; what it answers depends on the model.
type fake struct {
	*httptest.Server
	mu    sync.Mutex
	asked []asked
}

type script func(w http.ResponseWriter, r *http.Request)

func serve(t *testing.T, scripts map[string]script) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		f.mu.Lock()
		f.asked = append(f.asked, asked{r.URL.Path, r.Header.Clone(), string(body)})
		f.mu.Unlock()
		var named struct {
			Model string `json:"model"`
		}
		_ = json.Unmarshal(body, &named)
		play, ok := scripts[named.Model]
		if !ok {
			refuse(404, `{"type":"error","error":{"type":"not_found_error","message":"model: `+named.Model+`"}}`)(w, r)
			return
		}
		play(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) last(t *testing.T) asked {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		t.Fatal("nobody asked")
	}
	return f.asked[len(f.asked)-1]
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

// provider is one for the fake server, closed before it.
func (f *fake) provider(t *testing.T) *anthropic.Provider {
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

// listen gives all chunks of a call, and how it ended.
func listen(t *testing.T, p llm.Provider, req llm.Request) (chunks []llm.Chunk, err error) {
	t.Helper()
	for c, e := range p.Stream(t.Context(), req) {
		if err != nil {
			t.Errorf("after %v came %+v", err, c)
		}
		if err = e; e == nil {
			chunks = append(chunks, c)
		}
	}
	return chunks, err
}

// faulty is listen for a call that must fail.
func faulty(t *testing.T, p llm.Provider, req llm.Request) *fault.Error {
	t.Helper()
	chunks, err := listen(t, p, req)
	f, ok := err.(*fault.Error) //nolint:errorlint // a provider's is not wrapped
	if !ok {
		t.Fatalf("%s: it ended with %v, want a fault; it said %+v", req.Body, err, chunks)
	}
	return f
}
