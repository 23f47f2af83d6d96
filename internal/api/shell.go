package api

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/internal/fault"
)

// shell is what stands around every handler.
type shell struct {
	Config
	metrics *metrics
}

// around is the one middleware: several would each cost a wrapped writer and a
// copy of the request.
func (s *shell) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.Now()
		q := &request{id: requestID(r.Header.Get("X-Request-Id")), tenant: defaultTenant, log: s.Log, patience: s.WritePatience}
		s.limitBody(w, r)
		h := w.Header()
		h.Set("X-Request-Id", q.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'") // a page sets its own
		h.Set("Cache-Control", "no-store")

		rw := &recorder{ResponseWriter: w}
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, q))
		s.metrics.open.Inc()
		defer func() {
			s.metrics.open.Dec()
			if p := recover(); p != nil {
				panicked(rw, r, p)
			}
			s.done(rw, r, began)
		}()
		next.ServeHTTP(rw, r)
	})
}

// limitBody bounds the body in bytes and in time. The limit closes the
// connection of a client that goes on sending, for which it needs the server's
// own writer.
func (s *shell) limitBody(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	if r.ContentLength > s.MaxBody { // it says so itself: there is nothing to wait for
		r.Body = refusedBody{r.Body, s.MaxBody}
		return
	}
	control := http.NewResponseController(w)
	if control.SetReadDeadline(s.Now().Add(s.BodyPatience)) != nil {
		control = nil // a writer without deadlines: a test's
	}
	r.Body = &timedBody{ReadCloser: http.MaxBytesReader(w, r.Body, s.MaxBody), control: control}
}

// refusedBody is a body over the limit, none of which is read: the server closes
// the connection behind the answer.
type refusedBody struct {
	io.ReadCloser
	limit int64
}

// Read implements io.Reader.
func (b refusedBody) Read([]byte) (int, error) { return 0, &http.MaxBytesError{Limit: b.limit} }

// timedBody takes the read deadline away once the body is there, since it would
// cut off a stream of answers.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) && b.control != nil {
		_ = b.control.SetReadDeadline(time.Time{}) // it could be set, so it can be cleared
		b.control = nil
	}
	return n, err //nolint:wrapcheck // a reader hands errors on as they are
}

// panicked answers for a handler that did not come back. What has begun to be
// answered is cut off, so that nobody takes it for whole.
func panicked(w *recorder, r *http.Request, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		w.status = max(w.status, statusGone)
		panic(p)
	}
	Log(r.Context()).ErrorContext(r.Context(), "handler panicked",
		slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
	if w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	WriteError(w, r, fault.New(fault.Internal, "something went wrong on our side; the log has the details under this request's id"))
}

// statusGone is noted where nobody was left to answer.
const statusGone = 499

func (s *shell) done(w *recorder, r *http.Request, began time.Time) {
	took := s.Now().Sub(began)
	route := "none" // a path of which we know nothing would make a label of its own
	if rctx := chi.RouteContext(r.Context()); rctx != nil {
		if p := rctx.RoutePattern(); p != "" && w.status != http.StatusNotFound {
			route = p
		}
	}
	status := w.status
	if status == 0 {
		status = http.StatusOK
	}
	s.metrics.observe(route, r.Method, status, took)
	if ctx := r.Context(); s.Log.Enabled(ctx, slog.LevelDebug) {
		s.Log.DebugContext(ctx, "answered", slog.String("request_id", RequestID(ctx)), slog.String("method", r.Method),
			slog.String("path", r.URL.Path), slog.Int("status", status), slog.Int64("bytes", w.bytes), slog.Duration("took", took))
	}
}

// maxRequestID bounds what is taken from a client, in bytes.
const maxRequestID = 128

// requestID is the client's own where it is visible ASCII, else a new one.
func requestID(given string) string {
	if visible(given, maxRequestID) {
		return given
	}
	var raw [12]byte
	_, _ = rand.Read(raw[:]) // never fails
	var text [4 + 24]byte
	copy(text[:], "req_")
	hex.Encode(text[4:], raw[:])
	return string(text[:])
}

// visible tells whether s is 1 to limit bytes of visible ASCII.
func visible(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// recorder notes what was answered. It hands on what WebSockets and streams
// need of the writer below.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err //nolint:wrapcheck // a writer hands errors on as they are
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *recorder) Flush() { _ = w.FlushError() }

// FlushError is Flush for http.ResponseController, which hands the error on.
func (w *recorder) FlushError() error {
	return http.NewResponseController(w.ResponseWriter).Flush() //nolint:wrapcheck // a writer hands errors on as they are
}

// Hijack implements http.Hijacker, for WebSocket libraries that do not unwrap.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, buf, err //nolint:wrapcheck // as it is, for the library that asks
}
