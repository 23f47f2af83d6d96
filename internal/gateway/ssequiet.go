package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/telemetry"
)

// quiet is an SSE stream of which nothing has come for a while. It has left
// net/http, whose buffers and goroutines would take 35 KB for as long as it lasts.
// What it has instead is a reader, a goroutine with a small stack that notices
// when the client goes, and the pump, which owns the feed and all writing and is a
// goroutine only while there is something to do: ring starts it. The stream goes
// on in the chunks of HTTP/1.1 in which it began.
type quiet struct {
	g      *Gateway
	conn   *patientConn
	feed   perched
	out    *frames
	done   func(status string) // told once how it ended, after all else
	pass   pass
	ctx    context.Context //nolint:containedctx // of what the feed asks for: it ends with the stream
	cancel context.CancelFunc
	bell   bell
	work   sync.WaitGroup // the pump

	mu      sync.Mutex
	rung    bool
	pumping bool
	ended   bool // nothing is started any more
	due     bool // a heartbeat is
	leaving bool // the server is stopping
	beat    *time.Timer

	how string // it ended; the pump's, then the reader's
}

// perched is a feed that reads one partition.
type perched interface {
	feed
	perch() *partition
}

// perch implements perched.
func (f *jobFeed) perch() *partition { return f.part }

// perch implements perched.
func (f *partitionFeed) perch() *partition { return f.part }

// quiets are the streams that have left net/http.
type quiets struct {
	all      sync.WaitGroup
	mu       sync.Mutex
	open     map[*quiet]struct{}
	draining bool
}

// stream sends a feed until it ends. done is told how, once, wherever the stream
// is by then.
func (c *sse) stream(r *http.Request, f perched, done func(status string)) {
	c.mayLeave = r.ProtoMajor == 1 && r.ProtoMinor == 1
	status := c.serve(r.Context(), f)
	if status != endedNot {
		if status == endedDrained {
			c.out.retry(c.g.comeBack())
			_ = c.finish() // whether it took this or not, it is over
		}
		done(status)
		return
	}
	q := &quiet{g: c.g, conn: c.left, feed: f, out: &c.out, done: done, how: endedGone, pass: c.pass}
	c.pass = pass{}
	c.w, c.control, c.left = nil, nil, nil // so that net/http's part can go
	q.bell.ring = q.ring
	q.ctx, q.cancel = context.WithCancel(telemetry.Carry(api.Detach(r.Context()), r.Context()))
	c.g.metrics.active.Inc()
	c.g.quiets.add(q)
	f.perch().hang(&q.bell) // which may ring at once: q has all that it needs
	q.ring()                // something may have come meanwhile
	go q.watch()
}

// leave takes the connection from net/http, where that gives it. Everything that
// was written has been sent.
func (c *sse) leave() bool {
	c.mayLeave = false
	conn, _, err := c.control.Hijack()
	if err != nil {
		return false // a test's writer
	}
	c.left = newPatientConn(conn, c.g.cfg.WriteTimeout)
	return true
}

func (a *quiets) add(q *quiet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all.Add(1)
	if a.open == nil {
		a.open = map[*quiet]struct{}{}
	}
	a.open[q] = struct{}{}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leaving = a.draining
	q.beat = time.AfterFunc(q.g.cfg.Heartbeat, q.tick)
}

// leave takes an add back.
func (a *quiets) leave(q *quiet) {
	a.mu.Lock()
	delete(a.open, q)
	a.mu.Unlock()
	a.all.Done()
}

// drain ends all.
func (a *quiets) drain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.draining = true
	for q := range a.open {
		q.mu.Lock()
		q.leaving = true
		q.ringLocked()
		q.mu.Unlock()
		q.conn.hurry(time.Now().Add(drainPatience))
	}
}

// watch is the reader. The client has nothing more to say: it is only waited for
// it to go.
func (q *quiet) watch() {
	defer q.end()
	for q.conn.await() == nil {
		read := make(chan error)
		go func() { // beside this goroutine, whose stack is to stay small
			var b [512]byte
			_, err := q.conn.Read(b[:])
			read <- err
		}()
		if <-read != nil {
			return
		}
	}
}

// ring has the pump look around. It may be called with a partition's lock held.
func (q *quiet) ring() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ringLocked()
}

func (q *quiet) ringLocked() {
	q.rung = true
	if q.pumping || q.ended {
		return
	}
	q.pumping = true
	q.work.Add(1)
	go q.pump()
}

// tick is after a silence.
func (q *quiet) tick() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.due = true
	q.ringLocked()
}

// pump goes round until there is nothing more to do. What ends the stream closes
// the connection, so that the reader ends too.
func (q *quiet) pump() {
	defer q.work.Done()
	for {
		q.mu.Lock()
		if !q.rung || q.ended {
			q.pumping = false
			q.mu.Unlock()
			return
		}
		due, leaving := q.due, q.leaving
		q.rung, q.due = false, false
		q.mu.Unlock()
		if how, on := q.round(due, leaving); !on {
			q.how = how
			_ = q.conn.Close() // the reader ends; pumping stays, so that no other begins
			return
		}
	}
}

// round writes what has come. It tells whether the stream goes on, and if not, how
// it ended.
func (q *quiet) round(due, leaving bool) (how string, on bool) {
	for {
		wait, err := q.feed.poll(q.ctx)
		if due && len(q.out.buf) == 0 {
			q.out.heartbeat()
		}
		due = false
		if werr := q.flush(); werr != nil {
			return ended(werr), false
		}
		switch {
		case errors.Is(err, errNoMore):
			q.last()
			return "", false
		case leaving:
			q.out.retry(q.g.comeBack())
			_ = q.flush() // whether it took this or not, it is over
			q.last()
			return endedDrained, false
		case q.ctx.Err() != nil:
			return endedGone, false
		case err != nil:
			q.g.cfg.Logger.WarnContext(q.ctx, "stream waits for the log", slog.Any("error", err))
			time.AfterFunc(retryPause, q.ring)
			return "", true
		case wait != nil:
			return "", true
		}
	}
}

// flush writes the frames as a chunk.
func (q *quiet) flush() error {
	b := q.out.buf
	if len(b) == 0 {
		return nil
	}
	const around = 16 // bytes
	_, err := q.conn.Write(fmt.Appendf(make([]byte, 0, len(b)+around), "%x\r\n%s\r\n", len(b), b))
	if q.out.events > 0 {
		q.g.metrics.chunks.Add(float64(q.out.events))
	}
	*q.out = frames{} // it costs nothing while it waits
	q.mu.Lock()
	q.beat.Reset(q.g.cfg.Heartbeat)
	q.mu.Unlock()
	return err
}

// last ends the chunks: the client knows then that the stream was not cut off.
func (q *quiet) last() { _, _ = q.conn.Write([]byte("0\r\n\r\n")) } // whether it took this or not, it is over

// end comes when the reader has ended: what is under way is waited for, and what
// was held is let go.
func (q *quiet) end() {
	q.mu.Lock()
	q.ended = true
	q.beat.Stop()
	q.mu.Unlock()
	q.cancel()
	_ = q.conn.Close() // it may be closed already
	q.work.Wait()
	q.feed.perch().unhang(&q.bell)
	q.done(q.how)
	q.pass.leave()
	q.g.metrics.active.Dec()
	q.g.quiets.leave(q)
}
