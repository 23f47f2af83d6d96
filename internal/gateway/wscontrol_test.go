package gateway

import (
	"runtime"
	"strings"
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
		g.no(c.conn.WriteControl(websocket.PingMessage, []byte(data), time.Now().Add(time.Second)))
		g.no(c.conn.WriteControl(websocket.PongMessage, []byte("nobody asked"), time.Now().Add(time.Second)))
		c.say(`{"op":"ping"}`)
		c.want("pong") // of ours; the protocol's came before it
		if got := <-said; got != data {
			t.Errorf("a pong of %q, want %q", got, data)
		}
	}
	if runtime.GOOS == "linux" { // nothing but the reader waits for the next frame
		g.no(c.conn.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second)))
		eventually(t, func() bool {
			stacks := make([]byte, 4<<20)
			return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "gateway.(*socket).frame")
		})
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
