package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"
)

// follower is a client that follows jobs to their ends, and comes back where it is
// cut off, as docs/api.md tells it to. What it takes is held to what must come next
// (watcher.take).
type follower struct {
	t       *testing.T
	url     string
	jobs    []*watcher
	cuts    int
	longest time.Duration // between two events

	mu    sync.Mutex
	heard time.Time // when the last event came
}

// hear notes that an event has come.
func (f *follower) hear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if !f.heard.IsZero() {
		f.longest = max(f.longest, now.Sub(f.heard))
	}
	f.heard = now
}

// hearsSince waits until an event has come since a time.
func (f *follower) hearsSince(ctx context.Context, at time.Time) {
	f.t.Helper()
	const step = 20 * time.Millisecond
	for ctx.Err() == nil {
		f.mu.Lock()
		heard := f.heard
		f.mu.Unlock()
		if heard.After(at) {
			return
		}
		pause(ctx, step)
	}
	f.t.Fatal("a follower has heard nothing since a restart")
}

// overSSE follows the one job as an EventSource does: an answer that is an error
// ends it for good, and a connection that ends or cannot be had is tried again after
// the time that the stream said last.
func (f *follower) overSSE(ctx context.Context) {
	w := f.jobs[0]
	w.wait = time.Second
	for {
		err := w.read(ctx, func(int) bool { f.hear(); return false })
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			f.t.Errorf("job %s: at seq %d when the time was over: %v", w.job, w.NextSeq, err)
			return
		case strings.HasPrefix(err.Error(), "the events of "):
			f.t.Errorf("an EventSource has stopped for good: %v", err)
			return
		}
		f.cuts++
		pause(ctx, w.wait)
	}
}

// overSocket follows all jobs over one WebSocket.
func (f *follower) overSocket(ctx context.Context) {
	const unsaid = time.Second // where no goaway said when to come back
	for ctx.Err() == nil {
		wait, err := f.connect(ctx)
		if err == nil {
			return
		}
		f.cuts++
		if wait == 0 {
			wait = unsaid/2 + rand.N(unsaid)
		}
		pause(ctx, wait)
	}
	f.t.Error("a WebSocket's jobs have not ended in time")
}

// frame is what is read of a server's frame.
type frame struct {
	Op          string           `json:"op"`
	Sub         string           `json:"sub"`
	Cursor      string           `json:"cursor"`
	Status      string           `json:"status"`
	ReconnectMS int              `json:"reconnect_ms"`
	Events      []jsontext.Value `json:"events"`
}

// errAgain is why a connection ended before its jobs did.
var errAgain = errors.New("come back")

// connect follows the jobs that have not ended until the connection ends. wait is
// what a goaway said.
func (f *follower) connect(ctx context.Context) (wait time.Duration, err error) {
	dialer := websocket.Dialer{HandshakeTimeout: 10 * time.Second, Subprotocols: []string{"penstock.v1"}}
	conn, resp, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(f.url, "http")+"/v1/ws", nil)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errAgain, err)
	}
	_ = resp.Body.Close() // the dialer has read it
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	left := 0
	for _, w := range f.jobs {
		if w.End != "" {
			continue
		}
		left++
		at := ""
		if w.last != "" {
			at = `,"cursor":"` + w.last + `"`
		}
		if err := conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"op":"subscribe","sub":%q,"job":%q%s}`, w.job, w.job, at)); err != nil {
			return 0, fmt.Errorf("%w: %w", errAgain, err)
		}
	}
	for left > 0 {
		_, raw, err := conn.ReadMessage()
		if err != nil {
			return wait, fmt.Errorf("%w: %w", errAgain, err)
		}
		var fr frame
		if err := json.Unmarshal(raw, &fr); err != nil {
			f.t.Errorf("a frame %s: %v", raw, err)
		}
		switch fr.Op {
		case "goaway":
			wait = time.Duration(fr.ReconnectMS) * time.Millisecond
		case "events":
			f.hear()
			f.take(fr)
		case "end":
			left--
		case "error":
			f.t.Errorf("a follower got %s", raw)
		}
	}
	return 0, nil
}

func (f *follower) take(fr frame) {
	for _, w := range f.jobs {
		if w.job != fr.Sub {
			continue
		}
		for _, e := range fr.Events {
			w.take(message{fr.Cursor, string(e)})
		}
		return
	}
	f.t.Errorf("events of %q came, to which nobody has subscribed", fr.Sub)
}

// balancer hands TCP connections to servers by turns, and passes over those that
// do not answer.
type balancer struct {
	t   *testing.T
	url string

	mu       sync.Mutex
	backends []string
	turn     int
	open     map[net.Conn]struct{}
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{t: t, url: "http://" + l.Addr().String(), open: map[net.Conn]struct{}{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { b.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.mu.Lock()
		for c := range b.open {
			_ = c.Close()
		}
		b.mu.Unlock()
		wg.Wait()
	})
	return b
}

func (b *balancer) add(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends = append(b.backends, strings.TrimPrefix(url, "http://"))
}

func (b *balancer) remove(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, at := range b.backends {
		if "http://"+at == url {
			b.backends = append(b.backends[:i:i], b.backends[i+1:]...)
		}
	}
}

// order is in which order the servers are tried next.
func (b *balancer) order() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn++
	order := make([]string, len(b.backends))
	for i := range order {
		order[i] = b.backends[(b.turn+i)%len(order)]
	}
	return order
}

func (b *balancer) hold(c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[c] = struct{}{}
}

func (b *balancer) drop(c net.Conn) {
	_ = c.Close() // it may be closed already
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, c)
}

// carry carries one connection's bytes both ways until either end has closed.
func (b *balancer) carry(client net.Conn) {
	b.hold(client)
	defer b.drop(client)
	for _, addr := range b.order() {
		server, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			continue
		}
		b.hold(server)
		up := make(chan struct{})
		go func() {
			defer close(up)
			copyAll(server, client)
			b.drop(server)
		}()
		copyAll(client, server)
		b.drop(server)
		b.drop(client)
		<-up
		return
	}
}

func copyAll(to, from net.Conn) { _, _ = io.Copy(to, from) } // that it ends is all
