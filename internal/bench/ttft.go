package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/gorilla/websocket"
)

// InstantModel answers at once with one token.
const InstantModel = "sim:tokens=1,ttft=0s,gap=0s"

// Server is a Penstock that is measured from outside, over HTTP.
type Server struct {
	URL    string // such as http://127.0.0.1:8080
	APIKey string
	client *http.Client
	shared *http.Client // over HTTP/2

	buffers sync.Pool            // to write to WebSockets with
	sockets chan *websocket.Conn // that rest between two trips
}

// NewServer makes a Server with a connection for every trip at a time.
func NewServer(url, key string, concurrency int) *Server {
	t := &http.Transport{MaxIdleConns: 2 * concurrency, MaxIdleConnsPerHost: 2 * concurrency, DisableCompression: true}
	h2 := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	return &Server{
		URL: strings.TrimSuffix(url, "/"), APIKey: key, client: &http.Client{Transport: t}, shared: &http.Client{Transport: h2},
		sockets: make(chan *websocket.Conn, concurrency),
	}
}

// Close lets the connections go.
func (s *Server) Close() {
	s.client.CloseIdleConnections()
	s.shared.CloseIdleConnections()
	for len(s.sockets) > 0 {
		_ = (<-s.sockets).Close() // nothing is on its way
	}
}

// TimeToFirstToken is a Trip: from the beginning of POST /v1/jobs to the first
// delta on the job's event stream. It reads the stream to its end, so that the
// connection is used again, which the time does not count.
func (s *Server) TimeToFirstToken(ctx context.Context, n int) (time.Duration, error) {
	body := fmt.Appendf(nil, `{"lane":"interactive","body":{"model":%q,"messages":[{"role":"user","content":"hello, number %d"}]}}`, InstantModel, n)
	begun := time.Now()
	var receipt struct {
		Links struct {
			Events string `json:"events"`
		} `json:"links"`
	}
	resp, err := s.do(ctx, http.MethodPost, "/v1/jobs", body)
	if err != nil {
		return 0, err
	}
	err = json.UnmarshalRead(resp.Body, &receipt)
	_ = resp.Body.Close()
	if err != nil {
		return 0, fmt.Errorf("bench: the receipt of a job: %w", err)
	}
	path := receipt.Links.Events
	if resp, err = s.do(ctx, http.MethodGet, path, nil); err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	first, err := firstDelta(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("bench: %s: %w", path, err)
	}
	return first.Sub(begun), nil
}

// TimeToFirstTokenOverSocket is a Trip: from a `submit` on a WebSocket that is open
// already to the frame with the first delta. It reads to the job's end, which the
// time does not count, and leaves the connection for another trip.
func (s *Server) TimeToFirstTokenOverSocket(ctx context.Context, n int) (time.Duration, error) {
	conn, err := s.socket(ctx)
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	submit := fmt.Appendf(nil, `{"op":"submit","sub":"a","job":{"lane":"interactive","body":{"model":%q,"messages":[{"role":"user","content":"hello, number %d"}]}}}`, InstantModel, n)
	begun := time.Now()
	first, err := firstFrame(conn, submit)
	if !stop() || err != nil {
		_ = conn.Close()
		return 0, fmt.Errorf("bench: over a WebSocket: %w", cmp.Or(err, context.Cause(ctx)))
	}
	select {
	case s.sockets <- conn:
	default:
		_ = conn.Close()
	}
	return first.Sub(begun), nil
}

// socket is a WebSocket that rests, or a new one.
func (s *Server) socket(ctx context.Context) (*websocket.Conn, error) {
	select {
	case conn := <-s.sockets:
		return conn, nil
	default:
		return s.dialSocket(ctx)
	}
}

// firstFrame sends a submit and reads to the end of its job. It tells when the frame
// with the first delta had come.
func firstFrame(conn *websocket.Conn, submit []byte) (first time.Time, err error) {
	if err := conn.WriteMessage(websocket.TextMessage, submit); err != nil {
		return first, err //nolint:wrapcheck // the caller says where
	}
	for {
		_, frame, err := conn.ReadMessage()
		switch {
		case err != nil:
			return first, err //nolint:wrapcheck // the caller says where
		case first.IsZero() && bytes.Contains(frame, []byte(`{"type":"output.delta"`)):
			first = time.Now()
		case bytes.HasPrefix(frame, []byte(`{"op":"error"`)):
			return first, fmt.Errorf("the server says %s", frame)
		}
		if bytes.HasPrefix(frame, []byte(`{"op":"end"`)) {
			if first.IsZero() || !bytes.Contains(frame, []byte(`"completed"`)) {
				return first, fmt.Errorf("the stream ended without a token and a completion: %s", frame)
			}
			return first, nil
		}
	}
}

// request is one with the server's key.
func (s *Server) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+s.APIKey)
	}
	return req, nil
}

func (s *Server) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := s.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		err := fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(text))
		if resp.StatusCode == http.StatusTooManyRequests {
			err = fmt.Errorf("%w: %w", errBusy, err)
		}
		return nil, fmt.Errorf("bench: %s %s: %w", method, path, err)
	}
	return resp, nil
}

// errBusy says that the server is to be asked again in a while.
var errBusy = errors.New("the server takes no more at present")

// submitPatience bounds how long a job is offered to a server that takes no more.
const submitPatience = 30 * time.Second

// submit submits a job, and comes back as a client does whom the server asks to.
func (s *Server) submit(ctx context.Context, body []byte) (*http.Response, error) {
	for until := time.Now().Add(submitPatience); ; {
		resp, err := s.do(ctx, http.MethodPost, "/v1/jobs", body)
		if !errors.Is(err, errBusy) || time.Now().After(until) {
			return resp, err
		}
		if pause(ctx, time.Second) != nil {
			return nil, err
		}
	}
}

// firstDelta reads an event stream to its end, and tells when its first delta
// had come.
func firstDelta(r io.Reader) (time.Time, error) {
	delta, end := []byte(`data: {"type":"output.delta"`), []byte(`data: {"type":"output.completed"`)
	return firstLine(r, "a token and a completion",
		func(line []byte) bool { return bytes.HasPrefix(line, delta) },
		func(line []byte) bool { return bytes.HasPrefix(line, end) })
}

// firstLine reads a stream of lines to its end, and tells when the first line of
// a kind had come. A stream that has none, or no line that ends it, ended without
// what was awaited.
func firstLine(r io.Reader, awaited string, is, ends func(line []byte) bool) (first time.Time, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), 1<<20)
	ended := false
	for lines.Scan() {
		line := lines.Bytes()
		if first.IsZero() && is(line) {
			first = time.Now()
		}
		ended = ended || ends(line)
	}
	switch {
	case lines.Err() != nil:
		return first, fmt.Errorf("the stream broke: %w", lines.Err())
	case first.IsZero() || !ended:
		return first, fmt.Errorf("the stream ended without %s", awaited)
	}
	return first, nil
}
