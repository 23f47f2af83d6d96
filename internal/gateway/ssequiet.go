package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/telemetry"
)

// quiet is an SSE stream of which nothing has come for a while. It has left
// net/http, whose buffers and goroutines would take 35 KB for as long as it lasts.
// What it has instead is a reader, a goroutine with a small stack that notices
// when the client goes, and the pump, which owns the feed and all writing. The
// stream goes on in the chunks of HTTP/1.1 in which it began.
type quiet struct {
	g      *Gateway
	conn   *patientConn
	feed   perched
	out    *frames
	done   func(status string) // told once how it ended, after all else
	pass   pass
	ctx    context.Context //nolint:containedctx // of what the feed asks for: it ends with the stream
	cancel context.CancelFunc
	final  bool // no request may follow over the connection
	pump

	// Guarded by the pump's mu.
	due     bool // a heartbeat is
	leaving bool // the server is stopping
	beat    *time.Timer

	// Of the pump alone.
	debut  debut
	retry  *time.Timer // the one for all rounds that failed; nil before the first
	chunks outbox      // what is to be written
	last   bool        // nothing comes behind it
	// Of the pump, then of the reader.
	how   string // it ended
	whole bool   // it was written to its end: the connection can go on

	// Of the reader.
	heard []byte // of the client's next request
	lost  bool   // some of it was not kept
	gone  bool   // the client is, or the stream ends for what it said
}

// perched is a feed that has one reader. end lets go of what it holds.
type perched interface {
	feed
	perch() *reader
	end()
}

// perch implements perched.
func (f *jobFeed) perch() *reader { return f.reader }

// perch implements perched.
func (f *partitionFeed) perch() *reader { return f.reader }

// quiets are the streams that have left net/http.
type quiets struct {
	all      sync.WaitGroup
	mu       sync.Mutex
	open     map[*quiet]struct{}
	draining bool
}

// stream sends a feed until it ends. done is told how, once, wherever the stream
// is by then. The feed stays the caller's, who ends it, unless c has moved.
func (c *sse) stream(r *http.Request, f perched, done func(status string)) {
	c.mayLeave = r.ProtoMajor == 1 && r.ProtoMinor == 1
	status := endedError // of a defect
	defer func() {
		if !c.moved {
			done(status)
		}
	}()
	if status = c.serve(r.Context(), f); status != endedNot {
		if status == endedDrained {
			c.out.retry(c.g.comeBack())
			_ = c.flush() // whether it took this or not, it is over
		}
		return
	}
	c.moved = true
	q := &quiet{g: c.g, conn: c.left, feed: f, out: &c.out, done: done, how: endedGone, pass: c.pass, debut: c.debut, heard: c.heard}
	// What comes behind a request that closes its connection is none, and what comes
	// behind one with a body may be the rest of that (RFC 9112, sections 9.6 and 6.3).
	q.final = r.Close || r.ContentLength != 0
	c.pass = pass{}
	c.w, c.control, c.left = nil, nil, nil // so that net/http's part can go
	q.crew, q.round = &c.g.crew, q.goRound
	q.ctx, q.cancel = context.WithCancel(telemetry.Carry(api.Detach(r.Context()), r.Context()))
	c.g.metrics.active.Inc()
	c.g.quiets.add(q)
	f.perch().answer(q) // which may be rung at once: q has all that it needs
	q.ring()            // something may have come meanwhile
	go q.watch()
}

// leave takes the connection from net/http, where that gives it. Everything that
// was written has been sent.
func (c *sse) leave() bool {
	c.mayLeave = false
	conn, buf, err := c.control.Hijack()
	if err != nil {
		return false // a test's writer
	}
	if n := buf.Reader.Buffered(); n > 0 {
		ahead, _ := buf.Peek(n) // it is there
		c.heard = bytes.Clone(ahead)
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
	if q.leaving = a.draining; q.leaving {
		q.conn.hurry(time.Now().Add(drainPatience))
	}
	q.beat = time.AfterFunc(q.g.cfg.Heartbeat, q.tick)
}

// forget has a drain leave the stream's connection alone.
func (a *quiets) forget(q *quiet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, q)
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

// maxHeard bounds what a client may say while its stream lasts, in bytes, and
// maxAhead what of that is kept for when it has ended.
const (
	maxHeard = 64 << 10
	maxAhead = 4 << 10
)

// watch is the reader. The client has nothing more to say: it is only waited for
// it to go. What it says all the same, such as its next request, is kept until the
// stream has ended; the connection ends with the stream where that is much, and ends
// the stream where it is too much.
func (q *quiet) watch() {
	defer q.end()
	for heard := len(q.heard); heard < maxHeard; {
		err := q.conn.await()
		if err == nil {
			read := make(chan error)
			go func() { // beside this goroutine, whose stack is to stay small
				var b [512]byte
				n, err := q.conn.Read(b[:])
				q.heard = append(q.heard, b[:n]...)
				if heard += n; heard > maxAhead {
					q.heard, q.lost = nil, true
				}
				read <- err
			}()
			err = <-read
		}
		if err != nil {
			q.gone = !errors.Is(err, os.ErrDeadlineExceeded)
			return
		}
	}
	q.gone = true
}

// tick is after a silence.
func (q *quiet) tick() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.due = true
	q.ringLocked()
}

// goRound writes what has come. What ends the stream has the reader end too.
func (q *quiet) goRound(alone bool) onward {
	q.mu.Lock()
	due, leaving := q.due, q.leaving
	q.due = false
	q.mu.Unlock()
	if all, err := q.flush(alone); err != nil || !all || q.last { // what was left of the last round
		return q.wrote(over, all, err)
	}
	if leaving { // what has come since is for the next server to send
		q.out.retry(q.g.comeBack())
		q.chunk()
		return q.put(q.conclude(endedDrained), alone)
	}
	q.feed.perch().near = !alone
	wait, err := q.feed.poll(q.ctx)
	if errors.Is(err, errFar) {
		q.mu.Lock()
		q.due = q.due || due
		q.mu.Unlock()
		return apart
	}
	if due && len(q.out.buf) == 0 {
		q.out.heartbeat()
	}
	q.chunk()
	return q.put(q.after(wait, err), alone)
}

// put writes what there is, and finds what comes after.
func (q *quiet) put(next onward, alone bool) onward {
	all, err := q.flush(alone)
	return q.wrote(next, all, err)
}

// wrote finds what comes after a write.
func (q *quiet) wrote(next onward, all bool, err error) onward {
	switch {
	case err != nil:
		next, q.how, q.whole = over, ended(err), false
	case !all:
		return apart
	}
	if next == over && q.whole {
		_ = q.conn.SetReadDeadline(time.Unix(0, 1)) // long ago: the reader ends, and gives the connection back
	} else if next == over {
		_ = q.conn.Close() // the reader ends
	}
	return next
}

// after finds what a poll's answer is for the stream: idle where it waits, over
// where this was its last chunk.
func (q *quiet) after(wait <-chan struct{}, err error) onward {
	switch {
	case errors.Is(err, errNoMore):
		return q.conclude("")
	case q.ctx.Err() != nil:
		q.last, q.how = true, endedGone
		return over
	case err != nil:
		q.g.cfg.Logger.WarnContext(q.ctx, "stream waits for the log", slog.Any("error", err))
		if q.retry == nil {
			q.retry = time.AfterFunc(retryPause, q.ring)
		} else {
			q.retry.Reset(retryPause)
		}
		return idle
	case wait != nil:
		return idle
	default:
		return again
	}
}

// conclude ends the chunks: the client knows then that the stream was not cut off.
func (q *quiet) conclude(how string) onward {
	q.how, q.whole = how, how != endedDrained
	q.chunks.add(&q.g.sockets.buffers, []byte("0\r\n\r\n"))
	q.last = true
	return over
}

// chunk makes a chunk of the frames.
func (q *quiet) chunk() {
	b := q.out.buf
	if len(b) == 0 {
		return
	}
	buf := q.chunks.buffer(&q.g.sockets.buffers)
	*buf = fmt.Appendf(*buf, "%x\r\n", len(b))
	*buf = append(append(*buf, b...), "\r\n"...)
	q.g.sent(&q.debut, q.out.events)
	*q.out = frames{} // it costs nothing while it waits
	q.mu.Lock()
	q.beat.Reset(q.g.cfg.Heartbeat)
	q.mu.Unlock()
}

// flush writes what is to be sent: what the system takes at once, or all. It tells
// whether nothing is left.
func (q *quiet) flush(wait bool) (all bool, err error) {
	b := q.chunks.bytes()
	if len(b) == 0 {
		return true, nil
	}
	put := q.conn.try
	if wait {
		put = q.conn.Write
	}
	n, err := put(b)
	if err == nil && n < len(b) {
		q.chunks.skip(n)
		return false, nil
	}
	q.chunks.reset(&q.g.sockets.buffers)
	return true, err
}

// end comes when the reader has ended: what is under way is waited for, and what
// was held is let go.
func (q *quiet) end() {
	q.mu.Lock()
	q.ended = true
	q.beat.Stop()
	q.mu.Unlock()
	q.cancel()
	if q.gone {
		_ = q.conn.Close() // so that no write waits for the client; it may be closed already
	}
	q.work.Wait()
	if q.retry != nil {
		q.retry.Stop()
	}
	q.chunks.reset(&q.g.sockets.buffers)
	q.done(q.how)
	q.feed.end()
	q.pass.leave()
	q.g.metrics.active.Dec()
	q.g.quiets.forget(q) // from here on it may be net/http's
	q.part()
	q.g.quiets.all.Done()
}

// part gives the connection back to net/http, for the client's next request, or
// closes it.
func (q *quiet) part() {
	conn, ok := q.conn.Conn.(api.Returner)
	if ok && q.whole && !q.final && !q.gone && !q.lost && conn.SetDeadline(time.Time{}) == nil {
		conn.Return(q.heard)
		return
	}
	_ = q.conn.Close() // it may be closed already
}
