package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/penstock-io/penstock/internal/bench/tally"
)

// watcher is one connection with one subscription.
type watcher interface {
	// next is what came next, any number of events, until the next call.
	next() ([]byte, error)
	Close() error
}

// idlePrefix begins the names of channels on which nothing is said.
const idlePrefix = "idle"

// partitions is how many the token topic has.
const partitions = 12

// dial connects and subscribes: to a job, or one of the channels on which nothing is
// said.
func (o options) dial(ctx context.Context, channel string) (watcher, error) {
	idle := strings.HasPrefix(channel, idlePrefix)
	part := fnv.New32()
	_, _ = part.Write([]byte(channel)) // it never fails
	p := part.Sum32() % partitions
	switch o.server + " " + o.via {
	case "penstock ws":
		what := fmt.Sprintf(`"job":%q`, channel)
		if idle {
			what = fmt.Sprintf(`"topic":"tokens","partition":%d,"offset":"latest"`, p)
		}
		return dialSocket(ctx, o.url+"/v1/ws", "penstock.v1", `{"op":"subscribe","sub":"a",`+what+`}`, 2)
	case "penstock sse":
		if idle {
			return dialStream(ctx, fmt.Sprintf("%s/v1/topics/tokens/partitions/%d/events?offset=latest", o.url, p))
		}
		return dialStream(ctx, o.url+"/v1/jobs/"+channel+"/events")
	case "centrifuge ws":
		return dialSocket(ctx, o.url+"/ws", "", fmt.Sprintf(`{"id":1,"connect":{"data":%q}}`, channel), 1)
	case "centrifuge sse":
		s, err := dialStream(ctx, o.url+"/sse?cf_connect="+url.QueryEscape(fmt.Sprintf(`{"id":1,"connect":{"data":%q}}`, channel)))
		for said := []byte(nil); err == nil && !bytes.HasPrefix(said, []byte("data:")); { // it is subscribed when it answers
			said, err = s.next()
		}
		return s, err
	case "mercure sse":
		return dialStream(ctx, o.url+"/.well-known/mercure?topic="+url.QueryEscape("https://example.com/"+channel))
	default:
		return nil, fmt.Errorf("there is no %s over %s", o.server, o.via)
	}
}

// socket is a watcher over a WebSocket.
type socket struct {
	*websocket.Conn
	buf bytes.Buffer
}

// dialSocket sends one frame and waits for so many.
func dialSocket(ctx context.Context, at, subprotocol, hello string, answers int) (watcher, error) {
	d := websocket.Dialer{ReadBufferSize: 512, WriteBufferSize: 512}
	if subprotocol != "" {
		d.Subprotocols = []string{subprotocol}
	}
	conn, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(at, "http"), nil)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close() // the dialer has read it
	s := &socket{Conn: conn}
	if err = conn.WriteMessage(websocket.TextMessage, []byte(hello)); err == nil {
		for ; answers > 0 && err == nil; answers-- {
			var b []byte
			if b, err = s.next(); err == nil && bytes.Contains(b, []byte(`"error"`)) {
				err = fmt.Errorf("refused: %s", b)
			}
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// next implements watcher.
func (s *socket) next() ([]byte, error) {
	_, in, err := s.NextReader()
	if err != nil {
		return nil, err
	}
	s.buf.Reset()
	_, err = s.buf.ReadFrom(in)
	return s.buf.Bytes(), err
}

// stream is a watcher over SSE. It speaks HTTP by hand: net/http's client would have
// two goroutines a connection.
type stream struct {
	net.Conn
	lines *bufio.Reader
}

func dialStream(ctx context.Context, at string) (watcher, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host(at))
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err == nil {
		req.Header.Set("Accept", "text/event-stream")
		err = req.Write(conn)
	}
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(bufio.NewReaderSize(conn, 512), req) //nolint:bodyclose // conn is what is closed
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &stream{conn, bufio.NewReaderSize(resp.Body, 16<<10)}, nil
}

// next implements watcher.
func (s *stream) next() ([]byte, error) { return s.lines.ReadSlice('\n') }

// watch reads a stream to its end: each seq once, in order.
func (r *run) watch(w watcher) error {
	for n, s := 0, (tally.Stream{}); ; n++ {
		b, err := w.next()
		if err != nil {
			return fmt.Errorf("it ended behind %d pieces: %w", n, err)
		}
		if done, err := r.Take(b, &s); err != nil || done {
			return err
		}
	}
}
