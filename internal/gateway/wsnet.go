package gateway

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/internal/api"
)

// patientConn lets a client be slow: a write fails only where nothing of it was
// taken for as long as the patience. It sets its deadlines itself.
type patientConn struct {
	net.Conn
	patience time.Duration
	ready    *awaiter     // nil where that cannot be known beforehand
	limit    atomic.Int64 // Unix nanoseconds at which patience ends for good; 0: it does not
	unheard  atomic.Int32 // pings since the client's last sign of life
}

func newPatientConn(c net.Conn, patience time.Duration) *patientConn {
	return &patientConn{Conn: c, patience: patience, ready: newAwaiter(c)}
}

// await waits for something to read, where that can be told without reading it.
func (c *patientConn) await() error {
	if c.ready == nil {
		return nil
	}
	return c.ready.await()
}

// try writes what the system takes at once, which is nothing where that cannot be
// told beforehand. Write is for the rest.
func (c *patientConn) try(b []byte) (n int, err error) {
	if c.ready == nil {
		return 0, nil
	}
	return c.ready.write(b)
}

// waited is how long a write takes at least that had to wait for the client.
// That it got through is then a sign of life; a quick one says nothing, since
// the system takes bytes for a client that is long gone.
const waited = 50 * time.Millisecond

// Write implements net.Conn.
func (c *patientConn) Write(b []byte) (int, error) {
	done := 0
	for {
		began := time.Now()
		deadline, limit := began.Add(c.patience), c.limit.Load()
		if limit != 0 && limit < deadline.UnixNano() {
			deadline = time.Unix(0, limit)
		}
		if err := c.Conn.SetWriteDeadline(deadline); err != nil {
			return done, err //nolint:wrapcheck // a connection hands errors on as they are
		}
		n, err := c.Conn.Write(b[done:min(done+api.WritePiece, len(b))])
		done += n
		if n > 0 && time.Since(began) > waited {
			c.heard()
		}
		if err == nil && done < len(b) {
			continue
		}
		if n == 0 || limit != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			if err == nil && c.limit.Load() == 0 {
				err = c.Conn.SetWriteDeadline(time.Time{}) // of which try must hear nothing
			}
			return done, err //nolint:wrapcheck // the same
		}
	}
}

// SetWriteDeadline implements net.Conn; Write knows better.
func (*patientConn) SetWriteDeadline(time.Time) error { return nil }

// hurry ends all patience at a time, in both directions.
func (c *patientConn) hurry(at time.Time) {
	c.limit.Store(at.UnixNano())
	_ = c.SetDeadline(at) // on a closed connection there is nothing to hurry
}

// heard notes a sign of life.
func (c *patientConn) heard() { c.unheard.Store(0) }

// libraryConn is the connection as the WebSocket library has it. What that writes
// behind the handshake, answers to what is no frame or is the last one, goes
// through the pump.
type libraryConn struct {
	*patientConn
	socket *socket
}

// Write implements net.Conn.
func (c *libraryConn) Write(b []byte) (int, error) {
	if c.socket == nil {
		return c.patientConn.Write(b)
	}
	last, done := len(b) > 0 && b[0] == frameClose, make(chan struct{})
	c.socket.report(func() {
		defer close(done)
		if !c.socket.mute() {
			c.socket.out.add(&c.socket.all.buffers, b)
			c.socket.closing = last
			c.socket.flush(false)
		}
	})
	late := time.NewTimer(closePatience)
	defer late.Stop()
	select {
	case <-done:
		c.socket.parting = c.socket.parting || last
		return len(b), nil
	case <-late.C: // the client takes nothing
		return 0, os.ErrDeadlineExceeded
	}
}
