package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/bench"
	"github.com/penstock-io/penstock/internal/event"
)

// soon is a configuration in which streams leave net/http at once.
func soon() Config { return Config{Quiet: time.Millisecond, Linger: 20 * time.Millisecond} }

// quietly waits until so many streams have left net/http.
func (g *ground) quietly(n int) {
	g.Helper()
	eventually(g, func() bool {
		g.gateway.quiets.mu.Lock()
		defer g.gateway.quiets.mu.Unlock()
		return len(g.gateway.quiets.open) == n
	})
}

// tcp is a connection to the server.
func (g *ground) tcp() *net.TCPConn {
	g.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	g.no(err)
	g.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

func TestAStreamThatWasQuietGoesOnWhereItWas(t *testing.T) {
	onBoth(t, soon(), func(g *ground) {
		a := g.author()
		a.started()
		c := g.open(events(a))
		all := []got{c.must()}
		for range 3 {
			g.quietly(1)
			a.say("word ")
			a.say("for word ")
			all = append(all, c.must(), c.must())
		}
		large := strings.Repeat("x", 3*flushBytes)
		a.say(large)
		a.complete()
		all = append(all, c.rest()...) // it ends as a whole answer does, and not cut off
		seqs(t, all, 0)
		if n := len(text(all)); n != 3*len("word for word ")+len(large) || all[len(all)-1].Type != event.OutputCompleted {
			t.Errorf("%d bytes of text in %d events", n, len(all))
		}
		g.quietly(0)
	})
}

func TestTheConnectionOfAQuietStreamServesTheNextRequest(t *testing.T) {
	g := onOne(t, soon())
	g.serve()
	conn := g.tcp()
	answers := bufio.NewReader(conn)
	say := func(s string) {
		_, err := io.WriteString(conn, s)
		g.no(err)
	}
	answer := func(want string) {
		resp, err := http.ReadResponse(answers, nil)
		g.no(err)
		b, err := io.ReadAll(resp.Body)
		g.no(err)
		g.no(resp.Body.Close())
		if resp.StatusCode != http.StatusOK || strings.Count(string(b), want) != 1 {
			t.Errorf("%d, and %q once is wanted in %q", resp.StatusCode, want, b)
		}
	}
	for _, early := range []int{0, 1, 40} { // bytes of the next request that come while the stream lasts
		a, b := g.author(), g.author()
		a.started()
		b.started()
		say("GET " + events(a) + " HTTP/1.1\r\nHost: x\r\n\r\n")
		g.quietly(1)
		next := "GET " + events(b) + " HTTP/1.1\r\nHost: x\r\n\r\n"
		say(next[:early])
		a.say("one")
		a.complete()
		answer("one")
		say(next[early:])
		g.quietly(1)
		b.say("two")
		b.complete()
		answer("two")
	}
	g.quietly(0)
}

func TestAQuietPartitionGoesOnToo(t *testing.T) {
	g := onOne(t, soon())
	a := g.author()
	c := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events?offset=latest", a.part))
	g.quietly(1)
	a.started()
	if e := c.must(); e.Job != a.head.Job {
		t.Errorf("%+v", e)
	}
	c.close()
	g.quietly(0)
}

func TestAQuietStreamsFirstEventIsMeasured(t *testing.T) {
	cfg := soon()
	reg := prometheus.NewRegistry()
	cfg.Registry = reg
	g := onOne(t, cfg)
	a := g.author()
	c := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events?offset=latest", a.part))
	g.quietly(1)
	a.started()
	c.must()
	eventually(t, func() bool { // the client has the event before it is counted
		families, err := reg.Gather()
		g.no(err)
		for _, f := range families {
			if f.GetName() == "streaming_first_byte_latency_ms" {
				return f.GetMetric()[0].GetHistogram().GetSampleCount() == 1
			}
		}
		return false
	})
}

func TestQuietStreamsHaveHeartbeats(t *testing.T) {
	cfg := soon()
	cfg.Heartbeat = 5 * time.Millisecond
	g := onOne(t, cfg)
	a := g.author()
	a.started()
	c := g.open(events(a))
	c.must()
	g.quietly(1)
	eventually(t, func() bool {
		line, err := c.lines.ReadString('\n')
		g.no(err)
		if line == ":\n" {
			c.beats++
		}
		return c.beats == 5
	})
}

func TestADrainEndsQuietStreamsAndTheyGoOnElsewhere(t *testing.T) {
	g := onOne(t, soon())
	a := g.author()
	a.started()
	c := g.open(events(a))
	first := c.must()
	g.quietly(1)
	g.gateway.Drain()
	if rest := c.rest(); len(rest) != 0 || len(c.retries) != 2 || !soonBack(c.retries[1]) {
		t.Errorf("events at the drain: %v; told to come back after %s ms", rest, c.retries)
	}
	g.quietly(0)
	g.stop()
	g.gateway = New(g.gateway.cfg)
	g.run()
	a.complete()
	seqs(t, g.open(events(a), "Last-Event-ID", first.id).rest(), 1)
}

// TestAtADrainAQuietStreamAsksForNothingMore has a stream without a feed: one whose
// Kafka is away would have its client wait for it.
func TestAtADrainAQuietStreamAsksForNothingMore(t *testing.T) {
	gw := newMadeLog(Config{}).gw
	here, there := net.Pipe()
	defer func() { _ = there.Close() }()
	q := &quiet{g: gw, conn: newPatientConn(here, time.Minute), out: &frames{}, ctx: t.Context()}
	gw.quiets.draining = true
	gw.quiets.add(q)
	defer q.beat.Stop()
	if q.conn.limit.Load() == 0 {
		t.Error("a stream that leaves net/http during a drain is not hurried")
	}
	said := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(there)
		said <- string(b)
	}()
	if next := q.goRound(true); next != over || q.how != endedDrained {
		t.Errorf("%d comes next, %q", next, q.how)
	}
	if s := <-said; !strings.Contains(s, "retry: ") || !strings.HasSuffix(s, "\r\n0\r\n\r\n") {
		t.Errorf("the client got %q", s)
	}
}

// awayFeed is a feed whose Kafka is away.
type awayFeed struct {
	reader reader
	polls  int
}

func (f *awayFeed) perch() *reader { return &f.reader }

func (*awayFeed) end() {}

func (f *awayFeed) poll(context.Context) (<-chan struct{}, error) {
	f.polls++
	return nil, errAway
}

func TestAQuietStreamAsksAnAbsentLogAtOnePaceHoweverOftenItIsRung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw, f := newMadeLog(Config{}).gw, &awayFeed{}
		here, there := net.Pipe()
		defer func() { _ = there.Close() }()
		q := &quiet{
			g: gw, conn: newPatientConn(here, time.Minute), feed: f, out: &frames{},
			ctx: t.Context(), cancel: func() {}, done: func(string) {},
		}
		q.crew, q.round = &gw.crew, q.goRound
		gw.quiets.add(q)
		const rings, rounds = 10, 10
		for range rings {
			q.ring()
			synctest.Wait()
		}
		pause(t.Context(), rounds*retryPause+time.Millisecond)
		synctest.Wait()
		if f.polls != rings+rounds {
			t.Errorf("it was asked %d times, want %d", f.polls, rings+rounds)
		}
		q.end()
	})
}

func TestQuietClientsThatTakeNothingAreLetGo(t *testing.T) {
	t.Parallel()
	cfg := soon()
	cfg.WriteTimeout = time.Second
	g := onOne(t, cfg)
	a := g.author()
	a.started()
	conn := g.tcp()
	g.no(conn.SetReadBuffer(1 << 10))
	_, err := conn.Write([]byte("GET " + events(a) + " HTTP/1.1\r\nHost: x\r\n\r\n"))
	g.no(err)
	g.quietly(1)
	large := strings.Repeat("x", 500<<10)
	for range 16 {
		a.say(large)
	}
	g.quietly(0)
}

func TestAQuietClientThatTalksMuchIsLetGo(t *testing.T) {
	g := onOne(t, soon())
	a := g.author()
	a.started()
	conn := g.tcp()
	ask := "GET " + events(a) + " HTTP/1.1\r\nHost: x\r\n\r\n"
	_, err := conn.Write([]byte(ask))
	g.no(err)
	g.quietly(1)
	_, err = conn.Write([]byte(ask)) // which is no reason to end the stream
	g.no(err)
	a.say("one")
	for b := make([]byte, 4<<10); !strings.Contains(string(b), "one"); {
		_, err := conn.Read(b)
		g.no(err)
	}
	g.quietly(1)
	g.no(conn.SetWriteDeadline(time.Now().Add(wsPatience)))
	for sent := 0; err == nil && sent < 16<<20; sent += 4 << 10 {
		_, err = conn.Write(make([]byte, 4<<10))
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection is still open: %v", err)
	}
	g.quietly(0)
	g.noneLeft()
}

func TestStreamsOfOlderHTTPStayWhereTheyAre(t *testing.T) {
	cfg := soon()
	cfg.Heartbeat = 20 * time.Millisecond
	g := onOne(t, cfg)
	a := g.author()
	a.started()
	conn := g.tcp()
	_, err := conn.Write([]byte("GET " + events(a) + " HTTP/1.0\r\n\r\n"))
	g.no(err)
	lines := bufio.NewReader(conn)
	for line := ""; line != ":\n"; { // it has been quiet for long enough
		line, err = lines.ReadString('\n')
		g.no(err)
	}
	g.quietly(0)
}

// TestGoroutinesAndMemoryComeBackAfterConnectionsCameAndWent opens many of every
// kind; `penstock bench connections` does it with ten thousand.
func TestGoroutinesAndMemoryComeBackAfterConnectionsCameAndWent(t *testing.T) {
	g := onOne(t, soon())
	server := bench.NewServer(g.url, "", 2)
	t.Cleanup(server.Close)
	came := func(n int) {
		for _, kind := range []string{bench.IdleSocket, bench.WatchingSocket, bench.IdleStream} {
			held, err := server.Hold(t.Context(), kind, n, 8, testPartitions)
			g.no(err)
			if kind == bench.IdleStream {
				g.quietly(n)
			}
			held.Close()
		}
		g.quietly(0)
		eventually(t, func() bool {
			g.gateway.sockets.mu.Lock()
			defer g.gateway.sockets.mu.Unlock()
			return g.gateway.sockets.count == 0
		})
	}
	measure := func() (goroutines int, bytes uint64) {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	came(100)
	goroutines, bytes := measure()
	for range 4 {
		came(100)
	}
	const slack = 2 << 20 // what others hold for a while; 400 of each kind would be some 10 MB
	eventually(t, func() bool {
		g, b := measure()
		return g <= goroutines+10 && b <= bytes+slack
	})
}
