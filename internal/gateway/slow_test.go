package gateway

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// stuck is how many WebSockets and streams have something to write that their
// clients do not take.
func (g *Gateway) stuck() (n int) {
	g.sockets.mu.Lock()
	for s := range g.sockets.open {
		s.mu.Lock()
		if s.running {
			n++
		}
		s.mu.Unlock()
	}
	g.sockets.mu.Unlock()
	g.quiets.mu.Lock()
	defer g.quiets.mu.Unlock()
	for q := range g.quiets.open {
		q.mu.Lock()
		if q.running {
			n++
		}
		q.mu.Unlock()
	}
	return n
}

// deaf opens WebSockets and streams of a job that never read, half and half.
func (g *ground) deaf(a *author, n int) {
	g.Helper()
	for i := range n {
		conn := g.tcp()
		g.no(conn.SetReadBuffer(4 << 10)) // as small as the system allows
		text := "GET " + events(a) + " HTTP/1.1\r\nHost: x\r\n\r\n"
		if i%2 == 0 {
			say := subscribeJob("s", a)
			text = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
				"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
			_, err := conn.Write([]byte(text))
			g.no(err)
			_, err = conn.Read(make([]byte, 1<<10)) // the handshake's answer: before it nothing may be said
			g.no(err)
			text = string(header(1, uint64(len(say)))) + say
		}
		_, err := conn.Write([]byte(text))
		g.no(err)
	}
}

func TestSlowReadersMoveNeitherMemoryNorTheQuickOne(t *testing.T) {
	const readers, each, rounds = 1000, 64 << 10, 40
	g := onOne(t, Config{BudgetBytes: 1 << 20, WriteTimeout: 10 * time.Minute, Quiet: time.Millisecond})
	g.serve() // which bounds what the system keeps for them
	a := g.author()
	a.started()
	quick := g.dial()
	quick.say(subscribeJob("s", a))
	quick.want("subscribed")
	quick.atLeast(1)            // output.started
	another := func() *author { // of the same partition
		for {
			if b := g.author(); b.part == a.part {
				return b
			}
		}
	}
	beside := another() // whom nobody watches
	round := func() time.Duration {
		beside.say(strings.Repeat("x", each))
		began := time.Now()
		a.say(strings.Repeat("x", each))
		quick.atLeast(1)
		return time.Since(began)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	median := func() time.Duration {
		times := make([]time.Duration, rounds)
		for i := range times {
			times[i] = round()
		}
		slices.Sort(times)
		return times[rounds/2]
	}
	alone, before := median(), heap()
	beside = another() // whom nobody reads
	beside.started()
	g.deaf(beside, readers)
	g.quietly(readers / 2)
	written := 0
	for ; g.gateway.stuck() < readers; written++ { // until the system takes no more for any of them
		if written == 1000 {
			t.Fatalf("%d of %d are stuck after %d MB: the test does not do what it says", g.gateway.stuck(), readers, written*each>>20)
		}
		round()
	}
	among, after := median(), heap()
	// The server, its clients and the broker share this process. A reader that
	// takes nothing may hold one frame, and what it is a copy of; without a bound
	// it would be all of what was written since it was stuck, 2.6 MB each.
	if grown := int64(after) - int64(before); grown > readers*(4*flushBytes) {
		t.Errorf("the heap has grown by %d bytes for %d readers, %d each", grown, readers, grown/readers)
	}
	if among > 20*alone+2*time.Second { // who waits for one that does not read waits for ten minutes
		t.Errorf("the quick one waits %v among slow readers, %v alone", among, alone)
	}
	t.Logf("%v alone, %v among %d who do not read and were stuck after %d MB; the heap has grown by %d KiB",
		alone, among, readers, written*each>>20, (int64(after)-int64(before))>>10)
}
