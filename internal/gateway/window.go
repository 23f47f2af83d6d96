package gateway

import (
	"sort"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
)

// entry is one record of the token topic, its head scanned once for all readers.
type entry struct {
	offset      int64
	leaderEpoch int32
	view        event.View // the zero View for what is no event: the fence drops it
	raw         []byte
	// embeds tells whether raw is JSON in UTF-8, as it has to be within a frame
	// that is JSON itself: 0 while nobody has looked.
	embeds atomic.Int32
	// cursor is the place behind the record as the last reader wrote it: most
	// readers have seen the same epochs, so it is written once for all of them.
	cursor atomic.Pointer[placed]
}

// The answers of entry.embeds.
const (
	embedsYes = 1
	embedsNo  = 2
)

// embeddable tells whether the record can stand within JSON as it is. ScanHead
// has not looked into its data; whoever asks first does.
func (e *entry) embeddable() bool {
	answer := e.embeds.Load()
	if answer == 0 {
		answer = embedsNo
		if jsontext.Value(e.raw).IsValid() {
			answer = embedsYes
		}
		e.embeds.Store(answer)
	}
	return answer == embedsYes
}

// placed is a cursor's text, and the epochs that are in it.
type placed struct {
	epochs fence.Epochs
	text   string
}

// segment is what one poll brought of a partition. It is never changed.
type segment struct {
	entries     []entry
	first, next int64 // it covers the offsets from first up to next
	bytes       int
	taken       time.Time // what lies below next was in the log by then
}

// segmentOverhead is about what a segment costs beside its entries, in bytes.
const segmentOverhead = int(unsafe.Sizeof(segment{})) + 2*int(unsafe.Sizeof((*segment)(nil)))

// scan makes entries of records, passing over those below from.
func scan(records []event.Record, from int64) (entries []entry, bytes int) {
	for len(records) > 0 && records[0].Offset < from {
		records = records[1:]
	}
	if len(records) == 0 {
		return nil, 0
	}
	entries = make([]entry, len(records))
	for i := range records {
		rec, e := &records[i], &entries[i]
		e.offset, e.leaderEpoch, e.raw = rec.Offset, rec.LeaderEpoch, rec.Value
		if v, err := event.ScanHead(rec.Value); err == nil {
			e.view = v
		}
		bytes += len(rec.Value) + len(rec.Key)
	}
	return entries, bytes + len(entries)*int(unsafe.Sizeof(entry{}))
}

// find returns the index of the first entry at offset or behind it.
func find(entries []entry, offset int64) int {
	return sort.Search(len(entries), func(i int) bool { return entries[i].offset >= offset })
}

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
	first    int64     // the window covers the offsets from first
	next     int64     // up to next
	since    time.Time // what lies below first was in the log by then
	changed  chan struct{}
	bells    map[*bell]int // who is rung at every change, and for how many positions
}

// bell is rung where a channel to wait on will not do: it wakes one who reads at
// many positions. ring must not wait, and must not ask a partition.
type bell struct{ ring func() }

// hang has a bell rung at every change from now on, once more for each call.
func (p *partition) hang(b *bell) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bells == nil {
		p.bells = map[*bell]int{}
	}
	p.bells[b]++
}

// unhang takes one hang back.
func (p *partition) unhang(b *bell) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bells[b]--; p.bells[b] <= 0 {
		delete(p.bells, b)
	}
}

// open begins a window at an end offset that was had before now.
func (p *partition) open(end int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.followed = true
	p.opens++
	p.first, p.next, p.since, p.segments = end, end, now, nil
	p.wakeLocked()
}

// shut forgets the window and returns how many bytes it held.
func (p *partition) shut() (bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.segments {
		bytes += s.bytes
	}
	p.followed, p.segments = false, nil
	p.wakeLocked()
	return bytes
}

// wakeLocked tells all who wait that something has changed.
func (p *partition) wakeLocked() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
	for b := range p.bells {
		b.ring()
	}
}

// add appends a segment that begins at the window's end. It tells whether the
// partition is still followed.
func (p *partition) add(s *segment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.followed || s.first != p.next {
		return false
	}
	p.segments = append(p.segments, s)
	p.next = s.next
	p.wakeLocked()
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
	p.first, p.since = s.next, s.taken
	return true
}

// end is the offset behind the window's newest record.
func (p *partition) end() (next int64, followed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next, p.followed
}

// view is what a partition shows to a reader at some offset.
type view struct {
	opens    int
	followed bool
	older    bool            // the offset is before the window
	segment  *segment        // that covers the offset, or nil
	wait     <-chan struct{} // where there is none yet: closed when something changes
	first    int64
}

func (p *partition) at(offset int64) view {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := view{opens: p.opens, followed: p.followed, first: p.first}
	switch {
	case !p.followed:
	case offset < p.first:
		v.older = true
	case offset >= p.next:
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		v.wait = p.changed
	default:
		i := sort.Search(len(p.segments), func(i int) bool { return p.segments[i].next > offset })
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
		return p.next, true
	}
	return p.segments[i].first, true
}
