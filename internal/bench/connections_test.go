package bench

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// waiting is a server of connections that wait, and the metrics of its process,
// in which each of them costs 1,000 bytes and a hundred goroutines.
type waiting struct {
	*Server
	open atomic.Int64
	drop atomic.Bool // a WebSocket ends right after its welcome
}

func newWaiting(t *testing.T) *waiting {
	t.Helper()
	w := &waiting{}
	up := websocket.Upgrader{}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/ws", func(rw http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(rw, r, nil)
		if err != nil {
			return
		}
		w.open.Add(1)
		defer w.open.Add(-1)
		defer func() { _ = conn.Close() }()
		_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"op":"welcome"}`))
		for !w.drop.Load() {
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
			_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"op":"subscribed"}`))
		}
	})
	mux.HandleFunc("/v1/topics/tokens/partitions/{p}/events", func(rw http.ResponseWriter, r *http.Request) {
		w.open.Add(1)
		defer w.open.Add(-1)
		rw.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/debug/pprof/heap", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/metrics", func(rw http.ResponseWriter, _ *http.Request) {
		n := w.open.Load()
		_, _ = fmt.Fprintf(rw, "# HELP x\nprocess_resident_memory_bytes %d\ngo_goroutines %d\n", 5000+1000*n, 10+100*n)
	})
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	w.Server = NewServer(srv.URL, "k", 2)
	t.Cleanup(w.Close)
	return w
}

func TestConnectionsAreHeldCountedAndLetGo(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{IdleSocket, WatchingSocket, IdleStream, SharedStream} {
		w := newWaiting(t)
		c, err := w.MeasureConnections(t.Context(), ConnectionsOptions{
			Hold: time.Second, // in which the server sees that those of the warm-up have gone
			Kind: kind, N: 20, AtATime: 4, Partitions: 3, Listener: w.URL + "/",
		})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if each := c.Each(func(p *Process) int64 { return p.Resident }); each < 600 || each > 1000 || c.Held.Goroutines != 2010 {
			t.Errorf("%s: %v bytes each, %+v", kind, each, c)
		}
		if c.After.Goroutines > c.Before.Goroutines+slackGoroutines {
			t.Errorf("%s: %+v", kind, c)
		}
	}
}

func TestConnectionsThatDoNotLastAreSaid(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	w.drop.Store(true)
	opt := ConnectionsOptions{Kind: IdleSocket, N: 3, AtATime: 1, Partitions: 1, Hold: time.Second, Listener: w.URL}
	if _, err := w.MeasureConnections(t.Context(), opt); err == nil || !strings.Contains(err.Error(), "did not last") {
		t.Errorf("%v", err)
	}
	for _, kind := range []string{"carrier pigeon", IdleSocket, IdleStream, SharedStream} {
		nobody := NewServer("http://127.0.0.1:1", "", 1)
		if _, err := nobody.Hold(t.Context(), kind, 1, 1, 1); err == nil {
			t.Errorf("%s: nobody answered, and it was held", kind)
		}
	}
	if _, err := w.Observe(t.Context(), w.URL+"/elsewhere"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
}
