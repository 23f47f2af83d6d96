package processors

import (
	"sync/atomic"
	"time"
)

const (
	// busyDeltas is how many pieces of answers a second make a process busy: each
	// is a record that is written, read twice and sent, of which it is cheaper to
	// have fewer and larger ones.
	busyDeltas = 20_000
	// busyFactor is by how much longer deltas are gathered then.
	busyFactor = 4
	// tempoSpan is the time over which the tempo is measured.
	tempoSpan = 200 * time.Millisecond
)

// tempo tells whether the calls of a process, together, say more than busyDeltas a
// second. All of them note their pieces in it.
type tempo struct {
	pieces atomic.Int64 // since
	since  atomic.Int64 // Unix nanoseconds
	busy   atomic.Bool
}

// note counts a piece, and tells whether the process is busy.
func (t *tempo) note(now time.Time) bool {
	if t == nil {
		return false
	}
	n, since := t.pieces.Add(1), t.since.Load()
	if span := now.UnixNano() - since; (span > int64(tempoSpan) || span < 0) && t.since.CompareAndSwap(since, now.UnixNano()) {
		t.pieces.Store(0)
		t.busy.Store(n*int64(time.Second)/span >= busyDeltas)
	}
	return t.busy.Load()
}
