package gateway

import (
	"sync"

	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
)

// outbox holds frames that are to be written next, as they go over the wire. It
// has a buffer only while it holds something, and none for frames that others
// have made: those are written from where they stand, if they stand alone.
type outbox struct {
	own  *[]byte // from a pool, the only user's
	sent int     // bytes of own
	lent []byte  // never changed
}

func (o *outbox) empty() bool { return o.own == nil && o.lent == nil }

// bytes are what is to be written.
func (o *outbox) bytes() []byte {
	if o.own != nil {
		return (*o.own)[o.sent:]
	}
	return o.lent
}

// buffer is the box's own, with all that it holds.
func (o *outbox) buffer(pool *sync.Pool) *[]byte {
	if o.own == nil {
		o.own, _ = pool.Get().(*[]byte)
		if o.own == nil {
			o.own = new([]byte)
		}
		*o.own = append((*o.own)[:0], o.lent...)
		o.lent = nil
	}
	return o.own
}

// add appends bytes, which stay the caller's.
func (o *outbox) add(pool *sync.Pool, b []byte) {
	buf := o.buffer(pool)
	*buf = append(*buf, b...)
}

// lend appends bytes that never change.
func (o *outbox) lend(pool *sync.Pool, b []byte) {
	if o.empty() {
		o.lent = b
		return
	}
	o.add(pool, b)
}

// skip forgets what was written of it.
func (o *outbox) skip(n int) {
	if o.own != nil {
		o.sent += n
	} else {
		o.lent = o.lent[n:]
	}
}

// join takes all that another box holds.
func (o *outbox) join(pool *sync.Pool, other *outbox) {
	switch {
	case o.empty():
		*o, *other = *other, outbox{}
	case !other.empty():
		o.add(pool, other.bytes())
		other.reset(pool)
	}
}

// maxKept is the capacity of the largest buffer that is kept for the next frame:
// one large record must not be paid for twice.
const maxKept = 2 * flushBytes

// reset forgets what the box holds.
func (o *outbox) reset(pool *sync.Pool) {
	if o.own != nil && cap(*o.own) <= maxKept {
		pool.Put(o.own)
	}
	*o = outbox{}
}

// The wire formats of shared frames.
const (
	formatSSE = iota
	formatSocket
	formats
)

// shared is a run as it goes over the wire, made by the first of several watchers
// for all of them. It serves a watcher that stands where the first one stood.
type shared struct {
	from, to stand
	name     string // of the subscription, as JSON; "" with SSE
	bytes    []byte
	events   int
	cursor   string // the place behind the last event
}

// stand is what a job's events are judged by.
type stand struct {
	tenant   string
	epochs   fence.Epochs
	progress job.Progress
}
