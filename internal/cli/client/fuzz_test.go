package client

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// FuzzFollow reads a stream from a server that is none of ours: it ends, and is
// never held for a job's end that was not told.
func FuzzFollow(f *testing.F) {
	f.Add([]byte("retry: 1000\n\nid: 1\ndata: " + record(0, true) + "\n\n"))
	f.Add([]byte("id: \x00\r\ndata: {}\r\r:\ndata\n\n"))
	f.Add([]byte("data: {\"type\":\"output.completed\"}\n\n"))
	var body atomic.Pointer[[]byte]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write(*body.Load())
	}))
	f.Cleanup(srv.Close)
	c, err := New(Config{Server: srv.URL, Tries: 1, Backoff: time.Nanosecond})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(c.Close)
	f.Fuzz(func(t *testing.T, text []byte) {
		body.Store(&text)
		ended, failed := false, false
		for e, err := range c.Follow(t.Context(), "job_1", Place{}) {
			failed = failed || err != nil
			ended = ended || err == nil && e.View.Type.Output() && e.View.Type.Terminal()
		}
		if ended == failed {
			t.Fatalf("%q: the job ended: %t, the stream failed: %t", text, ended, failed)
		}
	})
}
