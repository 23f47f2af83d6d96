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
	// maxHeld bounds the requests of a partition from its checkpoint on, which is
	// paused then, until a quarter of them is written: so requests are held before
	// their ends are here.
	maxHeld = 2000
	// maxHeldBytes bounds what is held in all: beyond it nothing is.
	maxHeldBytes = 32 << 20
	// holdFor is how long a request of a burst waits for its job's first fact, anew
	// with each that comes for its partition; and holdAtMost in all.
	holdFor    = 2 * time.Second
	holdAtMost = 10 * time.Second
)

// item is a record on its way to the tables, and what it does to the checkpoint
// of its partition.
type item struct {
	event.Record

	turn turn
}

type turn int

const (
	inTurn turn = iota // it is folded, and the checkpoint moves behind it
	ahead              // it is folded before its turn, and the checkpoint stays
	passed             // it was folded ahead; now the checkpoint moves behind it
)

// holder has the requests of a burst wait for the first word of their jobs: a
// job that is queued and done within moments is then one row written once, and
// not a row that is written and soon written over, which costs PostgreSQL more
// than twice as much.
//
// Jobs end out of order. A request leaves with its job's first fact, ahead of
// the requests before it, whose checkpoint stays where it is: it moves when all
// before it have left too. A projector that goes on from there folds such a
// request once more, which changes nothing, for the fold is idempotent.
//
// It is of the loop's goroutine alone; time is passed in.
type holder struct {
	names topics.Names
	parts map[kafka.TopicPartition]*heldPart
	jobs  map[key]*held // the newest request of each job that is held
	count int           // held and not gone
	bytes int
}

// heldPart is one partition's requests, in order.
type heldPart struct {
	queue []*held
	gone  int       // of the queue
	full  bool      // and paused
	moved time.Time // when the newest of them left with a fact
}

type held struct {
	event.Record

	key   key
	since time.Time
	gone  bool // it has left ahead of its turn, and only its place is held
}

func newHolder(names topics.Names) *holder {
	return &holder{names: names, parts: map[kafka.TopicPartition]*heldPart{}, jobs: map[key]*held{}}
}

// pass takes what was polled and returns what is to be written now: facts at
// once, each behind its request where that is held, and the requests that are
// not to wait any more.
func (h *holder) pass(records []event.Record, now time.Time) []item {
	out := make([]item, 0, len(records))
	for i := range records {
		if rec := &records[i]; h.isRequest(rec) {
			h.hold(rec, now)
		}
	}
	if h.count < burst || h.bytes > maxHeldBytes {
		for _, part := range h.parts {
			out = h.release(out, part, len(part.queue))
		}
	}
	for i := range records {
		if rec := &records[i]; !h.isRequest(rec) {
			out = append(h.fetch(out, rec, now), item{Record: *rec})
		}
	}
	for _, part := range h.parts {
		out = h.release(out, part, part.due(now))
	}
	return out
}

func (h *holder) isRequest(rec *event.Record) bool {
	_, ok := h.names.LaneOf(rec.Topic)
	return ok
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

// fetch has the request of a fact's job leave with it, if it is held.
func (h *holder) fetch(out []item, fact *event.Record, now time.Time) []item {
	if len(h.jobs) == 0 {
		return out
	}
	v, err := event.ScanHead(fact.Value)
	if err != nil {
		return out
	}
	r := h.jobs[key{string(v.Tenant), string(v.Job)}]
	if r == nil || r.Partition != fact.Partition { // a fact is on its request's number
		return out
	}
	out = append(out, item{r.Record, ahead})
	part := h.parts[partitionOfRecord(&r.Record)]
	part.gone++
	part.moved = now
	h.forget(r)
	r.gone = true
	r.Record = event.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}
	return out
}

// due is how many of a partition's requests are not to wait any more: those
// that have left, and those that have waited long enough. Where most have left,
// the first is of a slow job, and the checkpoint does not wait for it.
func (p *heldPart) due(now time.Time) int {
	n, gone := 0, p.gone
	for _, r := range p.queue {
		switch {
		case r.gone:
			gone--
		case gone < maxHeld/2 && now.Before(p.until(r)):
			return n
		}
		n++
	}
	return n
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

func (h *holder) release(out []item, part *heldPart, n int) []item {
	for i, r := range part.queue[:n] {
		part.queue[i] = nil
		if r.gone {
			part.gone--
			out = append(out, item{r.Record, passed})
			continue
		}
		out = append(out, item{r.Record, inTurn})
		h.forget(r)
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
		if !r.gone {
			h.forget(r)
		}
	}
	delete(h.parts, tp)
	return part.full
}

// flush appends all that is held of a partition.
func (h *holder) flush(out []item, tp kafka.TopicPartition) []item {
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
