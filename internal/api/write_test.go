package api

import (
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"
)

// answers is a router with a large answer at /large, which tells when its handler
// is done, a small one at /small, and at /stream one that pauses in the middle for
// longer than a client has for a piece.
func answers(patience time.Duration) (h http.Handler, done chan struct{}) {
	large := []byte(`"` + strings.Repeat("x", 16<<20) + `"`)
	done = make(chan struct{}, 1)
	r := NewRouter(Config{WritePatience: patience})
	r.Get("/large", func(w http.ResponseWriter, r *http.Request) {
		WriteRaw(w, r, http.StatusOK, large)
		done <- struct{}{}
	})
	r.Get("/small", func(w http.ResponseWriter, r *http.Request) { WriteJSON(w, r, http.StatusOK, "small") })
	r.Get("/stream", func(w http.ResponseWriter, _ *http.Request) {
		for range 2 {
			if _, err := w.Write([]byte("x")); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			<-time.After(3 * patience / 2)
		}
	})
	return r, done
}

func wait(t *testing.T, done chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the answer is still being written")
	}
}

func TestAClientThatDoesNotReadItsAnswerIsLetGo(t *testing.T) {
	h, done := answers(50 * time.Millisecond)
	addr, _ := serve(t, h, ServerConfig{})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, conn)
	send(t, conn, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
	wait(t, done)
	if n, err := io.Copy(io.Discard, conn); n > 16<<20 { // cut off, however that is told
		t.Errorf("%d bytes came, %v: the answer is whole", n, err)
	}
}

func TestAnAnswersDeadlineIsLiftedBeforeTheNextRequest(t *testing.T) {
	for name, two := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			h, done := answers(500 * time.Millisecond) // in which a piece is taken
			addr, _ := serve(t, h, ServerConfig{})
			tr := &http.Transport{Protocols: new(http.Protocols)}
			tr.Protocols.SetHTTP1(!two)
			tr.Protocols.SetUnencryptedHTTP2(two)
			defer tr.CloseIdleConnections()
			conns := map[net.Conn]bool{}
			ask := func(path string) *http.Response {
				t.Helper()
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { conns[i.Conn] = true }})
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				return resp
			}
			text := func(path string) string {
				t.Helper()
				resp := ask(path)
				defer closing(t, resp.Body)
				b, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			if two { // its deadline ends a stream that is not read, and no other
				unread := ask("/large")
				defer closing(t, unread.Body)
				wait(t, done)
			}
			if got := text("/small"); got != `"small"` {
				t.Errorf("got %s", got)
			}
			if got := text("/stream"); got != "xx" {
				t.Errorf("got %q behind it", got)
			}
			if len(conns) != 1 {
				t.Errorf("there were %d connections: the test does not do what it says", len(conns))
			}
		})
	}
}
