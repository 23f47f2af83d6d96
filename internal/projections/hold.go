package projections

import (
	"cmp"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

const (
	// burst is how many requests are held before any is: fewer are written at
	// once, so that a list shows a job soon after it was taken in.
	burst = 1000
	// maxHeld bounds what is held of a partition, which is paused then, until a
	// quarter of it is gone: so requests are held before their ends are here.
	maxHeld = 2000
	// maxHeldBytes bounds what is held in all: beyond it nothing is.
	maxHeldBytes = 32 << 20
	// holdFor is how long a request of a burst waits for its end, anew with each
	// end that comes of its partition; and holdAtMost in all.
	holdFor    = 2 * time.Second
	holdAtMost = 10 * time.Second
)

// holder has the requests of a burst wait for their ends: a job that is queued
// and done within moments is then one row written once, and not a row that is
// written and soon written over, which costs PostgreSQL more than twice as much.
//
// Each partition's requests leave in order, so that its checkpoint says what was
// written. It is of the loop's goroutine alone; time is passed in.
type holder struct {
	names topics.Names
	parts map[kafka.TopicPartition]*heldPart
	jobs  map[key]*held // the newest request of each job that is held
	count int
	bytes int
}

// heldPart is one partition's requests, in order.
type heldPart struct {
	queue []*held
	full  bool      // and paused
	moved time.Time // when the newest end came
}

type held struct {
	event.Record
	key   key
	since time.Time
	ended bool // its terminal fact is here
}

func newHolder(names topics.Names) *holder {
	return &holder{names: names, parts: map[kafka.TopicPartition]*heldPart{}, jobs: map[key]*held{}}
}

// pass takes what was polled and returns what is to be written now: facts at
// once, and before them the requests that are not to wait any more. Requests
// and facts of one partition number stand together.
func (h *holder) pass(records []event.Record, now time.Time) []event.Record {
	facts := map[int32][]event.Record{}
	for i := range records {
		rec := &records[i]
		if _, ok := h.names.LaneOf(rec.Topic); ok {
			h.hold(rec, now)
		} else {
			facts[rec.Partition] = append(facts[rec.Partition], *rec)
			h.end(rec, now)
		}
	}
	out := make([]event.Record, 0, len(records))
	calm := h.count < burst || h.bytes > maxHeldBytes
	for tp, part := range h.parts {
		out = h.release(out, part, h.due(part, now, calm))
		out = append(out, facts[tp.Partition]...)
		delete(facts, tp.Partition) // of the first lane that comes by
	}
	for _, rest := range facts {
		out = append(out, rest...)
	}
	return out
}

// turn tells which partitions are to be paused and which to go on, since the
// last time.
func (h *holder) turn() (pause, resume []kafka.TopicPartition) {
	for tp, part := range h.parts {
		switch n := len(part.queue); {
		case !part.full && n >= maxHeld:
			part.full = true
			pause = append(pause, tp)
		case part.full && n <= maxHeld*3/4:
			part.full = false
			resume = append(resume, tp)
		}
	}
	return pause, resume
}

func (h *holder) hold(rec *event.Record, now time.Time) {
	tp := partitionOfRecord(rec)
	part := h.parts[tp]
	if part == nil {
		part = &heldPart{}
		h.parts[tp] = part
	}
	r := &held{Record: *rec, since: now}
	if v, err := event.ScanHead(rec.Value); err == nil { // else it is poison, and has no end
		r.key = key{cmp.Or(string(v.Tenant), event.DefaultTenant), string(v.Job)}
		h.jobs[r.key] = r
	}
	part.queue = append(part.queue, r)
	h.count++
	h.bytes += len(rec.Value)
}

func (h *holder) end(rec *event.Record, now time.Time) {
	if len(h.jobs) == 0 {
		return
	}
	v, err := event.ScanHead(rec.Value)
	if err != nil || !v.Type.Terminal() {
		return
	}
	if r := h.jobs[key{string(v.Tenant), string(v.Job)}]; r != nil {
		r.ended = true
		h.parts[partitionOfRecord(&r.Record)].moved = now
	}
}

// due is how many of a partition's requests are to be written now: all up to the
// last one that has ended, or has waited long enough.
func (*holder) due(part *heldPart, now time.Time, calm bool) int {
	if calm {
		return len(part.queue)
	}
	for n := len(part.queue); n > 0; n-- {
		if r := part.queue[n-1]; r.ended || !now.Before(part.until(r)) {
			return n
		}
	}
	return 0
}

// until is how long a request waits for its end, as things are.
func (p *heldPart) until(r *held) time.Time {
	from := r.since
	if p.moved.After(from) {
		from = p.moved
	}
	at, most := from.Add(holdFor), r.since.Add(holdAtMost)
	if most.Before(at) {
		return most
	}
	return at
}

func (h *holder) release(out []event.Record, part *heldPart, n int) []event.Record {
	for i, r := range part.queue[:n] {
		out = append(out, r.Record)
		h.forget(r)
		part.queue[i] = nil
	}
	part.queue = part.queue[n:]
	return out
}

func (h *holder) forget(r *held) {
	h.count--
	h.bytes -= len(r.Value)
	if h.jobs[r.key] == r {
		delete(h.jobs, r.key)
	}
}

// drop forgets a partition, which is another's now, or is read anew, and tells
// whether it was paused.
func (h *holder) drop(tp kafka.TopicPartition) (paused bool) {
	part := h.parts[tp]
	if part == nil {
		return false
	}
	for _, r := range part.queue {
		h.forget(r)
	}
	delete(h.parts, tp)
	return part.full
}

// flush appends all that is held of a partition.
func (h *holder) flush(out []event.Record, tp kafka.TopicPartition) []event.Record {
	if part := h.parts[tp]; part != nil {
		out = h.release(out, part, len(part.queue))
	}
	return out
}

// next is when something held is due, at the latest; zero where nothing is held.
func (h *holder) next() (at time.Time) {
	for _, part := range h.parts {
		if len(part.queue) == 0 {
			continue
		}
		if due := part.until(part.queue[0]); at.IsZero() || due.Before(at) {
			at = due
		}
	}
	return at
}
