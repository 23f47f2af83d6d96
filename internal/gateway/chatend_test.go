package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
)

func TestAClientThatLeavesEndsNothingButItsConnection(t *testing.T) {
	g, d := onDesk(t, Config{})
	for _, rest := range []string{`,"stream":true`, ``} {
		before, after := g.chat(rest), g.chat(rest)
		a, b := <-d.jobs, <-d.jobs
		for _, x := range []*author{a, b} {
			x.request(event.Interactive)
			x.started()
		}
		before.stop() // before the first token
		a.say("one")
		b.say("one")
		a.watched()
		b.watched()
		after.stop()
		<-before.done
		<-after.done
		for _, x := range []*author{a, b} { // the job goes on
			x.complete()
			if all := g.open(events(x)).rest(); len(all) != 3 {
				t.Errorf("the job has %d events, want 3", len(all))
			}
		}
	}
	eventually(t, func() bool { // every place in the log was let go
		g.gateway.hub.mu.Lock()
		defer g.gateway.hub.mu.Unlock()
		for _, p := range g.gateway.hub.parts {
			if p.refs != 0 {
				return false
			}
		}
		return len(g.gateway.folding) == 0
	})
}

// unread is a client that takes nothing of its answer.
type unread struct {
	http.ResponseWriter
	begun chan struct{} // told that there is something to take
	gone  chan struct{} // closed when it leaves
}

func (u unread) Write([]byte) (int, error) {
	u.begun <- struct{}{}
	<-u.gone
	return 0, io.ErrClosedPipe
}

func TestAnAnswerThatIsNotReadHoldsNoTranscript(t *testing.T) {
	g, d := onDesk(t, Config{})
	var wg sync.WaitGroup
	defer wg.Wait()
	for path, body := range map[string]string{
		chatEndpoint: `{"model":"sim",` + hello + `}`, embeddingsEndpoint: `{"model":"sim","input":"x"}`,
	} {
		u := unread{httptest.NewRecorder(), make(chan struct{}, 1), make(chan struct{})}
		defer close(u.gone)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		serve := g.gateway.serveChat
		if path == embeddingsEndpoint {
			serve = g.gateway.serveEmbeddings
		}
		wg.Go(func() { serve(u, r) })
		(<-d.jobs).whole(3)
		<-u.begun
		if n := len(g.gateway.folding); n != 0 {
			t.Errorf("%s: %d transcripts are held", path, n)
		}
	}
}

func TestAStopIsToldInTheStreamAndBeforeItAsAnAnswer(t *testing.T) {
	g, d := onDesk(t, Config{})
	open, waiting, whole := g.chat(`,"stream":true`), g.chat(`,"stream":true`), g.chat(``)
	jobs := []*author{<-d.jobs, <-d.jobs, <-d.jobs} // of which is which nobody knows
	for _, a := range jobs {
		a.started()
		a.say("begun")
	}
	open.head(http.StatusOK)
	waiting.head(http.StatusOK)
	head := open.lines("begun") + waiting.lines("begun")
	late := g.chat(`,"stream":true`)
	<-d.jobs
	g.gateway.Drain()
	for _, r := range []*reply{open, waiting} {
		if got := head + r.text(http.StatusOK); !strings.HasSuffix(got, `"code":"unavailable"}}`+"\n\n") {
			t.Errorf("the stream ends in %s", got)
		}
	}
	for _, r := range []*reply{late, whole} {
		if got := r.text(http.StatusServiceUnavailable); !strings.Contains(got, "shutting down") || r.resp.Header.Get("X-Should-Retry") != "true" {
			t.Errorf("got %s", got)
		}
	}
}

func TestAnAnswerThatDoesNotComeIsGivenUpAndNotAskedForAgain(t *testing.T) {
	g, d := onDesk(t, Config{AnswerPatience: 20 * time.Millisecond})
	for _, rest := range []string{`,"stream":true`, ``} {
		r := g.chat(rest)
		a := <-d.jobs
		if got := r.text(http.StatusGatewayTimeout); !strings.Contains(got, `"code":"deadline_exceeded"`) || !strings.Contains(got, "/v1/jobs/"+a.head.Job) {
			t.Errorf("got %s", got)
		}
		if r.resp.Header.Get("X-Should-Retry") != "false" {
			t.Error("it would be asked again, and make a second job")
		}
	}
}

func TestModelsAreListedAndFound(t *testing.T) {
	g, _ := onDesk(t, Config{})
	for path, want := range map[string]string{
		"/v1/models":               `{"object":"list","data":[{"id":"fast","object":"model","created":0,"owned_by":"of fast"},{"id":"sim","object":"model","created":0,"owned_by":"of sim"}],"first_id":"fast","last_id":"sim","has_more":false}`,
		"/v1/models/sim":           `{"id":"sim","object":"model","created":0,"owned_by":"of sim"}`,
		"/v1/models/openai/gpt":    `{"id":"openai/gpt","object":"model","created":0,"owned_by":"of openai/gpt"}`,
		"/v1/models/openai%2Fgpt":  `{"id":"openai/gpt","object":"model","created":0,"owned_by":"of openai/gpt"}`,
		"/v1/models/a%20b/c%252F":  `{"id":"a b/c%2F","object":"model","created":0,"owned_by":"of a b/c%2F"}`,
		"/v1/models/nothing%2Fnew": `{"error":{"message":"model \"nothing/new\" is not known","type":"invalid_request_error","param":null,"code":"model_not_found"}}`,
	} {
		status := http.StatusOK
		if strings.HasPrefix(want, `{"error"`) {
			status = http.StatusNotFound
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+path, http.NoBody)
		g.no(err)
		resp, err := http.DefaultClient.Do(req)
		g.no(err)
		r := &reply{g: g, done: closed(), resp: resp}
		if got := r.text(status); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
		_ = resp.Body.Close()
	}
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func TestEmbeddingsAreAnsweredInputByInput(t *testing.T) {
	g, d := onDesk(t, Config{})
	r := g.ask(embeddingsEndpoint, `{"model":"sim","input":["a","b"],"encoding_format":"base64"}`)
	a := <-d.jobs
	a.started()
	a.write(event.OutputDelta, event.Delta{Index: 1, Embedding: jsontext.Value(`"AACAPw=="`)})
	a.write(event.OutputDelta, event.Delta{Index: 0, Embedding: jsontext.Value(`[0.5,-1]`)})
	a.write(event.OutputCompleted, event.Completed{Model: "sim", Usage: &event.Usage{PromptTokens: 2, TotalTokens: 2}})
	want := `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1]},{"object":"embedding","index":1,"embedding":"AACAPw=="}],` +
		`"model":"sim","usage":{"prompt_tokens":2,"total_tokens":2}}`
	if got := r.text(http.StatusOK); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if in := d.in[0]; in.Endpoint != embeddingsEndpoint || in.Lane != event.Interactive {
		t.Errorf("it was taken in as %+v", in)
	}
}

func TestAnAnswerWaitsForALogThatIsAwayAndNotForEver(t *testing.T) {
	t.Parallel()
	d := newDesk()
	g, f := shaken(t, Config{Intake: d, BudgetBytes: 1, Patience: 4 * time.Second})
	d.begin = func(a *author) {
		a.request(event.Interactive)
		first := a.whole(3)[0]
		p, err := g.gateway.hub.acquire(t.Context(), first.Partition)
		g.no(err)
		defer g.gateway.hub.release(p)
		eventually(t, func() bool { return p.at(first.Offset).older }) // the tail has passed, and every read goes to Kafka
	}
	chatGround(t, g, d)
	first := g.chat(``, "Idempotency-Key", "k")
	first.text(http.StatusOK) // its events are no longer in memory
	for _, rest := range []string{`,"stream":true`, ``} {
		var failures atomic.Int32
		f.set(func(int64) error {
			if failures.Add(1) <= 2 {
				return errAway
			}
			return nil
		})
		if got := g.chat(rest).text(http.StatusOK); said(got) != "0 1 2 " {
			t.Errorf("after two failures: %s", got)
		}
		f.set(func(int64) error { return errAway })
		if got := g.chat(rest).text(http.StatusServiceUnavailable); !strings.Contains(got, `"code":"unavailable"`) {
			t.Errorf("while it is away: %s", got)
		}
		f.set(nil)
	}
}

func TestAnEventThatCannotBeReadEndsTheAnswer(t *testing.T) {
	g, d := onDesk(t, Config{})
	for _, kind := range []event.Type{event.OutputStarted, event.OutputCompleted, event.OutputFailed} {
		for _, rest := range []string{`,"stream":true`, ``} {
			d.begin = func(a *author) { a.write(kind, map[string]any{"model": 7, "code": 7}) }
			if kind == event.OutputStarted {
				d.begin = func(a *author) {
					a.write(kind, map[string]any{"model": 7})
					a.complete()
				}
			}
			if got := g.chat(rest).text(http.StatusInternalServerError); !strings.Contains(got, `"code":"internal_error"`) {
				t.Errorf("%s: %s", kind, got)
			}
		}
	}
}
