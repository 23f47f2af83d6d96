package gateway

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/telemetry"
)

const (
	// subprotocol is what a client may ask for by Sec-WebSocket-Protocol.
	subprotocol = "penstock.v1"
	// maxFrame bounds a client's frame, in bytes.
	maxFrame = 1 << 20
	// maxSubscriptions bounds those of one connection.
	maxSubscriptions = 1000
	// drainPatience is how long clients get to hear of a stop.
	drainPatience = 3 * time.Second
)

// The close codes of our own: 4000 to 4499 say come back, 4500 to 4999 do not.
const (
	closeStopping = 4000
)

// sockets are the WebSocket connections of a gateway.
type sockets struct {
	g             *Gateway
	upgrader      websocket.Upgrader
	buffers       sync.Pool     // of *[]byte, for events frames
	framePatience time.Duration // for a frame to arrive once it has begun

	all sync.WaitGroup // connections that were let in

	mu       sync.Mutex
	count    int // connections
	subs     int // subscriptions
	open     map[*socket]struct{}
	draining bool
}

func newSockets(g *Gateway) *sockets {
	return &sockets{
		g: g, open: map[*socket]struct{}{}, framePatience: framePatience,
		upgrader: websocket.Upgrader{
			Subprotocols:    []string{subprotocol},
			WriteBufferPool: &sync.Pool{},
			CheckOrigin:     func(*http.Request) bool { return true }, // looked at before, for a better answer
			Error: func(w http.ResponseWriter, r *http.Request, _ int, reason error) {
				w.Header().Set("Sec-WebSocket-Version", "13") // RFC 6455, section 4.2.2
				api.WriteError(w, r, fault.New(fault.InvalidRequest, "%s", reason.Error()))
			},
		},
	}
}

// serve answers GET /v1/ws. The handler returns as soon as the connection is a
// WebSocket: what HTTP holds for a request is let go.
func (a *sockets) serve(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		api.WriteError(w, r, fault.New(fault.InvalidRequest, "this path speaks WebSocket: connect with a WebSocket client, subprotocol %s", subprotocol))
		return
	}
	if err := a.checkOrigin(r); err != nil {
		api.WriteError(w, r, err)
		return
	}
	in, err := a.enter(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	h := &hijacker{ResponseWriter: w, patience: a.g.cfg.WriteTimeout}
	conn, err := a.upgrader.Upgrade(h, r, http.Header{"X-Request-Id": {api.RequestID(r.Context())}})
	if err != nil { // it was answered
		a.leave(nil, in)
		return
	}
	s := newSocket(a, conn, h.conn.patientConn)
	s.in, s.pass, h.conn.socket = h.in, in, s
	s.tenant, s.id = api.Tenant(r.Context()), api.RequestID(r.Context())
	s.ctx, s.cancel = context.WithCancel(telemetry.Carry(api.Detach(r.Context()), r.Context()))
	a.mu.Lock()
	a.open[s] = struct{}{}
	draining := a.draining
	a.mu.Unlock()
	go s.read(draining)
}

// readBuffer is for what a client says, which is little: what is longer passes it
// by. The library takes a reader over that has more than 256 bytes.
const readBuffer = 288

// hijacker hands out a connection that is patient, and a reader of which is known
// whether it has read ahead.
type hijacker struct {
	http.ResponseWriter
	patience time.Duration
	conn     *libraryConn
	in       *bufio.Reader
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // as it is, for the library that asks
	}
	h.conn = &libraryConn{patientConn: newPatientConn(conn, h.patience)}
	if buf.Reader.Buffered() == 0 { // else the library says that the client was too quick
		h.in = bufio.NewReaderSize(h.conn, readBuffer)
		buf.Reader = h.in
	}
	return h.conn, buf, nil
}

// checkOrigin lets in what is no browser, pages of this very host, and those of
// the configured origins: a browser sends other sites' pages here too.
func (a *sockets) checkOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	u, err := url.Parse(origin)
	if err == nil && strings.EqualFold(u.Host, r.Host) {
		return nil
	}
	if slices.ContainsFunc(a.g.cfg.Origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) }) {
		return nil
	}
	return fault.Param("Origin", "pages of %.200q may not connect here: have the origin added to the server's setting origins", origin)
}

// enter lets a connection in. Each success needs a leave.
func (a *sockets) enter(r *http.Request) (pass, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.draining {
		return pass{}, errDraining()
	}
	in, err := a.g.door.enter(r)
	if err != nil {
		return in, err
	}
	a.count++
	a.all.Add(1)
	a.g.metrics.sockets.Inc()
	a.g.metrics.active.Inc()
	return in, nil
}

// leave takes an enter back.
func (a *sockets) leave(s *socket, in pass) {
	in.leave()
	a.mu.Lock()
	a.count--
	delete(a.open, s)
	a.mu.Unlock()
	a.g.metrics.sockets.Dec()
	a.g.metrics.active.Dec()
	a.all.Done()
}

// hold counts a subscription in, of all connections together.
func (a *sockets) hold() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit := a.g.cfg.MaxSubscriptions; a.subs >= limit {
		f := fault.New(fault.Unavailable, "this server has %d subscriptions, as many as it takes: try again, or another server", limit)
		f.RetryAfter = fullPatience
		return f
	}
	a.subs++
	a.g.metrics.subscriptions.Inc()
	return nil
}

// free takes a hold back.
func (a *sockets) free() {
	a.mu.Lock()
	a.subs--
	a.mu.Unlock()
	a.g.metrics.subscriptions.Dec()
}

// drain sends all clients elsewhere, each at a time of its own, and closes their
// connections within drainPatience.
func (a *sockets) drain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.draining = true
	for s := range a.open {
		s.drain()
	}
}

// refusalOf makes the frame that tells of an error. What is no fault goes to the
// log alone.
func (s *socket) refusalOf(ref, sub string, err error) errorFrame {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		f = fault.From(err)
		s.g.cfg.Logger.Error("frame failed", slog.String("request_id", s.id), slog.Any("error", err))
	}
	return errorFrame{
		Op: "error", Ref: ref, Sub: sub, Code: f.Code, Message: f.Message, Param: f.Param,
		RetryAfterMS: f.RetryAfter.Milliseconds(),
	}
}
