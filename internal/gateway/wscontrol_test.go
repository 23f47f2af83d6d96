package gateway

import (
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestPingsAreAnsweredWithWhatTheySaid(t *testing.T) {
	g := onOne(t, Config{})
	c := g.dial()
	said := make(chan string, 1)
	c.conn.SetPongHandler(func(data string) error { said <- data; return nil })
	for _, data := range []string{"", "a", strings.Repeat("x", 125)} {
		g.no(c.conn.WriteControl(websocket.PingMessage, []byte(data), time.Now().Add(wsPatience)))
		g.no(c.conn.WriteControl(websocket.PongMessage, []byte("nobody asked"), time.Now().Add(wsPatience)))
		c.say(`{"op":"ping"}`)
		c.want("pong") // of ours; the protocol's came before it
		if got := <-said; got != data {
			t.Errorf("a pong of %q, want %q", got, data)
		}
	}
	if runtime.GOOS == "linux" { // nothing but the reader waits for the next frame
		g.no(c.conn.WriteControl(websocket.PongMessage, nil, time.Now().Add(wsPatience)))
		eventually(t, func() bool {
			stacks := make([]byte, 4<<20)
			return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "gateway.(*socket).frame")
		})
	}
}

func TestOneWhoSendsTooMuchIsReadMoreSlowlyAndLosesNothing(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{})
	c, other := g.dial(), g.dial()
	const more = 400
	began := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range framesAhead + more {
			c.raw(`{"op":"ping"}`)
		}
	})
	for i := range framesAhead + more {
		if c.want("pong"); i == framesAhead {
			other.say(`{"op":"ping"}`)
			other.want("pong")
		}
	}
	wg.Wait()
	// The connection was there a moment before that, and may have saved up for it.
	if took, least := time.Since(began), more*time.Second/framesASecond*9/10; took < least {
		t.Errorf("%d frames were read in %v, %v at the least", framesAhead+more, took, least)
	}
	var p pacer
	now := time.Unix(1000, 0)
	for i := range 3 * framesAhead {
		want := time.Duration(max(0, i+1-framesAhead)) * time.Second / framesASecond
		if wait := p.take(now); wait != want {
			t.Fatalf("after %d frames at once it waits %v, want %v", i+1, wait, want)
		}
	}
	if wait := p.take(now.Add(time.Hour)); wait != 0 {
		t.Errorf("after an hour it waits %v", wait)
	}
}

func TestPingsWithinAMessageAreAnsweredAndReadNoFasterThanOthers(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{})
	conn := g.rawConn()
	_, err := conn.Write([]byte{0x01, 0x81, 0, 0, 0, 0, '{'}) // it has begun
	g.no(err)
	const more = 400
	began := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range framesAhead + more {
			if _, err := conn.Write([]byte{0x89, 0x81, 0, 0, 0, 0, 'x'}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range framesAhead + more {
		if head, payload, err := g.frame(conn); head != framePong || string(payload) != "x" || err != nil {
			t.Fatalf("%#x %q, %v", head, payload, err)
		}
	}
	wg.Wait()
	if took, least := time.Since(began), more*time.Second/framesASecond*9/10; took < least {
		t.Errorf("%d pings were read in %v, %v at the least", framesAhead+more, took, least)
	}
	_, err = conn.Write([]byte{0x80, 0x8d, 0, 0, 0, 0, '"', 'o', 'p', '"', ':', '"', 'p', 'i', 'n', 'g', '"', '}', ' '})
	g.no(err)
	if head, payload, err := g.frame(conn); head != frameText || string(payload) != `{"op":"pong"}` || err != nil {
		t.Errorf("the message itself: %#x %q, %v", head, payload, err)
	}
}

func TestControlFramesThatAreNoneEndTheConnection(t *testing.T) {
	g := onOne(t, Config{})
	for name, bytes := range map[string]string{
		"too long":   "\x89\xfe\x00\x7e\x00\x00\x00\x00" + strings.Repeat("x", 126),
		"unmasked":   "\x89\x01x",
		"a fragment": "\x09\x81\x00\x00\x00\x00x",
		"reserved":   "\x8b\x80\x00\x00\x00\x00",
	} {
		c := g.dial()
		_, err := c.conn.UnderlyingConn().Write([]byte(bytes))
		g.no(err)
		if code := c.closed(); code != websocket.CloseProtocolError {
			t.Errorf("%s: closed with %d", name, code)
		}
	}
}
