package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/fault"
)

// noneLeft waits until no connection and no subscription is held any more.
func (g *ground) noneLeft() {
	g.Helper()
	eventually(g, func() bool {
		a, h := g.gateway.sockets, g.gateway.hub
		a.mu.Lock()
		defer a.mu.Unlock()
		h.mu.Lock()
		defer h.mu.Unlock()
		refs, bells := 0, 0
		for _, p := range h.parts {
			refs += p.refs
			p.mu.Lock()
			bells += len(p.bells)
			p.mu.Unlock()
		}
		return a.count == 0 && a.subs == 0 && len(a.open) == 0 && refs == 0 && bells == 0
	})
}

func TestAFrameThatIsTooLargeEndsTheConnection(t *testing.T) {
	g := onOne(t, Config{})
	c := g.dial()
	c.raw(`{"op":"ping","ref":"` + strings.Repeat("a", 1<<20-1000) + `"}`)
	c.refused(fault.InvalidRequest, "", "ref")
	c.raw(`{"op":"ping","ref":"` + strings.Repeat("a", 1<<20) + `"}`)
	if code := c.closed(); code != websocket.CloseMessageTooBig {
		t.Errorf("closed with %d, want %d", code, websocket.CloseMessageTooBig)
	}
	g.noneLeft()
}

// A connection that is reset may take the close with it, which is still in the
// client's system.
func TestAConnectionThatIsClosedForAFrameIsNotReset(t *testing.T) {
	g := onOne(t, Config{})
	body := make([]byte, 64<<10)
	for name, c := range map[string]struct {
		frame []byte
		code  int
	}{
		"too large":  {header(1, 1<<21), websocket.CloseMessageTooBig},
		"of no kind": {header(3, 0), websocket.CloseProtocolError},
		"not UTF-8":  {append(header(1, 1), 0xff), websocket.CloseInvalidFramePayloadData},
	} {
		conn := g.rawConn()
		_, err := conn.Write(append(c.frame, body...))
		g.no(err)
		g.no(conn.SetReadDeadline(time.Now().Add(wsPatience)))
		head, payload, err := g.frame(conn)
		g.no(err)
		if code := int(binary.BigEndian.Uint16(payload)); head != frameClose || code != c.code {
			t.Errorf("%s: %#x, closed with %d, want %d", name, head, code, c.code)
		}
		if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
			t.Errorf("%s: behind the close comes %q, %v", name, rest, err)
		}
		g.no(conn.Close())
	}
	g.noneLeft()
}

func TestTextThatIsNotUTF8EndsTheConnection(t *testing.T) {
	g := onOne(t, Config{})
	for name, text := range map[string]string{
		"a lone byte": "{\"op\":\"p\xff\"}", "an encoded surrogate": "{\"op\":\"\xed\xa0\x80\"}", "half a rune at the end": "{}\xe2\x82",
	} {
		c := g.dial()
		c.raw(text)
		if code := c.closed(); code != websocket.CloseInvalidFramePayloadData {
			t.Errorf("%s: closed with %d, want %d", name, code, websocket.CloseInvalidFramePayloadData)
		}
	}
	c := g.dial()
	c.raw(`{"op":"ping","ref":"\ud83d"}`) // which is UTF-8, and no JSON
	c.refused(fault.InvalidJSON, "", "")
	c.close()
	g.noneLeft()
}

// header is a frame's, masked with zeros, of a client that says how long it is.
func header(opcode byte, length uint64) []byte {
	b := []byte{0x80 | opcode, 0x80 | 127}
	b = binary.BigEndian.AppendUint64(b, length)
	return append(b, 0, 0, 0, 0)
}

func TestFramesThatAreNoneEndTheirConnectionAlone(t *testing.T) {
	g := onOne(t, Config{})
	good := g.dial()
	for name, bytes := range map[string][]byte{
		"half a header":         {0x81},
		"half a frame":          append(header(1, 100), "{"...),
		"a giant's header":      header(1, 1<<62),
		"a length beyond all":   header(1, 1<<63+5),
		"no mask":               {0x81, 0x02, '{', '}'},
		"a reserved opcode":     header(3, 0),
		"reserved bits":         {0xf1, 0x80, 0, 0, 0, 0},
		"a ping of many bytes":  append([]byte{0x89, 0x80 | 126, 0, 200, 0, 0, 0, 0}, make([]byte, 200)...),
		"a continuation of nil": header(0, 0),
		"a close of one byte":   {0x88, 0x81, 0, 0, 0, 0, 1},
		"noise":                 []byte(strings.Repeat("\xde\xad\xbe\xef", 5000)),
	} {
		conn := g.rawConn()
		if _, err := conn.Write(bytes); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.HasPrefix(name, "half") {
			g.no(conn.Close())
			continue
		}
		g.endsWithin(wsPatience, conn, name)
	}
	good.say(`{"op":"ping"}`)
	good.want("pong")
	good.close()
	g.noneLeft()
}

// endsWithin reads a connection until the server closes it.
func (g *ground) endsWithin(d time.Duration, conn net.Conn, name string) {
	g.Helper()
	g.no(conn.SetReadDeadline(time.Now().Add(d)))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		g.Errorf("%s: the connection is still open", name)
	}
}

func TestAFrameThatHasBegunMustEndInTime(t *testing.T) {
	g := onOne(t, Config{}) // which pings far more seldom than this test lasts
	g.gateway.sockets.framePatience = 50 * time.Millisecond
	good := g.dial()
	for name, bytes := range map[string][]byte{
		"a byte":                   {0x81},
		"half a head":              header(1, 100)[:7],
		"half a frame":             append(header(1, 100), "{"...),
		"a head of a ping":         {0x89, 0x85, 0, 0, 0, 0},
		"a byte of a close":        {0x88},
		"a frame, and half a head": {0x81, 0x82, 0, 0, 0, 0, '{', '}', 0x81, 0xfe},
		"a fragment":               {0x01, 0x81, 0, 0, 0, 0, '{'},
	} {
		conn := g.rawConn()
		_, err := conn.Write(bytes)
		g.no(err)
		g.endsWithin(wsPatience/3, conn, name)
	}
	good.say(`{"op":"ping"}`)
	good.want("pong")
	good.close()
	g.noneLeft()
}

func TestNoiseOnASocketBringsNothingDown(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{})
	a := g.author()
	a.whole(10)
	frames := []string{
		subscribeJob("a", a), subscribeJob("b", a, `,"credit":1`), subscribeJob("c", a, `,"snapshot":true`),
		`{"op":"unsubscribe","sub":"a"}`, `{"op":"credit","sub":"b","n":1}`, `{"op":"ping"}`, `{"op":"cancel","job":"x"}`,
		`{"op":"subscribe","sub":"p","topic":"tokens","partition":0}`, `{"op":"unsubscribe","sub":"p"}`, `nope`, "\x00",
		`{"op":"subscribe","sub":"d","conversation":"talk"}`, `{"op":"unsubscribe","sub":"d"}`,
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			c := g.dial()
			defer c.close()
			go func() { _, _ = io.Copy(io.Discard, c.conn.UnderlyingConn()) }()
			for range 500 {
				if c.conn.WriteMessage(1+random.IntN(2), []byte(frames[random.IntN(len(frames))])) != nil {
					t.Error("the connection has ended")
					return
				}
			}
		})
	}
	wg.Wait()
	g.noneLeft()
}

func TestAMillionSubscribesFromOneWhoDoesNotRead(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{WriteTimeout: 200 * time.Millisecond})
	a := g.author()
	a.started()
	c := g.dial()
	if conn, ok := c.conn.NetConn().(*net.TCPConn); ok { // so that what is not read is soon too much
		g.no(conn.SetReadBuffer(4 << 10))
	}
	long := strings.Repeat("x", maxName) // an answer says it again
	frame := []byte(`{"op":"subscribe","ref":"` + long + `","sub":"` + long + `","job":"` + a.head.Job + `"}`)
	sent := 0
	for ; sent < 1_000_000; sent++ { // all but one are refused, and nobody reads it
		if c.conn.WriteMessage(websocket.TextMessage, frame) != nil {
			break
		}
	}
	g.noneLeft() // it was let go
	if sent == 1_000_000 {
		t.Error("a million frames were taken whose answers nobody read")
	}
}

func TestASocketThatStopsReadingIsLetGoAndItsCursorWorks(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{WriteTimeout: time.Second, Registry: prometheus.NewRegistry()})
	a := g.author()
	a.started()
	c := g.dial()
	c.say(subscribeJob("a", a))
	c.want("subscribed")
	f := c.want("events")
	filler := strings.Repeat("x", 100_000)
	for range 120 { // more than the sockets' buffers hold
		a.say(filler)
	}
	g.noneLeft()
	eventually(t, func() bool { return counter(t, g, "streaming_completions_total", "slow") == 1 })
	g.restart(func(c *Config) { c.WriteTimeout = 0 })
	a.complete()
	c = g.dial()
	c.say(subscribeJob("a", a, `,"cursor":"`, f.Cursor, `"`))
	c.want("subscribed")
	all, status := c.untilEnd()
	seqs(t, all, 1)
	if len(all) != 121 || status != "completed" {
		t.Errorf("%d events, %q; want 121", len(all), status)
	}
}

func TestASlowClientIsNotCutOffForItsSlowness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		c := newPatientConn(server, time.Second)
		c.unheard.Store(1)
		want := bytes.Repeat([]byte("x"), 100)
		var wg sync.WaitGroup
		wg.Go(func() {
			if n, err := c.Write(want); n != len(want) || err != nil {
				t.Errorf("%d bytes were written: %v", n, err)
			}
		})
		var got []byte
		for len(got) < len(want) { // a byte now and then: the whole takes 90 s
			pause(t.Context(), 900*time.Millisecond)
			b := make([]byte, 1)
			if _, err := client.Read(b); err != nil {
				t.Fatal(err)
			}
			got = append(got, b...)
		}
		wg.Wait()
		if n := c.unheard.Load(); n != 0 {
			t.Errorf("it is taken for dead since %d pings", n)
		}
		// One who takes nothing is let go, and at a stop sooner.
		for _, patience := range []time.Duration{time.Second, 100 * time.Millisecond} {
			began := time.Now()
			if n, err := c.Write(want); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != patience {
				t.Errorf("%d bytes were taken, %v, after %s; want none after %s", n, err, time.Since(began), patience)
			}
			c.hurry(time.Now().Add(100 * time.Millisecond))
		}
		if err := errors.Join(client.Close(), server.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestOneWhoSaysNothingForLongIsGivenUp(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{Ping: time.Second}) // one who answers is to do so within three
	alive, dead := g.dial(), g.dial()
	pings := make(chan struct{}, 100)
	answer := alive.conn.PingHandler()
	alive.conn.SetPingHandler(func(data string) error { pings <- struct{}{}; return answer(data) })
	go func() { _, _, _ = alive.conn.ReadMessage() }() // answers pings
	conn := dead.conn.UnderlyingConn()                 // never answers
	g.no(conn.SetReadDeadline(time.Now().Add(wsPatience)))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it is still there")
	}
	for range 5 { // longer than the silent one had
		<-pings
	}
	alive.say(`{"op":"ping"}`)
}

// A process that stood still for longer finds that a client was silent, which it has
// not asked meanwhile.
func TestAClientIsGivenUpForPingsThatItLeftUnansweredAndNotForTime(t *testing.T) {
	g := onOne(t, Config{Ping: time.Hour})
	conn := g.rawConn()
	s := g.only()
	ping := func() {
		s.tick()
		if head, _, err := g.frame(conn); head != framePing || err != nil {
			t.Fatalf("%#x, %v", head, err)
		}
	}
	for range silentPings {
		ping()
		_, err := conn.Write([]byte{0x8a, 0x80, 0, 0, 0, 0})
		g.no(err)
		eventually(t, func() bool { return s.net.unheard.Load() == 0 })
	}
	for range silentPings - 1 {
		ping()
	}
	s.tick()
	g.noneLeft()
}

func TestAFrameInFragmentsIsReadWhole(t *testing.T) {
	g := onOne(t, Config{})
	c := g.dial()
	w, err := c.conn.NextWriter(websocket.TextMessage)
	g.no(err)
	for _, part := range []string{`{"op":`, `"ping",`, `"ref":"in parts"}`} { // in fragments
		_, err := w.Write([]byte(part))
		g.no(err)
	}
	g.no(w.Close())
	if f := c.want("pong"); f.Ref != "in parts" {
		t.Errorf("got %s", f.raw)
	}
}

// counter reads a counter of one label's value.
func counter(t *testing.T, g *ground, name, label string) float64 {
	t.Helper()
	reg, _ := g.gateway.cfg.Registry.(*prometheus.Registry)
	families, err := reg.Gather()
	g.no(err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func TestMetricsCountSockets(t *testing.T) {
	g := onOne(t, Config{Registry: prometheus.NewRegistry()})
	a := g.author()
	a.started()
	c := g.dial()
	sse := g.open(events(a))
	sse.must()
	for _, sub := range []string{"1", "2"} {
		c.say(subscribeJob(sub, a))
		c.want("subscribed")
		c.want("events")
	}
	for name, want := range map[string]float64{
		"penstock_gateway_websockets": 1, "penstock_gateway_subscriptions": 2,
		"streaming_active_connections": 2, "streaming_chunks_total": 3,
	} {
		eventually(t, func() bool { return counter(t, g, name, "") == want }) // the client has a frame before it is counted
	}
	eventually(t, func() bool {
		in, out := counter(t, g, "penstock_gateway_frames_total", "in"), counter(t, g, "penstock_gateway_frames_total", "out")
		return in == 2 && out == 5
	})
	sse.close()
	c.close()
	g.noneLeft()
	eventually(t, func() bool { return counter(t, g, "streaming_active_connections", "") == 0 })
	eventually(t, func() bool { return counter(t, g, "streaming_completions_total", "gone") == 3 })
}

func FuzzClientFrame(f *testing.F) {
	for _, s := range []string{
		"", "{", "null", `{"op":"ping","ref":"x"}`, `{"op":"subscribe","sub":"a","job":"j","credit":3,"snapshot":true}`,
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":1,"offset":12}`, `{"op":"credit","sub":"a","n":1}`,
		`{"op":"submit","idempotency_key":"k","job":{"body":{"model":"sim"}},"sub":"s"}`, `{"op":"cancel","job":"j","partition":2}`,
		`{"op":"unsubscribe","sub":"a"}`, "{\"op\":\"ping\",\"ref\":\"\xff\"}", `{"op":"subscribe","sub":"a","topic":"tokens","partition":1,"offset":"latest"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		got, err := decodeFrame(raw)
		if !bytes.Equal(before, raw) {
			t.Fatal("the frame was written to")
		}
		if err != nil {
			fe, ok := errors.AsType[*fault.Error](err)
			if !ok || fe.Message == "" || fe.Code != fault.InvalidRequest && fe.Code != fault.InvalidJSON {
				t.Errorf("%q: %v is no fault that a client is to blame for", raw, err)
			}
			return
		}
		if !jsontext.Value(raw).IsValid() || len(got.ref) > maxName || len(got.sub) > maxName {
			t.Errorf("%q was taken: %+v", raw, got)
		}
	})
}
