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
	began   time.Time    // what since is counted from: by differences, the clock may be set
	written atomic.Int64 // events since
	since   atomic.Int64 // nanoseconds
	factor  atomic.Int64 // thousandths by which deltas are gathered for longer; less than 1,000 is 1,000
}

// newTempo is the tempo of a process that may use as many cores as this one.
func newTempo(now time.Time) *tempo {
	return &tempo{limit: deltasPerCore * runtime.GOMAXPROCS(0), began: now}
}

// wrote counts an event of text. A nil tempo counts nothing.
func (t *tempo) wrote() {
	if t != nil {
		t.written.Add(1)
	}
}

// gather is how long to gather, where it is base on a quiet machine. Calls ask side
// by side, and each with a now of its own: one of them measures, once in a tempoSpan.
func (t *tempo) gather(base time.Duration, now time.Time) time.Duration {
	if t == nil {
		return base
	}
	at, since := int64(now.Sub(t.began)), t.since.Load()
	if span := at - since; span > int64(tempoSpan) && t.since.CompareAndSwap(since, at) {
		rate := float64(t.written.Swap(0)) * float64(time.Second) / float64(span)
		factor := float64(max(t.factor.Load(), 1000)) * rate / float64(t.limit)
		t.factor.Store(int64(min(max(factor, 1000), 1000*longestFactor)))
	}
	return base * time.Duration(max(t.factor.Load(), 1000)) / 1000
}
