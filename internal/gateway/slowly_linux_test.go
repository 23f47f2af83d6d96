package gateway

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// handshake is a WebSocket's, as text.
const handshake = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// narrow is a connection to the server of a client whose system takes little ahead,
// in packets such as those of a network.
func (g *ground) narrow() net.Conn {
	g.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var size, room error
		err := c.Control(func(fd uintptr) {
			size = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400)
			room = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
		})
		return errors.Join(err, size, room)
	}}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(g.Context(), "tcp", strings.TrimPrefix(g.url, "http://"))
	g.no(err)
	g.Cleanup(func() { _ = conn.Close() })
	return conn
}

// slowly reads n bytes, so many a second, and no sooner. It gives how many came.
func slowly(t *testing.T, conn net.Conn, n, rate int) (got int) {
	t.Helper()
	const beat = 10 * time.Millisecond
	began, b := time.Now(), make([]byte, n)
	for got < n {
		due := int(time.Since(began).Seconds() * float64(rate))
		if due <= got {
			pause(t.Context(), beat)
			continue
		}
		m, err := conn.Read(b[:min(due, n)-got])
		if got += m; err != nil {
			t.Log(err)
			break
		}
	}
	return got
}

// TestOneWhoReadsSlowlyAllTheTimeGetsALargeRecordWhole has clients that read
// 60 KB in the time for a write, which is four seconds here. It was cut for all of what
// there was to write at once, and the system's lumps were of 64 KiB and more. Those of
// half as much leave a client two seconds in which its machine stands still.
func TestOneWhoReadsSlowlyAllTheTimeGetsALargeRecordWhole(t *testing.T) {
	t.Parallel()
	const rate, size = 15_000, 200_000
	for name, c := range map[string]struct {
		quiet time.Duration
		ws    bool
	}{
		"a stream in net/http": {quiet: time.Hour},
		"a quiet stream":       {quiet: time.Millisecond},
		"a WebSocket":          {ws: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := onOne(t, Config{WriteTimeout: 4 * time.Second, Quiet: c.quiet})
			g.serve() // which bounds what the system keeps
			a := g.author()
			a.started()
			conn := g.narrow()
			ask := "GET " + events(a) + " HTTP/1.1\r\nHost: x\r\n\r\n"
			if c.ws {
				_, err := conn.Write([]byte(handshake))
				g.no(err)
				_, err = conn.Read(make([]byte, 1<<10)) // before the answer nothing may be said
				g.no(err)
				say := subscribeJob("s", a)
				ask = string(header(1, uint64(len(say)))) + say
			}
			_, err := conn.Write([]byte(ask))
			g.no(err)
			for b := make([]byte, 1<<10); !strings.Contains(string(b), `"output.started"`); {
				_, err := conn.Read(b)
				g.no(err)
			}
			if c.quiet == time.Millisecond {
				g.quietly(1)
			}
			a.say(strings.Repeat("x", size))
			if got := slowly(t, conn, size, rate); got < size {
				t.Errorf("it was let go after %d bytes of %d, and had read all the time", got, size)
			}
		})
	}
}
