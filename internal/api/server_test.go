package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"
)

func TestServerLetsWhatIsBeingAnsweredEnd(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := NewRouter(Config{})
	r.Get("/slow", func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		WriteJSON(w, r, 200, r.Context().Err() == nil)
	})
	stopping := make(chan struct{})
	addr, stop := serve(t, r, ServerConfig{Stopping: func() { close(stopping) }})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	got := make(chan string, 1)
	go func() {
		resp, err := client.Get("http://" + addr + "/slow")
		if err != nil {
			got <- err.Error()
			return
		}
		defer closing(t, resp.Body)
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	<-stopping
	close(leave)
	if s := <-got; s != "true" {
		t.Errorf("the answer under way: %s", s)
	}
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

func TestServerCutsOffWhatOutlastsItsGrace(t *testing.T) {
	entered, cut := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(cut)
	})
	addr, stop := serve(t, h, ServerConfig{Grace: time.Millisecond})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, conn)
	send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	if err := stop(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	<-cut
}

func TestServerSaysWhatAddressItCannotHave(t *testing.T) {
	err := Serve(t.Context(), "nowhere", http.NotFoundHandler(), ServerConfig{})
	if err == nil || !strings.Contains(err.Error(), `"nowhere"`) {
		t.Errorf("got %v", err)
	}
}

func TestBodyThatDribblesIsGivenUp(t *testing.T) {
	addr, _ := serve(t, router(t, Config{BodyPatience: 20 * time.Millisecond}), ServerConfig{})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, conn)
	send(t, conn, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, resp.Body)
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), "in time") {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}

// An EventSource that gets an answer, and not 200, does not come back.
func TestAHeadThatIsLateGetsNoAnswer(t *testing.T) {
	addr, _ := serve(t, router(t, Config{}), ServerConfig{HeaderPatience: time.Second}) // in which a whole head comes
	var all sync.WaitGroup
	for _, head := range []string{"GET ", "GET /echo HTT", "GET /echo HTTP/1.1\r\nHos", "GET /echo HTTP/1.1\r\nHost: x\r\n"} {
		for _, before := range []string{"", "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"} { // over a new connection, and over one that has served
			all.Go(func() {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer closing(t, conn)
				answers := bufio.NewReader(conn)
				if before != "" {
					send(t, conn, before)
					resp, err := http.ReadResponse(answers, nil)
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				send(t, conn, head)
				if b, err := io.ReadAll(answers); err != nil || len(b) > 0 {
					t.Errorf("%q behind %q: %q, %v", head, before, b, err)
				}
			})
		}
	}
	all.Wait()
}

func TestABodyThatSaysItIsTooLargeIsNotWaitedFor(t *testing.T) {
	addr, _ := serve(t, router(t, Config{MaxBody: 64}), ServerConfig{})
	for _, more := range []string{"\r\n{", "Expect: 100-continue\r\n\r\n"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		send(t, conn, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n"+more)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(b), "64 bytes") || !resp.Close {
			t.Errorf("%d %s, closing: %t", resp.StatusCode, b, resp.Close)
		}
		closing(t, conn)
	}
}

// A body's deadline must not cut off the stream that answers it.
func TestStreamOutlastsTheBodysDeadline(t *testing.T) {
	const patience = 500 * time.Millisecond // in which a body comes
	r := NewRouter(Config{BodyPatience: patience})
	r.Post("/stream", func(w http.ResponseWriter, r *http.Request) {
		if _, err := ReadBody(r); err != nil {
			WriteError(w, r, err)
			return
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		timer := time.NewTimer(3 * patience / 2)
		defer timer.Stop()
		select {
		case <-timer.C:
			_, _ = io.WriteString(w, "all")
		case <-r.Context().Done():
			_, _ = io.WriteString(w, "cut")
		}
	})
	addr, _ := serve(t, r, ServerConfig{})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, body := range []io.Reader{strings.NewReader("{}"), struct{ io.Reader }{strings.NewReader("{}")}} {
		resp, err := client.Post("http://"+addr+"/stream", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(b) != "all" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
}

func TestAnHTTP2ConnectionThatTakesNothingIsGivenUp(t *testing.T) {
	broke := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				close(broke)
				return
			}
		}
	})
	addr, _ := serve(t, h, ServerConfig{WritePatience: 100 * time.Millisecond})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, conn)
	// RFC 9113: SETTINGS with the largest window, a WINDOW_UPDATE of the connection,
	// and HEADERS of GET http://x/.
	send(t, conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x7f\xff\xff\xff"+
		"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\x00\x00"+
		"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01x")
	select {
	case <-broke:
	case <-time.After(20 * time.Second): // its pings go unanswered for longer than that
		t.Error("nothing was taken, and the stream went on")
	}
}

func TestTheSystemKeepsLittleForOneWhoDoesNotRead(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it is asked of Linux alone")
	}
	took := make(chan int, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n, control := 0, http.NewResponseController(w)
		for {
			if err := control.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				t.Error(err)
			}
			m, err := w.Write(make([]byte, 16<<10))
			if n += m; err != nil {
				took <- n
				return
			}
		}
	})
	addr, _ := serve(t, h, ServerConfig{})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, conn)
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	// What the client's side takes comes on top, and a last write in whole. Without the
	// bound it is megabytes.
	if n := <-took; n > maxUnsent+(128<<10) {
		t.Errorf("%d bytes were taken for one who does not read", n)
	}
}

func TestHandlersMayHijackAndSetDeadlines(t *testing.T) {
	r := NewRouter(Config{})
	r.Get("/raw", func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw")
		_ = conn.Close()
	})
	addr, _ := serve(t, r, ServerConfig{})
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + addr + "/raw")
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, resp.Body)
	if b, _ := io.ReadAll(resp.Body); string(b) != "raw" {
		t.Errorf("%q", b)
	}
}

func send(t *testing.T, conn net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(conn, s); err != nil {
		t.Error(err)
	}
}

func closing(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func health(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func healthRouter(checks ...Check) chi.Router {
	r := NewRouter(Config{})
	Health(checks...).Routes(r)
	return r
}

// unflushed is a writer whose flushes fail.
type unflushed struct{ http.ResponseWriter }

var errUnflushed = errors.New("the stream was reset")

func (unflushed) FlushError() error { return errUnflushed }

func TestAHandlerHearsOfAFlushThatFailed(t *testing.T) {
	r := NewRouter(Config{})
	var err error
	r.Get("/", func(w http.ResponseWriter, _ *http.Request) { err = http.NewResponseController(w).Flush() })
	r.ServeHTTP(unflushed{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/", nil))
	if !errors.Is(err, errUnflushed) {
		t.Errorf("got %v", err)
	}
}

func TestReadinessNamesThePartAndWhy(t *testing.T) {
	ok := func(context.Context) error { return nil }
	r := healthRouter(Check{"kafka", ok}, Check{"postgres", func(context.Context) error { return errors.New("connection refused") }})
	for _, path := range []string{"/readyz", "/health"} {
		status, body := health(t, r, path)
		for _, part := range []string{`"status":"unavailable"`, `"kafka":{"status":"ok"}`, `"postgres":{"status":"unavailable","message":"connection refused"}`} {
			if status != 503 || !strings.Contains(body, part) {
				t.Errorf("%s: %d %s lacks %s", path, status, body, part)
			}
		}
	}
	if status, body := health(t, r, "/livez"); status != 200 || body != `{"status":"ok"}` {
		t.Errorf("/livez: %d %s", status, body)
	}
	if status, _ := health(t, healthRouter(Check{"kafka", ok}), "/readyz"); status != 200 {
		t.Errorf("all well: %d", status)
	}
}

func TestReadinessIsBoundedSideBySideAndCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var asked atomic.Int32
		stuck := func(context.Context) error { asked.Add(1); <-release; return nil } // heeds nothing
		slow := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		r := healthRouter(Check{"a", stuck}, Check{"b", slow})
		began := time.Now()
		status, body := health(t, r, "/readyz")
		if took := time.Since(began); status != 503 || took != probePatience || !strings.Contains(body, "no answer within 2s") {
			t.Errorf("%d %s after %v", status, body, took)
		}
		health(t, r, "/readyz")
		if took := time.Since(began); took != probePatience {
			t.Errorf("the report was not given out again: %v", took)
		}
		<-time.After(2 * reportLife)
		health(t, r, "/readyz")
		if n := asked.Load(); n != 1 {
			t.Errorf("a part that has not answered was asked %d times", n)
		}
		close(release)
		<-time.After(2 * reportLife)
		if _, body := health(t, r, "/readyz"); !strings.Contains(body, `"a":{"status":"ok"}`) {
			t.Errorf("after it answered: %s", body)
		}
	})
}
