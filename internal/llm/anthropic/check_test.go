package anthropic

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

func TestAServerIsAskedWhetherItAnswers(t *testing.T) {
	t.Parallel()
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
		p, err := New(Config{BaseURL: url, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return llm.Checker(p).Check(ctx)
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
