package api

import (
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
)

// listener accepts connections whose late heads get no answer, and which can be
// given back.
type listener struct {
	net.Listener
	back *returned
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &headConn{TCPConn: tcp, back: l.back}, nil
	}
	return conn, err //nolint:wrapcheck // a listener hands errors on as they are
}

// Returner is a connection that a handler took from net/http by Hijack, and that it
// can give back once it has written a whole answer.
type Returner interface {
	net.Conn
	// Return has the next request over the connection served, of which so much was
	// read already. A client that sends none in the time for a head is let go. Nobody
	// but net/http may use the connection from then on.
	Return(read []byte)
}

// returned is a listener of connections that were given back.
type returned struct {
	addr  net.Addr
	conns chan *headConn
	over  chan struct{}
	close sync.Once

	mu      sync.Mutex
	waiting map[*headConn]struct{} // of which no request has come yet
}

func newReturned(addr net.Addr) *returned {
	return &returned{addr: addr, conns: make(chan *headConn), over: make(chan struct{}), waiting: map[*headConn]struct{}{}}
}

// Accept implements net.Listener.
func (r *returned) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		r.mu.Lock()
		defer r.mu.Unlock()
		select {
		case <-r.over:
			_ = c.Close() // as letGo does, which may have been here
		default:
			r.waiting[c] = struct{}{}
		}
		return c, nil
	case <-r.over:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (r *returned) Close() error {
	r.close.Do(func() { close(r.over) })
	return nil
}

// Addr implements net.Listener.
func (r *returned) Addr() net.Addr { return r.addr }

// forget takes out a connection that is not waiting any more.
func (r *returned) forget(c *headConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, c)
}

// letGo closes those that wait for a request. A server that shuts down would give
// them, which it takes for new, another 5 s.
func (r *returned) letGo() {
	_ = r.Close() // it has no error
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.waiting {
		_ = c.Close() // nothing is under way over it
	}
}

// headConn closes itself where a request's head has not arrived in time. net/http
// does that too, but where the time runs out within a line, which it takes for
// malformed, and answers with 400. After a process stood still that hits whoever came
// meanwhile, and an EventSource stops for good at any status but 200, and comes back
// after a connection that was closed.
type headConn struct {
	*net.TCPConn
	back    *returned
	again   bool        // it was given back
	read    []byte      // before what comes
	awaited atomic.Bool // a head is
}

// Return implements Returner.
func (c *headConn) Return(read []byte) {
	again := &headConn{TCPConn: c.TCPConn, back: c.back, again: true, read: read}
	select {
	case c.back.conns <- again:
	case <-c.back.over:
		_ = c.Close() // the server is stopping
	}
}

// Read implements net.Conn.
func (c *headConn) Read(b []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(b, c.read)
		c.read = c.read[n:]
		return n, nil
	}
	n, err := c.TCPConn.Read(b)
	if err != nil && c.awaited.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		_ = c.Close() // what net/http writes now goes nowhere
	}
	return n, err //nolint:wrapcheck // a connection hands errors on as they are
}

// noteState is what a server tells of its connections' states.
func noteState(conn net.Conn, state http.ConnState) {
	if c, ok := conn.(*headConn); ok {
		c.awaited.Store(state == http.StateNew || state == http.StateIdle)
		if c.again && state != http.StateNew {
			c.back.forget(c)
		}
	}
}
