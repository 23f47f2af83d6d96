package processors

import (
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// deltasPerCore is how many events of text a process writes a second for each
	// core that it may use, before deltas are gathered for longer: each is a record
	// that is written, read, and sent to whoever watches, of which it is cheaper to
	// have fewer and larger ones.
	deltasPerCore = 7_000
	// longestFactor bounds by how much longer deltas are gathered then.
	longestFactor = 16
	// tempoSpan is the time over which the tempo is measured.
	tempoSpan = 200 * time.Millisecond
)

// tempo holds the events of text that the calls of a process, together, write a
// second to a limit, by how long each call gathers deltas: N calls that each write
// once in a while of g write N/g, so the rate over the limit tells how much longer, or
// shorter, to gather.
type tempo struct {
	limit   int          // events a second
	written atomic.Int64 // events since
	since   atomic.Int64 // Unix nanoseconds
	factor  atomic.Int64 // thousandths by which deltas are gathered for longer; less than 1,000 is 1,000
}

// newTempo is the tempo of a process that may use as many cores as this one.
func newTempo() *tempo { return &tempo{limit: deltasPerCore * runtime.GOMAXPROCS(0)} }

// wrote counts an event of text. A nil tempo counts nothing.
func (t *tempo) wrote(now time.Time) {
	if t == nil {
		return
	}
	n, since := t.written.Add(1), t.since.Load()
	span := now.UnixNano() - since
	if span <= int64(tempoSpan) && span >= 0 || !t.since.CompareAndSwap(since, now.UnixNano()) {
		return
	}
	t.written.Store(0)
	rate := float64(n) * float64(time.Second) / float64(max(span, int64(tempoSpan)))
	factor := float64(max(t.factor.Load(), 1000)) * rate / float64(t.limit)
	t.factor.Store(int64(min(max(factor, 1000), 1000*longestFactor)))
}

// gather is how long to gather, where it is base on a quiet machine.
func (t *tempo) gather(base time.Duration) time.Duration {
	if t == nil {
		return base
	}
	return base * time.Duration(max(t.factor.Load(), 1000)) / 1000
}
