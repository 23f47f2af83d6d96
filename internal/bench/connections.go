package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// Kinds of connections that wait for something to happen.
const (
	// IdleSocket is a WebSocket that was welcomed, and no more.
	IdleSocket = "ws"
	// WatchingSocket is a WebSocket with one subscription, to the end of a
	// partition.
	WatchingSocket = "ws-watching"
	// IdleStream is an SSE stream of a partition from its end.
	IdleStream = "sse"
	// SharedStream is one over HTTP/2, as many on a connection as the server takes.
	SharedStream = "sse-http2"
)

// smallBuffer is what a held connection's client reads with, in bytes: it is not
// the client that is measured.
const smallBuffer = 512

// Held are connections that wait. Close lets go of them.
type Held struct {
	server *Server
	conns  []io.Closer
	wg     sync.WaitGroup
	lost   atomic.Int64
}

// Hold opens n connections of a kind, so many at a time. Each has a goroutine
// that reads until the connection ends.
func (s *Server) Hold(ctx context.Context, kind string, n, concurrency int, partitions int32) (*Held, error) {
	open := map[string]func(context.Context, int32) (io.Closer, func() error, error){
		IdleSocket:     func(ctx context.Context, _ int32) (io.Closer, func() error, error) { return s.holdSocket(ctx, nil) },
		WatchingSocket: func(ctx context.Context, p int32) (io.Closer, func() error, error) { return s.holdSocket(ctx, &p) },
		IdleStream:     s.holdStream,
		SharedStream:   s.holdShared,
	}[kind]
	if open == nil {
		return nil, fmt.Errorf("bench: %q is no kind of connection: it must be %s, %s, %s or %s", kind, IdleSocket, WatchingSocket, IdleStream, SharedStream)
	}
	h := &Held{server: s, conns: make([]io.Closer, n)}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for i := range n {
		group.Go(func() error {
			if gctx.Err() != nil {
				return gctx.Err()
			}
			conn, read, err := open(gctx, int32(i%int(partitions))) //nolint:gosec // smaller than a partition count
			if err != nil {
				return fmt.Errorf("bench: connection %d: %w", i, err)
			}
			h.conns[i] = conn
			h.wg.Go(func() {
				if read() != nil {
					h.lost.Add(1) // those that Close closes come after it was asked
				}
			})
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		h.Close()
		return nil, err //nolint:wrapcheck // it says which connection
	}
	return h, nil
}

// Lost is how many connections have ended by themselves so far.
func (h *Held) Lost() int { return int(h.lost.Load()) }

// Close closes all connections, and waits for their goroutines.
func (h *Held) Close() {
	for _, c := range h.conns {
		if c != nil {
			_ = c.Close() // one that was lost is closed already
		}
	}
	h.wg.Wait()
	h.server.shared.CloseIdleConnections() // of which nothing is shared any more
}

// dialSocket opens a WebSocket and reads its welcome.
func (s *Server) dialSocket(ctx context.Context) (*websocket.Conn, error) {
	header := http.Header{}
	if s.APIKey != "" {
		header.Set("Authorization", "Bearer "+s.APIKey)
	}
	dialer := websocket.Dialer{ReadBufferSize: smallBuffer, WriteBufferPool: &s.buffers, Subprotocols: []string{"penstock.v1"}}
	conn, resp, err := dialer.DialContext(ctx, "ws"+s.URL[len("http"):]+"/v1/ws", header)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("%w: %s", err, resp.Status)
		}
		return nil, fmt.Errorf("open a WebSocket: %w", err)
	}
	_ = resp.Body.Close() // the dialer has read it
	if _, _, err := conn.ReadMessage(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("wait for the welcome: %w", err)
	}
	return conn, nil
}

func (s *Server) holdSocket(ctx context.Context, partition *int32) (io.Closer, func() error, error) {
	conn, err := s.dialSocket(ctx)
	if err != nil {
		return nil, nil, err
	}
	if partition != nil {
		frame := fmt.Appendf(nil, `{"op":"subscribe","sub":"a","topic":"tokens","partition":%d,"offset":"latest"}`, *partition)
		if err = conn.WriteMessage(websocket.TextMessage, frame); err == nil {
			_, _, err = conn.ReadMessage()
		}
		if err != nil {
			_ = conn.Close()
			return nil, nil, fmt.Errorf("subscribe: %w", err)
		}
	}
	return conn, func() error {
		for {
			_, r, err := conn.NextReader() // which answers pings
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if err != nil {
				return err //nolint:wrapcheck // only looked at
			}
		}
	}, nil
}

// holdStream speaks HTTP by hand: net/http's client would have two goroutines
// and 8 KB of buffers a connection.
func (s *Server) holdStream(ctx context.Context, partition int32) (io.Closer, func() error, error) {
	at, err := url.Parse(s.URL)
	if err != nil {
		return nil, nil, fmt.Errorf("open a stream: %w", err)
	}
	if at.Scheme != "http" {
		return nil, nil, errors.New("open a stream: connections are measured over http:// alone")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at.Host)
	if err != nil {
		return nil, nil, fmt.Errorf("open a stream: %w", err)
	}
	req, err := s.watch(ctx, partition)
	if err == nil {
		err = req.Write(conn)
	}
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(bufio.NewReaderSize(conn, smallBuffer), req) //nolint:bodyclose // conn is what is closed
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("open a stream: %w", err)
	}
	return conn, func() error { return discard(conn) }, nil
}

// discard reads until it cannot.
func discard(r io.Reader) error {
	buf := make([]byte, smallBuffer)
	for {
		if _, err := r.Read(buf); err != nil {
			return err //nolint:wrapcheck // only looked at
		}
	}
}

// watch asks for a partition from its end.
func (s *Server) watch(ctx context.Context, partition int32) (*http.Request, error) {
	return s.request(ctx, http.MethodGet, "/v1/topics/tokens/partitions/"+strconv.Itoa(int(partition))+"/events?offset=latest", nil)
}

// holdShared has net/http share the connections out.
func (s *Server) holdShared(ctx context.Context, partition int32) (io.Closer, func() error, error) {
	req, err := s.watch(context.WithoutCancel(ctx), partition) // it outlives the opening
	var resp *http.Response
	if err == nil {
		resp, err = s.shared.Do(req) //nolint:bodyclose // whoever holds it does
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		err = errors.New(resp.Status)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open a stream: %w", err)
	}
	return resp.Body, func() error { return discard(resp.Body) }, nil
}
