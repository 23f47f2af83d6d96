package gateway

import (
	"encoding/binary"
	"io"
	"strconv"
	"testing"
)

// frame reads a server's frame.
func (g *ground) frame(r io.Reader) (head byte, payload []byte, err error) {
	g.Helper()
	b := make([]byte, 10)
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return 0, nil, err
	}
	size := uint64(b[1])
	switch size {
	case 126:
		_, err = io.ReadFull(r, b[2:4])
		size = uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		_, err = io.ReadFull(r, b[2:10])
		size = binary.BigEndian.Uint64(b[2:])
	}
	if err == nil {
		payload = make([]byte, size)
		_, err = io.ReadFull(r, payload)
	}
	g.no(err)
	return b[0], payload, nil
}

// only is the one WebSocket that is open.
func (g *ground) only() (s *socket) {
	g.Helper()
	eventually(g, func() bool {
		g.gateway.sockets.mu.Lock()
		defer g.gateway.sockets.mu.Unlock()
		for s = range g.gateway.sockets.open {
		}
		return len(g.gateway.sockets.open) == 1
	})
	return s
}

// TestNothingIsSentBehindAClose has many subscriptions that can be read at the very
// moment at which the connection is closed.
func TestNothingIsSentBehindAClose(t *testing.T) {
	const subs = 20
	for name, c := range map[string]struct {
		code  uint16
		close func(s *socket)
		asks  []byte // that the client says before it
	}{
		"by a drain":    {closeStopping, (*socket).bye, nil},
		"by the client": {1000, func(s *socket) { eventually(t, s.told) }, []byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}},
	} {
		t.Run(name, func(t *testing.T) {
			g := onOne(t, Config{})
			a := g.author()
			a.started()
			client := g.dial()
			for i := range subs {
				client.say(subscribeJob(strconv.Itoa(i), a, `,"credit":1`))
				client.want("subscribed")
				client.want("events")
			}
			a.say("behind the close")
			s, conn := g.only(), client.conn.UnderlyingConn()
			s.report(func() {
				for _, sub := range s.subs {
					sub.frame.credit = -1
					s.rouse(sub)
				}
				if c.asks != nil {
					_, err := conn.Write(c.asks)
					g.no(err)
				}
				c.close(s)
			})
			closed := false
			for {
				head, payload, err := g.frame(conn)
				if err != nil {
					break
				}
				if closed {
					t.Fatalf("behind the close comes %s", payload)
				}
				if closed = head == frameClose; closed && binary.BigEndian.Uint16(payload) != c.code {
					t.Errorf("closed with %d, want %d", binary.BigEndian.Uint16(payload), c.code)
				}
			}
			if !closed {
				t.Error("the connection ended without a close")
			}
		})
	}
}

// told tells whether the pump was left something to do.
func (s *socket) told() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inbox) > 0
}
