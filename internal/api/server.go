package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// ServerConfig says how a listener is served. Its zero value works.
type ServerConfig struct {
	Log *slog.Logger // nil discards
	// Listening is told the bound address before the first request.
	Listening func(net.Addr)
	// Stopping is told when the shutdown begins: whoever holds streams open ends
	// them, since they would last for all of Grace.
	Stopping func()
	// Grace bounds how long requests may go on after ctx has ended; 0 is 10 seconds.
	Grace time.Duration
	// HeaderPatience bounds how long a request's head may take to arrive; 0 is 10
	// seconds. One that takes longer gets no answer.
	HeaderPatience time.Duration
	// IdlePatience is how long an idle connection is kept; 0 is two minutes.
	IdlePatience time.Duration
	// WritePatience is after how long an HTTP/2 connection is given up that takes
	// nothing of what is written; 0 is 10 s.
	WritePatience time.Duration
}

// maxUnsent bounds what the system keeps of a connection's output before it is on
// its way, in bytes. A full one is written to again only when half of it is free, so
// it is also what a slow client has to take before that shows.
const maxUnsent = 16 << 10

// maxUnheard bounds for how long a client's system may leave unanswered what is sent
// to it.
const maxUnheard = time.Minute

// maxHeader bounds a request's head, in bytes.
const maxHeader = 64 << 10

const (
	// maxStreams bounds the requests that go on at once over one HTTP/2 connection.
	maxStreams = 250
	// silence is after how long an HTTP/2 connection is pinged of which nothing was
	// heard, and then given up.
	silence = 30 * time.Second
)

// Serve serves h on addr, a TCP host:port, until ctx ends, and then lets what is
// being answered end within the grace period. What is left by then is cut off
// and its contexts end. It returns nil after such a stop.
func Serve(ctx context.Context, addr string, h http.Handler, cfg ServerConfig) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	lc := net.ListenConfig{Control: bounded}
	lc.SetMultipathTCP(false) // which does not pass the option on
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %q, which must be a free host:port: %w", addr, err)
	}
	// Requests outlive ctx by the grace period.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	// HTTP/2 without TLS is for clients that know beforehand that they may speak it
	// (RFC 9113, section 3.3), such as the proxy that has ended TLS.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Protocols: &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, SendPingTimeout: silence, PingTimeout: silence, WriteByteTimeout: or(cfg.WritePatience, 10*time.Second),
		},
		Handler:           h,
		ReadHeaderTimeout: or(cfg.HeaderPatience, 10*time.Second),
		IdleTimeout:       or(cfg.IdlePatience, 2*time.Minute),
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnState:         noteState,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
	}
	if cfg.Listening != nil {
		cfg.Listening(ln.Addr())
	}
	back := newReturned(ln.Addr())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener{ln, back}) }()
	var again sync.WaitGroup
	defer again.Wait()
	defer back.letGo()
	again.Go(func() { _ = srv.Serve(back) }) // until letGo
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	if cfg.Stopping != nil {
		cfg.Stopping()
	}
	back.letGo()
	grace, cancel := context.WithTimeout(base, or(cfg.Grace, 10*time.Second))
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		cfg.Log.WarnContext(ctx, "requests cut off at the end of the grace period", slog.Any("error", err))
		cut()
		_ = srv.Close() // the listener is closed already; the connections are what is left
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	}
	return nil
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
