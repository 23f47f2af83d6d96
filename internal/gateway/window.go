package gateway

import (
	"sort"
	"sync"
	"time"
)

// partition is one partition of the token topic: who needs it, and a window of
// its newest records.
type partition struct {
	id      int32
	opening chan struct{} // of capacity 1: held by whoever begins to follow it

	refs   int         // guarded by Hub.mu
	linger *time.Timer // guarded by Hub.mu; set while nobody needs it

	mu       sync.Mutex
	followed bool
	opens    int // how often it began to be followed
	segments []*segment
	first    int64             // the window covers the offsets from first
	last     spot              // up to here
	since    time.Time         // what lies below first was in the log by then
	bells    map[subject]*bell // who is rung, by what they wait for
}

// open begins a window at an end offset that was had before now.
func (p *partition) open(end int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ringAll() // of what the window was before
	p.followed = true
	p.opens++
	p.first, p.since, p.segments = end, now, nil
	p.last = spot{next: end, leaderEpoch: -1}
}

// shut forgets the window and returns how many bytes it held.
func (p *partition) shut() (bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.segments {
		bytes += s.bytes
	}
	p.followed, p.segments = false, nil
	p.ringAll()
	return bytes
}

// add appends a segment that begins at the window's end, and rings those for whom
// it has something. It tells whether the partition is still followed.
func (p *partition) add(s *segment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.followed || s.before.next != p.last.next {
		return false
	}
	p.segments = append(p.segments, s)
	p.last = s.behind
	if s.corrupt { // there may be something of anybody's in it
		for _, b := range p.bells {
			for ; b != nil; b = b.following {
				b.strike(s.before)
			}
		}
		return true
	}
	for b := p.bells[subject{}]; b != nil; b = b.following {
		b.strike(s.before)
	}
	for about, r := range s.runs {
		for b := p.bells[about]; b != nil; b = b.following {
			r.watchers++
			b.strike(s.before)
		}
		if about.kind == ofJob && r.watchers > 1 {
			s.bytes += r.shareable()
		}
	}
	return true
}

// evict drops the oldest segment, if it is this one.
func (p *partition) evict(s *segment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.segments) == 0 || p.segments[0] != s {
		return false
	}
	p.segments[0] = nil // the array lives on
	p.segments = p.segments[1:]
	p.first, p.since = s.behind.next, s.taken
	return true
}

// end is the offset behind the window's newest record.
func (p *partition) end() (next int64, followed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last.next, p.followed
}

// tip is the place behind the window's newest record.
func (p *partition) tip() (at spot, followed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.followed
}

// view is what a partition shows to a reader at some offset.
type view struct {
	opens    int
	followed bool
	older    bool     // the offset is before the window
	segment  *segment // that covers the offset, or nil
	first    int64
}

func (p *partition) at(offset int64) view {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.atLocked(offset)
}

func (p *partition) atLocked(offset int64) view {
	v := view{opens: p.opens, followed: p.followed, first: p.first}
	switch {
	case !p.followed:
	case offset < p.first:
		v.older = true
	case offset < p.last.next:
		i := sort.Search(len(p.segments), func(i int) bool { return p.segments[i].behind.next > offset })
		v.segment = p.segments[i]
	}
	return v
}

// covers returns the latest offset in the window below which everything was in
// the log by t: what was written later lies at it or behind it.
func (p *partition) covers(t time.Time) (offset int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.followed || p.since.After(t) {
		return 0, false
	}
	// The first segment that came in after t: those before it did not.
	i := sort.Search(len(p.segments), func(i int) bool { return p.segments[i].taken.After(t) })
	if i == len(p.segments) {
		return p.last.next, true
	}
	return p.segments[i].before.next, true
}
