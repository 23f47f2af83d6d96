package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/testenv"
)

// upstream is a server that speaks OpenAI's Chat Completions and says which
// model it is and with which key it was asked.
func upstream(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/chat/completions" || !strings.Contains(string(body), `"model":"gpt-x"`) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":{"message":"there is gpt-x alone"}}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for _, word := range []string{"I", " am", " gpt-x,", " asked", " with " + r.Header.Get("Authorization")} {
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", word)
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestDevSendsOtherModelsUpstream(t *testing.T) {
	t.Parallel()
	url := upstream(t)
	p := serving(t, "dev", "--listen", "127.0.0.1:0", "--partitions", "1", "--models", "fast=sim:tokens=2,ttft=0s,gap=0s",
		"--kafka", embeddedBroker(t), "--postgres", testenv.Postgres(t), "--upstream", url, "--upstream-key", "k1")
	if said := p.stdout.String(); !strings.Contains(said, url) || !strings.Contains(said, `"model":"sim"`) || strings.Contains(said, "k1") {
		t.Errorf("it says %s", said)
	}
	if got := p.on(t, "job", "submit", "-m", "gpt-x", "--follow", "hello").want(t, exitDone).stdout; !strings.Contains(got, "I am gpt-x, asked with Bearer k1") {
		t.Errorf("gpt-x said %q", got)
	}
	for model, words := range map[string]int{quick: 3, "fast": 2} {
		if got := p.on(t, "job", "submit", "-m", model, "--follow", "hello").want(t, exitDone).stdout; len(strings.Fields(got)) != words || strings.Contains(got, "gpt-x") {
			t.Errorf("%s said %q, want %d words", model, got, words)
		}
	}
	if o := p.on(t, "job", "submit", "-m", "openai/other", "--follow", "hello").want(t, exitFailed); !strings.Contains(o.stderr, "there is gpt-x alone") {
		t.Errorf("a model that upstream does not have: %s", o.stderr)
	}
	if code := p.stop(); code != exitDone {
		t.Errorf("the stop: %d, %s", code, p.stderr.String())
	}
}

func TestDevRefusesAnUpstreamThatIsNone(t *testing.T) {
	t.Parallel()
	o := run(t, "dev", "--kafka", "127.0.0.1:1", "--postgres", "postgres://u@127.0.0.1:1/x", "--upstream", "127.0.0.1:8000").want(t, exitUsage)
	if !strings.Contains(o.stderr, "upstream: ") || !strings.Contains(o.stderr, "http://127.0.0.1:8000/v1") {
		t.Errorf("it said %s", o.stderr)
	}
}
