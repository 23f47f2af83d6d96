package api

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestTheNextRequestIsServedOverAConnectionThatWasGivenBack has a handler that takes
// the connection, answers, and gives it back with the half of the next request that
// it has read.
func TestTheNextRequestIsServedOverAConnectionThatWasGivenBack(t *testing.T) {
	const next = "GET /taken HTTP/1.1\r\nHost: x\r\n\r\n"
	r := router(t, Config{})
	r.Get("/taken", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback")
		conn.(Returner).Return([]byte(next[:9]))
	})
	var log bytes.Buffer
	addr, stop := serve(t, r, ServerConfig{Grace: 2 * time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, conn)
	answers := bufio.NewReader(conn)
	send(t, conn, next)
	for range 3 {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "back" {
			t.Errorf("%q, %v", b, err)
		}
		_ = resp.Body.Close()
		send(t, conn, next[9:])
	}
	// The fourth has been answered, and the connection waits when the server stops.
	if resp, err := http.ReadResponse(answers, nil); err != nil || resp.Body.Close() != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil || log.Len() > 0 {
		t.Errorf("the stop: %v, and it says %q", err, &log)
	}
}
