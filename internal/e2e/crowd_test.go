package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/job"
)

// hostile is one kind of client: what it sends once it is connected, and what it
// sends again and again. It never reads, and comes back whenever it is let go.
type hostile struct {
	hello string
	again string
	blind bool // its receive buffer is small, so that the server's writes stop soon
}

// crowd are the kinds of clients that a server on the Internet meets.
func crowd(fat string, ids []string) map[string]hostile {
	const post = "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	var strangers, same strings.Builder
	for i, id := range ids {
		strangers.WriteString(masked(1, fmt.Sprintf(`{"op":"subscribe","sub":"%d","job":%q}`, i, id)))
		strangers.WriteString(masked(1, fmt.Sprintf(`{"op":"unsubscribe","sub":"%d"}`, i)))
	}
	for range 20 {
		same.WriteString(masked(1, fmt.Sprintf(`{"op":"subscribe","sub":"a","job":%q}`, fat)) + masked(1, `{"op":"unsubscribe","sub":"a"}`))
	}
	return map[string]hostile{
		"a head that dribbles":        {hello: "GET /v1/ws HTTP/1.1\r\nHost: x\r\nX-Slow: ", again: "a"},
		"a body that dribbles":        {hello: post + "Content-Length: 100000\r\n\r\n{", again: " "},
		"a handshake that dribbles":   {hello: handshake[:len(handshake)-20], again: ""},
		"half frames":                 {hello: handshake + masked(1, strings.Repeat(" ", 1<<19))[:50], again: " "},
		"frames that are too large":   {hello: handshake + masked(1, strings.Repeat(" ", 1<<20))[:1<<16], again: strings.Repeat(" ", 1<<12)},
		"frames of a giant":           {hello: handshake + "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", again: ""},
		"pings":                       {hello: handshake, again: strings.Repeat("\x89\x80\x00\x00\x00\x00", 50)},
		"noise":                       {hello: handshake + strings.Repeat("\xde\xad\xbe\xef", 100), again: "\xff"},
		"subscribes back and forth":   {hello: handshake, again: same.String()},
		"subscribes to nothing":       {hello: handshake, again: strangers.String()},
		"sockets that are not read":   {hello: handshake + masked(1, fmt.Sprintf(`{"op":"subscribe","sub":"a","job":%q}`, fat)), blind: true},
		"streams that are not read":   {hello: "GET /v1/jobs/" + fat + "/events HTTP/1.1\r\nHost: x\r\n\r\n", blind: true},
		"cursors that are none":       {hello: "", again: "GET /v1/jobs/" + fat + "/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: AAAA\r\n\r\n"},
		"HTTP/2 that says no more":    {hello: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", again: ""},
		"HTTP/2 pings":                {hello: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", again: strings.Repeat("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", 20)},
		"connections that say naught": {},
	}
}

// be is n clients of the kind, one goroutine for all, until ctx ends.
func (h hostile) be(ctx context.Context, addr string, n int) {
	const beat = 250 * time.Millisecond
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	for ctx.Err() == nil {
		for i, c := range conns {
			if ctx.Err() != nil {
				return
			}
			text := h.again
			if c == nil {
				if c = h.dial(addr); c == nil {
					continue
				}
				conns[i], text = c, h.hello
			}
			_ = c.SetDeadline(time.Now().Add(time.Millisecond)) // who is not read is not waited for
			_, err := c.Write([]byte(text))
			if text == "" && !h.blind { // it is read alone whether it is still there
				_, err = c.Read(make([]byte, 512))
			}
			if err != nil && !os.IsTimeout(err) {
				_ = c.Close()
				conns[i] = nil
			}
		}
		pause(ctx, beat)
	}
}

func (h hostile) dial(addr string) net.Conn {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil
	}
	if t, ok := c.(*net.TCPConn); ok && h.blind {
		_ = t.SetReadBuffer(4 << 10) // as small as the system allows
	}
	return c
}

// lateness gathers how late events came.
type lateness struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *lateness) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

// over is what came within a time: its median and its 99th percentile.
func (l *lateness) over(ctx context.Context, d time.Duration) (p50, p99 time.Duration) {
	l.mu.Lock()
	l.all = nil
	l.mu.Unlock()
	pause(ctx, d)
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.all)
	if len(l.all) == 0 {
		return d, d
	}
	return l.all[len(l.all)/2], l.all[len(l.all)*99/100]
}

// TestAHostileCrowdMovesNothingForTheOthers takes how late events come to quick
// watchers, alone and among clients of every hostile kind, so many of each as
// PENSTOCK_CROWD says, and what memory the crowd takes. No quick one misses anything
// or is cut off, and all is as before once the crowd has gone.
func TestAHostileCrowdMovesNothingForTheOthers(t *testing.T) {
	each, measure := 12, 2*time.Second
	if text := os.Getenv("PENSTOCK_CROWD"); text != "" {
		var err error
		if each, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		measure = 20 * time.Second
	}
	p := deploy(t).start("ingest,processors,projections,gateway")
	quick := p.submit("sim:tokens=1000000,ttft=0s,gap=20ms")
	fat := p.submit("sim:tokens=1000000,ttft=0s,gap=20ms,chunk=400") // 2 KB a time
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var (
		late      lateness
		followers []*follower
		wg        sync.WaitGroup
	)
	for i := range 10 {
		w := &watcher{t: t, url: p.url, job: quick, late: late.add}
		f := &follower{t: t, url: p.url, jobs: []*watcher{w}}
		followers = append(followers, f)
		follow := f.overSSE
		if i%2 == 0 {
			follow = f.overSocket
		}
		wg.Go(func() { follow(ctx) })
	}
	for _, f := range followers {
		f.hearsSince(ctx, time.Now())
	}
	late.over(ctx, measure/2) // it warms up
	alone50, alone99 := late.over(ctx, measure)
	before, goroutines := p.figure("process_resident_memory_bytes"), p.goroutines()

	kinds := crowd(fat, strangers(t, 20))
	if os.Getenv("PENSTOCK_CROWD") != "" { // each kind by itself, to see who does what
		for name, h := range kinds {
			kctx, stop := context.WithCancel(ctx)
			var gone sync.WaitGroup
			gone.Go(func() { h.be(kctx, strings.TrimPrefix(p.url, "http://"), each) })
			late.over(ctx, measure/10)
			cpu := p.figure("process_cpu_seconds_total")
			p50, p99 := late.over(ctx, measure/4)
			t.Logf("%d of %s: %s (p99 %s), %.2f cores", each, name, p50, p99, (p.figure("process_cpu_seconds_total")-cpu)/(measure/4).Seconds())
			stop()
			gone.Wait()
		}
	}
	hctx, leave := context.WithCancel(ctx)
	defer leave()
	var crowded sync.WaitGroup
	for _, h := range kinds {
		crowded.Go(func() { h.be(hctx, strings.TrimPrefix(p.url, "http://"), each) })
	}
	late.over(ctx, measure) // they come
	among50, among99 := late.over(ctx, measure)
	among := p.figure("process_resident_memory_bytes")
	open := p.figure("streaming_active_connections")
	leave()
	crowded.Wait()
	t.Logf("of %d kinds, %d each: %v streams and sockets open; events are %s old (p99 %s) among them, %s (%s) alone; resident memory %.0f MiB, of %.0f before: %.1f KiB each",
		len(kinds), each, open, among50, among99, alone50, alone99, among/(1<<20), before/(1<<20), (among-before)/1024/float64(len(kinds)*each))
	p.calm(goroutines)
	after50, after99 := late.over(ctx, measure)
	t.Logf("afterwards they are %s old (%s); resident memory %.0f MiB", after50, after99, p.figure("process_resident_memory_bytes")/(1<<20))

	// The crowd and the server share the machine's cores, so that a bound in time can
	// only be wide; memory is the server's own. One who is waited for holds up the
	// others for ten seconds, until it is let go.
	if among50 > 20*alone50+2*time.Second {
		t.Errorf("events are %s old among a hostile crowd, %s alone", among50, alone50)
	}
	const slack, most = 64 << 20, 128 << 10 // bytes: of all, and of each
	if grown := among - before; grown > float64(slack+most*len(kinds)*each) {
		t.Errorf("the server has grown by %.0f bytes for %d clients", grown, len(kinds)*each)
	}
	cancelJob(t, p.url, quick)
	cancelJob(t, p.url, fat)
	wg.Wait()
	for _, f := range followers {
		if f.cuts > 0 {
			t.Errorf("a quick one was cut off %d times", f.cuts)
		}
	}
	p.stop()
	if strings.Contains(p.out.String(), "panic") {
		t.Error("a handler panicked")
	}
}

// strangers mints ids of jobs that are not.
func strangers(t *testing.T, n int) []string {
	t.Helper()
	ids := make([]string, n)
	for i := range ids {
		var err error
		if ids[i], err = job.Mint(time.Now(), "", 4, noise{}); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// noise is a source of randomness.
type noise struct{}

// Read implements io.Reader.
func (noise) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return len(b), nil
}
