package api

import (
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
)

// listener accepts connections whose late heads get no answer.
type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &headConn{TCPConn: tcp}, nil
	}
	return conn, err //nolint:wrapcheck // a listener hands errors on as they are
}

// headConn closes itself where a request's head has not arrived in time. net/http
// does that too, but where the time runs out within a line, which it takes for
// malformed, and answers with 400. After a process stood still that hits whoever came
// meanwhile, and an EventSource stops for good at any status but 200, and comes back
// after a connection that was closed.
type headConn struct {
	*net.TCPConn
	awaited atomic.Bool // a head is
}

// Read implements net.Conn.
func (c *headConn) Read(b []byte) (int, error) {
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
	}
}
