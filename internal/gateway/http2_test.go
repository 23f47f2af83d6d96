package gateway

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
)

// serve serves the gateway as the program does.
func (g *ground) serve() {
	g.Helper()
	r := api.NewRouter(api.Config{})
	g.gateway.Routes(r)
	ctx, cancel := context.WithCancel(context.WithoutCancel(g.Context()))
	bound, served := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		served <- api.Serve(ctx, "127.0.0.1:0", r, api.ServerConfig{
			Listening: func(a net.Addr) { bound <- a }, Stopping: g.gateway.Drain, Grace: 30 * time.Second,
		})
	}()
	g.url = "http://" + (<-bound).String()
	stop := g.stop
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			g.Errorf("the server ended with %v", err)
		}
		stop()
	})
	g.Cleanup(g.stop)
}

// http2 serves the gateway as the program does, and makes g.open ask over HTTP/2.
// It tells how many connections were opened.
func (g *ground) http2() (dialled func() int32) {
	g.Helper()
	var count atomic.Int32
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		count.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetUnencryptedHTTP2(true)
	g.http = &http.Client{Transport: transport}
	stop := g.stop
	g.stop = sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		stop()
	})
	g.serve()
	return count.Load
}

func TestOverHTTP2ManyStreamsShareAConnection(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{Quiet: time.Millisecond, Heartbeat: 20 * time.Millisecond})
	dialled := g.http2()
	a := g.author()
	a.started()
	const n = 100
	all := make([]*client, n)
	for i := range all {
		all[i] = g.open(events(a))
		if e := all[i].must(); all[i].resp.ProtoMajor != 2 || e.Seq != 0 {
			t.Fatalf("%s, %+v", all[i].resp.Proto, e)
		}
	}
	cut := all[0]
	a.say("one ")
	last := cut.must()
	cut.close() // this stream alone
	for _, c := range all[1:] {
		c.must()
		for c.beats == 0 {
			line, err := c.lines.ReadString('\n')
			g.no(err)
			if line == ":\n" {
				c.beats++
			}
		}
	}
	a.say("two ")
	a.complete()
	seqs(t, g.open(events(a), "Last-Event-ID", last.id).rest(), 2)
	g.open(events(a), "Last-Event-ID", all[1].rest()[1].id).status(http.StatusNoContent)
	for _, c := range all[2:] {
		if rest := c.rest(); len(rest) != 2 || rest[1].Type != event.OutputCompleted {
			t.Errorf("got %v", rest)
		}
	}
	if e := g.open(events(a) + "?snapshot=1").must(); e.Data.Text != "one two " {
		t.Errorf("the snapshot says %s", e.data)
	}
	if got := dialled(); got != 1 {
		t.Errorf("%d connections were opened, want 1", got)
	}
	g.empty()
}

func TestOverHTTP2AStreamThatIsNotReadHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{WriteTimeout: 3 * time.Second, Registry: prometheus.NewRegistry()})
	dialled := g.http2()
	a, b := g.author(), g.author()
	a.started()
	b.started()
	stuck, quick := g.open(events(a)), g.open(events(b))
	first := stuck.must()
	quick.must()
	filler := strings.Repeat("x", 200_000)
	for i := range 60 { // more than one stream may have under way
		a.say(filler)
		b.say(strconv.Itoa(i))
		if e := quick.must(); e.Seq != int64(i+1) {
			t.Fatalf("seq %d, want %d", e.Seq, i+1)
		}
	}
	eventually(t, func() bool { return counter(t, g, "streaming_completions_total", endedSlow) == 1 })
	b.complete()
	quick.rest()
	a.complete()
	all := g.open(events(a), "Last-Event-ID", first.id).rest()
	seqs(t, all, 1)
	if len(all) != 61 || dialled() != 1 {
		t.Errorf("%d events, want 61; %d connections, want 1", len(all), dialled())
	}
}

func TestOverHTTP2AStreamOutlastsASilenceLongerThanAWriteMayTake(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{WriteTimeout: 2 * time.Second, Heartbeat: time.Minute})
	g.http2()
	a := g.author()
	a.started()
	c := g.open(events(a))
	c.must()
	pause(t.Context(), 3*time.Second)
	a.say("one ")
	a.complete()
	seqs(t, c.rest(), 1)
}

func TestADrainEndsStreamsOverHTTP2(t *testing.T) {
	g := onOne(t, Config{})
	g.http2()
	a := g.author()
	a.started()
	c := g.open(events(a))
	c.must()
	began := time.Now()
	go g.stop()
	if rest := c.rest(); len(rest) != 0 || len(c.retries) != 2 || !soonBack(c.retries[1]) {
		t.Errorf("events at the drain: %v; told to come back after %s ms", rest, c.retries)
	}
	g.stop()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the stop took %v: it waited for the streams", took)
	}
}
