package llmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

// Hostile tells RunHostile how a provider's servers speak.
type Hostile struct {
	// Open makes the provider that calls the server at url.
	Open func(t *testing.T, url string) llm.Provider
	// Settle lets go of idle connections, before goroutines are counted.
	Settle func(llm.Provider)
	// Request is what is asked.
	Request llm.Request
	// Text gives the bytes of events that say a text, as part of an answer that
	// was begun by Begin.
	Text func(text string) string
	// Begin, Finish and Done are the bytes of what stands before the text, of what
	// tells that the text is whole, and its usage, and of the stream's own end.
	Begin, Finish, Done string
	// Line is how a line with an event's data begins.
	Line string
}

// play answers one request.
type play func(w http.ResponseWriter, r *http.Request)

// hostileCase is one way in which a server may misbehave, and what a provider
// makes of it.
type hostileCase struct {
	name  string
	play  play
	code  fault.Code    // of the error; "" for an answer that is whole
	after time.Duration // its RetryAfter
	retry bool          // whether a retry may help
	text  string        // what was said before
	sent  *atomic.Int64 // of a flood, the bytes that were taken; else nil
}

func (h *Hostile) cases() []hostileCase {
	one := h.Begin + h.Text("one")
	whole := one + h.Text(" two") + h.Finish + h.Done
	broken := func(name string, p play, said string) hostileCase {
		return hostileCase{name: name, play: p, code: fault.ProviderError, retry: true, text: said}
	}
	refused := func(name string, p play, code fault.Code, after time.Duration) hostileCase {
		return hostileCase{name: name, play: p, code: code, after: after, retry: fault.KindOf(code).Retry}
	}
	good := func(name string, p play, said string) hostileCase {
		return hostileCase{name: name, play: p, text: said}
	}
	flooded := func(name, before, piece string) hostileCase {
		c := broken(name, nil, "one")
		c.sent = &atomic.Int64{}
		c.play = flood(200, before, piece, c.sent)
		return c
	}
	refusal := broken("a refusal of 100 MB", nil, "")
	refusal.sent = &atomic.Int64{}
	refusal.play = flood(500, "", strings.Repeat("x", 1<<20), refusal.sent)
	return []hostileCase{
		refusal,
		good("a first byte that takes its time", inTurn(pause(200*time.Millisecond), events(whole)), "one two"),
		good("no end mark behind the finish", events(strings.TrimSuffix(whole, h.Done)), "one two"),
		good("a cut behind the finish", inTurn(events(strings.TrimSuffix(whole, h.Done)), cutOff), "one two"),
		good("a finish that is told twice", events(one+h.Finish+h.Finish+h.Done), "one"),
		good("bytes that are no text", events(h.Begin+strings.ReplaceAll(h.Text("a?b"), "?", "\xff\xfe")+h.Finish+h.Done), "a\uFFFD"),

		broken("a cut in the middle of a line", inTurn(events(one+h.Text(" two")[:len(h.Line)+3]), cutOff), "one"),
		broken("an end in the middle of a line", events(one+h.Text(" two")[:len(h.Line)+3]), "one"),
		broken("an end before the finish", events(one), "one"),
		broken("an end before the first byte", cutOff, ""),
		broken("an empty stream", events(""), ""),
		broken("an end mark alone", events(h.Done), ""),
		broken("garbage in place of events", answer(200, "text/event-stream", strings.Repeat("\x00\xff\x1f\x8b", 1<<10)), ""),
		broken("garbage in an event", events(one+h.Line+"{]\n\n"), "one"),
		broken("a page in place of a stream", answer(200, "text/html", "<html><body>Welcome</body></html>"), ""),
		broken("JSON in place of a stream", answer(200, "application/json", `{"ok":true}`), ""),
		broken("a page of an error", answer(502, "text/html", "<html><h1>502 Bad Gateway</h1></html>"), ""),
		broken("an overloaded server", answer(529, "application/json", `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`), ""),
		flooded("a line of 100 MB", one+h.Line, strings.Repeat("x", 1<<20)),
		flooded("an event of 100 MB", one, h.Line+strings.Repeat("x", 1<<20)+"\n"),

		refused("429 with a time", answer(429, "application/json", `{"error":{"message":"slow down"}}`, "Retry-After", "7"), fault.RateLimited, 7*time.Second),
		refused("429 with milliseconds", answer(429, "application/json", `{}`, "Retry-After", "7", "Retry-After-Ms", "1500"), fault.RateLimited, 1500*time.Millisecond),
		refused("429 without a time", answer(429, "text/plain", `slow down`), fault.RateLimited, 0),
		refused("a wrong key", answer(401, "application/json", `{"error":{"message":"key sk-secret is wrong"}}`), fault.ProviderRejected, 0),
		refused("no such model", answer(404, "application/json", `{"error":{"message":"no such model"}}`), fault.ModelNotFound, 0),
		refused("a gateway's patience", answer(504, "text/html", ``), fault.ProviderTimeout, 0),
	}
}

// most is what a server may get rid of before its flood is stopped, in bytes:
// what is held of an event, and the buffers of the network.
const most = 64 << 20

// RunHostile runs a provider against servers that misbehave. Whatever they do, a
// call ends: as it should where the answer is whole, else with one fault; what
// was said before stands; nothing outlives it, and no flood is held.
func RunHostile(t *testing.T, h Hostile) {
	t.Helper()
	for _, c := range h.cases() {
		t.Run(c.name, func(t *testing.T) {
			h.meet(t, c.play, func(ctx context.Context, p llm.Provider) error { return c.check(ctx, p, h.Request) })
			if c.sent != nil && c.sent.Load() > most {
				t.Errorf("it took %d bytes of the flood, want %d at most", c.sent.Load(), most)
			}
		})
	}
	for name, p := range map[string]play{
		"a stall before the head":       stall,
		"a stall before the first byte": inTurn(events(""), stall),
		"a stall in the middle":         inTurn(events(h.Begin+h.Text("one")), stall),
		"a stall in a line":             inTurn(events(h.Begin+h.Text("one")+h.Line), stall),
	} {
		t.Run(name, func(t *testing.T) {
			h.meet(t, p, func(ctx context.Context, p llm.Provider) error { return stalled(ctx, p, h.Request) })
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		gone, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = gone.Close()
		p := h.Open(t, "http://"+gone.Addr().String())
		c := hostileCase{code: fault.ProviderError, retry: true}
		if err := c.check(t.Context(), p, h.Request); err != nil {
			t.Error(err)
		}
	})
}

// meet has a provider call a server that plays p, and counts what is left behind.
func (h *Hostile) meet(t *testing.T, p play, check func(context.Context, llm.Provider) error) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	var calls atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		p(w, r)
	}))
	provider := h.Open(t, s.URL)
	if err := check(t.Context(), provider); err != nil {
		t.Error(err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the server was asked %d times: a provider does not retry", n)
	}
	h.Settle(provider)
	s.Close()
	if err := goleak.Find(before); err != nil {
		t.Errorf("goroutines outlive the call: %v", err)
	}
}

// check makes the call and looks how it ended.
func (c *hostileCase) check(ctx context.Context, p llm.Provider, req llm.Request) error {
	s, err := listen(ctx, p, req)
	if !strings.HasPrefix(s.text, c.text) || c.text == "" && s.text != "" || !utf8.ValidString(s.text) {
		return fmt.Errorf("it said %.80q, want %q", s.text, c.text)
	}
	if c.code == "" {
		return err
	}
	var f *fault.Error
	switch {
	case err == nil:
		return fmt.Errorf("it ended well, want %s", c.code)
	case errors.Is(err, errBroken) || !errors.As(err, &f):
		return fmt.Errorf("it ended with %w, want a fault", err)
	case f.Code != c.code || f.RetryAfter != c.after || f.Retryable() != c.retry:
		return fmt.Errorf("it ended with %s, to be tried again after %v: %v; want %s after %v: %v", told(f), f.RetryAfter, f.Retryable(), c.code, c.after, c.retry)
	case f.Message == "" || len(f.Message) > 2<<10 || strings.Contains(f.Message, "sk-secret"):
		return fmt.Errorf("the message says too little or too much: %.300q", f.Message)
	}
	return nil
}

// stalled gives a call up while its server says nothing.
func stalled(ctx context.Context, p llm.Provider, req llm.Request) error {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := listen(ctx, p, req)
	if !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("it ended with %s, want ctx's error", told(err))
	}
	if took := time.Since(began); took > 15*time.Second {
		return fmt.Errorf("it took %v to be given up", took)
	}
	return nil
}

// events sends a stream's bytes as they stand.
func events(text string) play { return answer(200, "text/event-stream", text) }

// answer sends a whole answer, with more headers by name and value.
func answer(code int, kind, body string, header ...string) play {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
		_ = http.NewResponseController(w).Flush()
	}
}

// flood sends 100 times a piece of some 1 MB, and counts what was taken.
func flood(code int, before, piece string, sent *atomic.Int64) play {
	return func(w http.ResponseWriter, r *http.Request) {
		answer(code, "text/event-stream", before)(w, r)
		for range 100 {
			n, err := io.WriteString(w, piece)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
}

// inTurn plays one after the other.
func inTurn(plays ...play) play {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, p := range plays {
			p(w, r)
		}
	}
}

func pause(d time.Duration) play {
	return func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
	}
}

// stall says nothing more until the client has gone.
func stall(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// cutOff breaks the connection.
func cutOff(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
