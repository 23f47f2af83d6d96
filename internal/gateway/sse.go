package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// feed is what an SSE connection sends: poll fills the frames. Its answers are
// jobStream.poll's.
type feed interface {
	poll(ctx context.Context) (wait <-chan struct{}, err error)
}

// How a stream ended, beside the statuses of jobs.
const (
	endedGone    = "gone"    // the client left
	endedSlow    = "slow"    // the client did not take what was written
	endedDrained = "drained" // the server is stopping
	endedError   = "error"   // it could not go on: the log lost some of it, or an attempt was superseded
	endedNot     = "not"     // it goes on without net/http
)

// retryPause is how long a stream waits after the log could not be read.
const retryPause = 500 * time.Millisecond

// idleBytes is the largest buffer that a stream keeps while it waits.
const idleBytes = 4 << 10

// sse is one connection.
type sse struct {
	g       *Gateway
	w       http.ResponseWriter
	control *http.ResponseController
	out     frames
	first   string // the id that a stream of events begins with; "" with others
	debut   debut

	pass     pass         // until the stream has it
	mayLeave bool         // net/http, once it is quiet
	left     *patientConn // and did
	heard    []byte       // of the client's next request, until then
	moved    bool         // and goes on elsewhere, with all that it holds
}

func (g *Gateway) newSSE(w http.ResponseWriter) *sse {
	return &sse{g: g, w: w, control: http.NewResponseController(w), debut: debut{began: g.cfg.Now()}}
}

// begin sends the headers, and whatever is in the frames already. An EventSource
// that comes back shows by the first id that it has been here, before it has had an
// event, and misses nothing that was written meanwhile.
func (c *sse) begin() error {
	c.head()
	if c.first != "" {
		c.out.buf = append([]byte("id: "+c.first+"\nretry: 1000\n\n"), c.out.buf...)
	}
	return c.flush()
}

// head sends the headers, which is all that a HEAD asks for.
func (c *sse) head() {
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	c.w.WriteHeader(http.StatusOK)
}

// flush writes the frames. A client that does not take a piece of them in time is let
// go; over HTTP/2 its stream alone is. The deadline is lifted behind the write: HTTP/2
// would reset the stream at it whether or not anything is being written, and over
// HTTP/1.1 the connection may serve another request.
func (c *sse) flush() error {
	for b := c.out.buf; ; {
		n := min(len(b), api.WritePiece)
		if err := c.put(b[:n]); err != nil {
			return err
		}
		if b = b[n:]; len(b) == 0 {
			break
		}
	}
	_ = c.control.SetWriteDeadline(time.Time{}) // as it could be set, or not
	c.g.sent(&c.debut, c.out.events)
	c.out.events = 0
	if cap(c.out.buf) > 2*flushBytes {
		c.out.buf = nil // one large event must not be kept for the stream's life
	} else {
		c.out.buf = c.out.buf[:0]
	}
	return nil
}

// put writes a piece.
func (c *sse) put(b []byte) error {
	late := time.Now().Add(c.g.cfg.WriteTimeout)
	if err := c.control.SetWriteDeadline(late); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err //nolint:wrapcheck // only looked at
	}
	_, err := c.w.Write(b)
	if err == nil {
		err = c.control.Flush()
	}
	if err != nil && !time.Now().Before(late) {
		return os.ErrDeadlineExceeded // which HTTP/2 does not call by its name
	}
	return err //nolint:wrapcheck // only looked at
}

// turnAway answers a request for events that cannot be served. An EventSource stops
// for good at any status but 200 (HTML, 9.2.3). So whoever may come back gets a
// stream that says when, and ends: all, where the server is stopping; else those
// who have been here, as Last-Event-ID says.
func (c *sse) turnAway(r *http.Request, err error, again bool) {
	stopping := false
	select {
	case <-c.g.draining:
		stopping = true
	default:
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || !f.Retryable() || !again && !stopping || r.Method == http.MethodHead {
		api.WriteError(c.w, r, err)
		return
	}
	c.out.reset()
	c.out.comment(string(f.Code) + ": " + f.Message)
	c.out.retry(max(f.RetryAfter, c.g.comeBack()))
	_ = c.begin() // whether it took this or not, it is over
}

// ended names how a write failed.
func ended(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return endedSlow
	}
	return endedGone
}

// serve sends a feed until it ends, and says how it ended.
func (c *sse) serve(ctx context.Context, f feed) string {
	c.g.metrics.active.Inc()
	defer c.g.metrics.active.Dec()
	if err := c.begin(); err != nil {
		return ended(err)
	}
	idle := time.NewTimer(c.silence())
	defer idle.Stop()
	for {
		wait, err := f.poll(ctx)
		if len(c.out.buf) > 0 {
			if err := c.flush(); err != nil {
				return ended(err)
			}
			idle.Reset(c.silence())
		}
		if errors.Is(err, errNoMore) {
			return ""
		}
		var retry <-chan time.Time
		if err != nil && ctx.Err() == nil {
			c.g.cfg.Logger.WarnContext(ctx, "stream waits for the log", slog.Any("error", err))
			retry = time.After(retryPause)
		}
		if err == nil && wait == nil {
			wait = ready
		} else if cap(c.out.buf) > idleBytes {
			c.out.buf = nil // all of it was written
		}
		select {
		case <-c.g.draining:
			return endedDrained
		case <-ctx.Done():
			return endedGone
		default:
		}
		select {
		case <-wait:
		case <-retry:
		case <-idle.C:
			if c.mayLeave {
				if c.leave() {
					return endedNot
				}
				idle.Reset(c.silence())
				continue
			}
			c.out.heartbeat()
			if err := c.flush(); err != nil {
				return ended(err)
			}
			idle.Reset(c.g.cfg.Heartbeat)
		case <-c.g.draining:
			return endedDrained
		case <-ctx.Done():
			return endedGone
		}
	}
}

// silence is how long nothing may come before something is to be done about it.
func (c *sse) silence() time.Duration {
	if c.mayLeave {
		return min(c.g.cfg.Quiet, c.g.cfg.Heartbeat)
	}
	return c.g.cfg.Heartbeat
}

// ready is a channel from which can be read at once.
//
//nolint:gochecknoglobals // It is closed from the start and never changes.
var ready = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// statusOf names a job's end in a metric.
func statusOf(p *job.Progress) string {
	if p.End == "" {
		return endedError
	}
	return string(job.StatusOf(p.End))
}
