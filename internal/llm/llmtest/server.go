package llmtest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

// Asked is a request as a Server had it.
type Asked struct {
	Path   string
	Header http.Header
	Body   string
	Conn   string // whose port tells connections apart
}

// Script answers one request. What it leaves off by panicking with
// http.ErrAbortHandler is a connection that breaks.
type Script func(w http.ResponseWriter, r *http.Request)

// Server plays a model's server; what it does depends on the model that the body
// of a request names.
type Server struct {
	*httptest.Server

	mu    sync.Mutex
	asked []Asked
}

// Serve starts a Server, which ends with the test. unknown answers for a model
// that has no script.
func Serve(t *testing.T, scripts map[string]Script, unknown func(model string) Script) *Server {
	t.Helper()
	s := &Server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		s.mu.Lock()
		s.asked = append(s.asked, Asked{r.URL.Path, r.Header.Clone(), string(body), r.RemoteAddr})
		s.mu.Unlock()
		var named struct {
			Model string `json:"model"`
		}
		_ = json.Unmarshal(body, &named) // what names none has no script
		play, ok := scripts[named.Model]
		if !ok {
			play = unknown(named.Model)
		}
		play(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// Last is the newest request.
func (s *Server) Last(t *testing.T) Asked {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		t.Fatal("nobody asked")
	}
	return s.asked[len(s.asked)-1]
}

// Count is how many requests there were.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// Listen gives all chunks of a call, and how it ended.
func Listen(t *testing.T, p llm.Provider, req llm.Request) (chunks []llm.Chunk, err error) {
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

// Checks asks a provider whether its server answers: one that is well, one that
// does not know the key, and none at all. connect makes the provider, whose server
// is asked for /v1/models.
func Checks(t *testing.T, connect func(url, key string) (llm.Checker, func())) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/v1/models" {
			http.Error(w, "what?", http.StatusTeapot)
			return
		}
		if r.Header.Get("Authorization") != "Bearer good" && r.Header.Get("X-Api-Key") != "good" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":{"message":"wrong key","type":"authentication_error"}}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"list","data":[],"has_more":false}`)
	}))
	defer server.Close()
	ask := func(url, key string) error {
		p, end := connect(url, key)
		defer end()
		const patience = 20 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return p.Check(ctx)
	}
	if err := ask(server.URL, "good"); err != nil {
		t.Errorf("a server that is well: %v", err)
	}
	if err := ask(server.URL, "bad"); fault.From(err).Code != fault.ProviderRejected {
		t.Errorf("a wrong key: %v", err)
	}
	if err := ask("http://127.0.0.1:1", "good"); err == nil {
		t.Error("nobody answered, and all was well")
	}
}
