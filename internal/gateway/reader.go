package gateway

import (
	"context"
	"errors"
	"fmt"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/kafka"
)

// reader is a position in a partition. It has one user at a time, and costs
// nothing while it waits.
type reader struct {
	hub  *hub
	part *partition

	next        int64 // offset of the record to be read next
	leaderEpoch int32 // of the record before next; -1: not known
	filter      fence.Filter
	opens       int // of the partition, when the position was last known to be good
	topic       cursor.TopicID
	reborn      int // of the hub: which topic it was

	about subject // whose records are visited where the window knows which those are
	near  bool    // poll asks nobody: where it would have to, it gives errFar
	// whole, where it is set, is offered a segment's whole run that several
	// watchers have before them. It tells whether it took all.
	whole func(*segment, *run) bool
	bell  bell
}

// never is what a poll gives to one who is rung, and waits for no channel.
//
//nolint:gochecknoglobals // Nothing is ever sent on it.
var never = make(<-chan struct{})

// errFar is what the poll of a near reader gives where Kafka has to be asked.
var errFar = errors.New("gateway: what comes next is not in memory")

// newReader makes a reader of a partition that the caller has acquired.
func newReader(h *hub, p *partition, next int64, leaderEpoch int32) *reader {
	opens := p.at(next).opens // first: a topic that is made anew meanwhile shows at the next poll
	topic, reborn := h.born()
	return &reader{
		hub: h, part: p, next: next, leaderEpoch: leaderEpoch, opens: opens, topic: topic, reborn: reborn,
	}
}

// answer has a listener rung where poll said to wait, in place of a channel.
func (r *reader) answer(who listener) {
	r.part.mu.Lock()
	defer r.part.mu.Unlock()
	r.bell.who = who
}

// narrow has the reader rung for its own records alone, and no more for all.
func (r *reader) narrow() {
	if r.bell.about == r.about {
		return
	}
	r.part.mu.Lock()
	defer r.part.mu.Unlock()
	hung := r.bell.hung
	r.part.unhang(&r.bell)
	if r.bell.about = r.about; hung {
		r.part.hang(&r.bell)
	}
}

// leave takes the reader's bell away. It is for its end.
func (r *reader) leave() {
	r.part.mu.Lock()
	defer r.part.mu.Unlock()
	r.part.unhang(&r.bell)
	r.bell.waiting = false
}

// cursor is the place behind a record that was just visited.
func (r *reader) cursor(e *entry) string {
	if c := e.cursor.Load(); c != nil && c.epochs == r.filter.Epochs {
		return c.text
	}
	c := &placed{r.filter.Epochs, r.place(e.offset+1, e.leaderEpoch)}
	e.cursor.Store(c)
	return c.text
}

// here is the reader's own place.
func (r *reader) here() string { return r.place(r.next, r.leaderEpoch) }

func (r *reader) place(next int64, leaderEpoch int32) string {
	return cursor.Cursor{
		Topic: r.topic, Partition: r.part.id, LeaderEpoch: leaderEpoch, Next: next, Epochs: r.filter.Epochs,
	}.String()
}

// Reasons why records may be missing from a stream.
const (
	gapRetention = "retention" // they were older than what the topic keeps
	gapTruncated = "truncated" // the log lost them
	gapRecreated = "recreated" // the topic is another one
	gapMissing   = "missing"   // a seq was left out
	gapCorrupt   = "corrupt"   // they cannot be decoded
	// gapUnreadable is of WebSockets: the record is no JSON, and a frame is.
	gapUnreadable = "unreadable"
)

// gapError says that the log has not got what stood at a reader's position. The
// reader is at the place where it can go on.
type gapError struct{ reason string }

// Error implements error.
func (e *gapError) Error() string { return "records are missing: " + e.reason }

// seek moves the reader.
func (r *reader) seek(next int64) {
	r.part.mu.Lock()
	defer r.part.mu.Unlock()
	r.next, r.leaderEpoch = next, -1
	r.bell.waiting, r.bell.rung = false, false // what it had passed is before it again
}

// pass moves the reader forward to a place before which nothing is for it.
func (r *reader) pass(to *spot) {
	r.filter.Pass(to.epochs)
	if to.next > r.next {
		r.next, r.leaderEpoch = to.next, to.leaderEpoch
	}
}

// look finds what the window has at the reader's position. wait, where it is not
// nil, tells of a ring: there is nothing yet.
func (r *reader) look() (v view, wait <-chan struct{}) {
	p, b := r.part, &r.bell
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case b.rung:
		r.pass(&b.passed)
	case b.waiting && p.followed:
		r.pass(&p.last)
	}
	b.rung, b.waiting = false, false
	v = p.atLocked(r.next)
	if !v.followed || v.opens != r.opens || v.older || v.segment != nil {
		return v, nil
	}
	if b.who == nil {
		b.who = make(wakes, 1)
	}
	p.hang(b)
	b.waiting = true
	if w, ok := b.who.(wakes); ok {
		return v, w
	}
	return v, never
}

// poll hands the records at the reader's position to visit, one by one, until
// visit wants no more or there are none; of the window's those of its subject
// alone. It reads from Kafka once at most, and only what is before the window; a
// near reader does not. Where wait is nil there may be more at once; else
// something is received from it when there may be, or the reader's listener is
// rung.
func (r *reader) poll(ctx context.Context, visit func(*entry) bool) (wait <-chan struct{}, err error) {
	for {
		v, wait := r.look()
		away := !v.followed || v.opens != r.opens
		switch {
		case r.near && (away || v.older):
			return nil, errFar
		case away:
			if err := r.reopen(ctx); err != nil {
				return nil, err
			}
		case v.older:
			return nil, r.catchUp(ctx, visit)
		case v.segment == nil:
			return wait, nil
		case v.segment.corrupt:
			r.seek(v.segment.behind.next)
			return nil, &gapError{gapCorrupt}
		case !r.walk(v.segment, visit):
			return nil, nil
		}
	}
}

// walk visits what a segment has of the reader's subject, and moves behind it. It
// tells whether visit took all.
func (r *reader) walk(s *segment, visit func(*entry) bool) bool {
	if r.about == (subject{}) {
		return r.read(s.entries, s.behind.next, visit)
	}
	if run := s.runs[r.about]; run != nil {
		switch {
		case r.whole != nil && run.watchers > 1 && r.next <= s.entries[run.first].offset:
			if !r.whole(s, run) {
				return false
			}
		case !r.walkRun(s, run, visit):
			return false
		}
	}
	r.pass(&s.behind)
	return true
}

// walkRun visits a run from the reader's position on.
func (r *reader) walkRun(s *segment, run *run, visit func(*entry) bool) bool {
	for i := run.first; i >= 0; i = *s.entries[i].following(r.about.kind) {
		e := &s.entries[i]
		if e.offset < r.next {
			continue
		}
		r.next, r.leaderEpoch = e.offset+1, e.leaderEpoch
		r.filter.Pass(*e.epochs)
		if !visit(e) {
			return false
		}
	}
	return true
}

// read visits entries and moves behind them, in the end to next. It tells
// whether visit took all.
func (r *reader) read(entries []entry, next int64, visit func(*entry) bool) bool {
	for i := find(entries, r.next); i < len(entries); i++ {
		e := &entries[i]
		r.next, r.leaderEpoch = e.offset+1, e.leaderEpoch
		if !visit(e) {
			return false
		}
	}
	r.next = max(r.next, next)
	return true
}

// reopen comes after the partition stopped being followed, or began anew.
func (r *reader) reopen(ctx context.Context) error {
	if err := r.hub.follow(ctx, r.part); err != nil {
		return err
	}
	if topic, reborn := r.hub.born(); reborn != r.reborn {
		r.topic, r.reborn = topic, reborn
		r.seek(0)
		return &gapError{gapRecreated}
	}
	v := r.part.at(r.next)
	e, err := r.before(ctx)
	if err != nil {
		if _, gap := errors.AsType[*gapError](err); gap {
			r.opens = v.opens
		}
		return err
	}
	r.opens = v.opens
	if e == nil && r.next > v.first { // what was read before it is gone
		r.seek(v.first)
		return &gapError{gapTruncated}
	}
	return nil
}

// before returns the record in front of the reader's position, nil if the log
// has it no more, and a gapError if it is another one than was there.
func (r *reader) before(ctx context.Context) (*entry, error) {
	at := r.next - 1
	if at < 0 {
		return nil, nil
	}
	var found *entry
	if v := r.part.at(at); v.segment != nil {
		if i := find(v.segment.entries, at); i < len(v.segment.entries) {
			found = &v.segment.entries[i]
		}
	} else {
		err := r.fetch(ctx, at, func(got kafka.Fetched) {
			if entries, _ := scan(got.Records, at); len(entries) > 0 {
				found = &entries[0]
			}
		})
		if errors.Is(err, kafka.ErrOutOfRange) || errors.Is(err, kafka.ErrCorrupt) {
			return nil, nil // the next poll sees whether next itself is there
		}
		if err != nil {
			return nil, r.judge(err)
		}
	}
	if found == nil || found.offset != at {
		return nil, nil
	}
	if r.leaderEpoch >= 0 && found.leaderEpoch != r.leaderEpoch {
		r.leaderEpoch = found.leaderEpoch
		return nil, &gapError{gapTruncated}
	}
	r.leaderEpoch = found.leaderEpoch
	return found, nil
}

// fetch reads one piece from Kafka, of the reader's own topic: another of its name may
// have been made of which the tail has not told yet.
func (r *reader) fetch(ctx context.Context, from int64, use func(kafka.Fetched)) error {
	err := r.hub.readOf(ctx, r.topic, r.hub.of(r.part.id), from, use)
	if errors.Is(err, kafka.ErrRecreated) { // reopen tells of it
		if err := r.hub.refresh(ctx); err != nil {
			return err
		}
	}
	return err
}

// catchUp reads one piece from Kafka.
func (r *reader) catchUp(ctx context.Context, visit func(*entry) bool) error {
	tp, from := r.hub.of(r.part.id), r.next
	var end int64
	err := r.fetch(ctx, from, func(got kafka.Fetched) {
		if end = got.HighWatermark; got.Next > from {
			entries, _ := scan(got.Records, from)
			r.read(entries, got.Next, visit)
		}
	})
	if errors.Is(err, kafka.ErrTruncated) && r.part.at(from).first >= from {
		return err // the tail will find it out too, and what follows is told once, by reopen
	}
	if err != nil {
		return r.judge(err)
	}
	if r.next == from {
		return fmt.Errorf("%w: %s has nothing at %d and ends at %d", kafka.ErrUnavailable, tp, from, end)
	}
	return nil
}

// judge moves the reader to where it can go on, where the log has lost what it
// was about to read.
func (r *reader) judge(err error) error {
	if out, ok := errors.AsType[*kafka.OutOfRangeError](err); ok && out.Earliest > r.next {
		r.seek(out.Earliest)
		return &gapError{gapRetention}
	}
	if corrupt, ok := errors.AsType[*kafka.CorruptError](err); ok {
		to := corrupt.Next
		if to <= r.next { // nothing tells where it ends
			to = r.part.at(r.next).first
		}
		if to > r.next {
			r.seek(to)
			return &gapError{gapCorrupt}
		}
	}
	if errors.Is(err, kafka.ErrTruncated) {
		r.seek(min(r.next, r.part.at(r.next).first))
		return &gapError{gapTruncated}
	}
	return err
}
