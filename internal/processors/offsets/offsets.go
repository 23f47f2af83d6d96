// Package offsets keeps track of which requests of a partition are done, when
// they end out of order: a contiguous watermark, and the runs above it. The
// state fits into a commit's metadata, so that a successor does not run again
// what stands above the watermark.
//
// It is pure: no goroutine, no clock; one caller at a time.
package offsets

import (
	"fmt"
	"slices"
)

// Range is the offsets from From up to, not including, To.
type Range struct{ From, To int64 }

// Tracker follows one partition of a request topic.
type Tracker struct {
	watermark int64   // everything below is done
	next      int64   // everything below was taken
	done      []Range // above the watermark, in order, never touching each other
}

// NewTracker starts at a watermark, with what is done above it.
func NewTracker(watermark int64, done []Range) *Tracker {
	t := &Tracker{watermark: watermark, next: watermark}
	for _, r := range done {
		t.mark(Range{max(r.From, watermark), r.To})
		t.next = max(t.next, r.To)
	}
	t.advance()
	return t
}

// Take tells that the request at offset was taken in. It tells whether it is to
// be run: one that is done already is not. Offsets that the log skips between
// two requests count as done.
func (t *Tracker) Take(offset int64) (run bool) {
	if offset < t.next {
		return offset >= t.watermark && !t.has(offset)
	}
	if offset > t.next { // compaction or a transaction marker left a hole
		t.mark(Range{t.next, offset})
	}
	t.next = offset + 1
	t.advance()
	return true
}

// Done tells that the request at offset has ended and all that it owes is written.
func (t *Tracker) Done(offset int64) {
	if offset < t.watermark {
		return
	}
	t.mark(Range{offset, offset + 1})
	t.next = max(t.next, offset+1)
	t.advance()
}

// Skip tells that there is nothing at the offsets of r, or nothing any more.
func (t *Tracker) Skip(r Range) {
	t.mark(Range{max(r.From, t.watermark), r.To})
	t.next = max(t.next, r.To)
	t.advance()
}

func (t *Tracker) has(offset int64) bool {
	i, found := t.search(offset)
	return found || (i > 0 && t.done[i-1].To > offset)
}

// search finds the first range that begins at or behind offset.
func (t *Tracker) search(offset int64) (int, bool) {
	return slices.BinarySearchFunc(t.done, offset, func(r Range, o int64) int {
		switch {
		case r.From < o:
			return -1
		case r.From > o:
			return 1
		default:
			return 0
		}
	})
}

// mark joins r with the ranges that it meets.
func (t *Tracker) mark(r Range) {
	if r.From >= r.To {
		return
	}
	i, _ := t.search(r.From)
	if i > 0 && t.done[i-1].To >= r.From {
		i--
		r.From, r.To = t.done[i].From, max(r.To, t.done[i].To)
	}
	j := i
	for j < len(t.done) && t.done[j].From <= r.To {
		r.To = max(r.To, t.done[j].To)
		j++
	}
	if j == i+1 { // the common case moves nothing
		t.done[i] = r
		return
	}
	t.done = slices.Replace(t.done, i, j, r)
}

func (t *Tracker) advance() {
	for len(t.done) > 0 && t.done[0].From <= t.watermark {
		t.watermark = max(t.watermark, t.done[0].To)
		t.done = slices.Delete(t.done, 0, 1)
	}
	t.next = max(t.next, t.watermark)
}

// Watermark is the offset below which everything is done: what is committed.
func (t *Tracker) Watermark() int64 { return t.watermark }

// Next is the offset below which everything was taken.
func (t *Tracker) Next() int64 { return t.next }

// Span is how many offsets lie between watermark and next.
func (t *Tracker) Span() int64 { return t.next - t.watermark }

// Above returns the runs done above the watermark, in order. The slice is the
// Tracker's own and holds until its next change.
func (t *Tracker) Above() []Range { return t.done }

// String is for logs and failed tests.
func (t *Tracker) String() string {
	return fmt.Sprintf("watermark %d, next %d, done above %v", t.watermark, t.next, t.done)
}
