package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
)

// folder is a feed that may begin with what was said so far.
type folder interface {
	pending() bool // it begins with it, and has not begun
	folding() bool // it has begun with it, and it was not sent
	endSnapshot()
}

// subscription is one of a socket's. It has one owner at a time: the reader
// until it was adopted, then the pump, and while it is away an errand.
type subscription struct {
	of        *socket
	name, ref string
	feed      feed
	job       *jobFeed // nil where it is not of a job
	reader    *reader
	part      *partition
	frame     envelope
	begins    string // the cursor at which it began
	debut     debut

	settling  *settling // nil once it is known that there is something to subscribe to
	grace     *time.Timer
	announced bool // the client knows that it is subscribed

	resting   bool          // it is idle until it is rung,
	missed    bool          // which it was while it was not idle
	parked    bool          // it is idle until there is credit
	away      bool          // with an errand
	gone      bool          // unsubscribed, or ended
	more      int64         // credit that came while it was away
	unlimited bool          // it began without credit
	verdict   *verdict      // that came while it was away
	behind    *subscription // in the socket's queue

	// Guarded by the socket's mu.
	named    bool // else it was unsubscribed, and its name is free
	rung     bool
	rungNext *subscription // among those that were
}

// ring implements listener.
func (sub *subscription) ring() {
	s := sub.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sub.rung {
		sub.rung, sub.rungNext = true, s.rungSubs
		s.rungSubs = sub
	}
	s.ringLocked()
}

// line is a queue of subscriptions.
type line struct{ first, last *subscription }

func (l *line) add(sub *subscription) {
	if l.last == nil {
		l.first = sub
	} else {
		l.last.behind = sub
	}
	l.last = sub
}

func (l *line) take() *subscription {
	sub := l.first
	if l.first = sub.behind; l.first == nil {
		l.last = nil
	}
	sub.behind = nil
	return sub
}

// close lets go of what the subscription holds.
func (sub *subscription) close() {
	if sub.grace != nil {
		sub.grace.Stop()
	}
	if f, ok := sub.feed.(folder); ok {
		f.endSnapshot()
	}
	if sub.part != nil {
		sub.reader.leave()
		sub.reader.hub.release(sub.part)
		sub.part = nil
	}
	sub.frame.reset()
}

// reserve takes a name for a subscription that is about to be.
func (s *socket) reserve(name string) (*subscription, error) {
	if err := s.all.hold(); err != nil {
		return nil, err
	}
	sub, err := s.reserveHeld(name)
	if err != nil {
		s.all.free()
	}
	return sub, err
}

func (s *socket) reserveHeld(name string) (*subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.findLocked(name) != nil {
		return nil, fault.Param("sub", "sub: there is a subscription %.140q on this connection: give the new one another name", name)
	}
	if len(s.subs) >= maxSubscriptions {
		return nil, fault.Param("sub", "this connection has %d subscriptions, as many as it may have: unsubscribe from one, or open another connection", maxSubscriptions)
	}
	quoted, _ := jsontext.AppendQuote(nil, name) // it was decoded, so it is UTF-8
	sub := &subscription{
		name: name, named: true, debut: debut{began: s.g.cfg.Now()}, of: s,
		frame: envelope{
			buffers: &s.all.buffers, now: s.g.cfg.Now, sub: quoted, credit: -1,
			gaps: s.g.metrics.gaps.WithLabelValues(gapUnreadable),
		},
	}
	s.subs = append(s.subs, sub)
	return sub, nil
}

// release forgets a subscription. Its owner may call it.
func (s *socket) release(sub *subscription) {
	sub.gone = true
	s.mu.Lock()
	if at := slices.Index(s.subs, sub); at >= 0 {
		s.subs = slices.Delete(s.subs, at, at+1)
	}
	s.mu.Unlock()
	sub.close()
	s.all.free()
}

// find gives the subscription of a name, nil where there is none.
func (s *socket) find(name string) *subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.findLocked(name)
}

// findLocked is find. A look at a thousand is cheap beside the frame that asks.
func (s *socket) findLocked(name string) *subscription {
	for _, sub := range s.subs {
		if sub.named && sub.name == name {
			return sub
		}
	}
	return nil
}

// adopt takes a subscription that was opened. Only the pump may call this and
// what follows.
func (s *socket) adopt(sub *subscription) {
	if sub.settling == nil {
		s.announce(sub)
	}
	s.queue.add(sub)
}

// announce tells the client that it is subscribed.
func (s *socket) announce(sub *subscription) {
	sub.settling, sub.announced = nil, true
	a := answerFrame{Op: "subscribed", Ref: sub.ref, Sub: sub.name}
	if sub.job == nil {
		a.Cursor = sub.begins
	}
	s.write(encodeFrame(a))
}

// turn reads a piece for a subscription, as much as goes into one frame.
func (s *socket) turn(sub *subscription) {
	if sub.gone || sub.away {
		return
	}
	if f, ok := sub.feed.(folder); ok && f.pending() { // a snapshot costs no credit
		s.fetch(sub)
		return
	}
	if sub.frame.credit == 0 && !sub.over() {
		sub.parked = true
		return
	}
	wait, err := sub.feed.poll(s.ctx)
	s.after(sub, wait, err)
}

// over tells whether nothing will come any more.
func (sub *subscription) over() bool {
	return sub.job != nil && (sub.job.progress.End != "" || sub.job.over)
}

// after writes what a poll has brought, and sees to what comes next.
func (s *socket) after(sub *subscription, wait <-chan struct{}, err error) {
	if sub.settling != nil && (errors.Is(err, errNoMore) || err == nil && sub.job.settled(sub.settling, wait)) {
		s.announce(sub)
		switch {
		case sub.job.over && sub.job.gaping():
			wait, err = nil, nil // the job's row may have what is missing
		case sub.job.over:
			err = errNoMore
		}
	}
	if sub.announced {
		s.deliver(sub)
	}
	switch {
	case errors.Is(err, errNoMore):
		s.finish(sub)
	case errors.Is(err, errFar):
		s.fetch(sub)
	case err != nil && s.ctx.Err() == nil:
		s.g.cfg.Logger.WarnContext(s.ctx, "subscription waits for the log", slog.String("request_id", s.id), slog.Any("error", err))
		time.AfterFunc(retryPause, func() { s.report(func() { s.queue.add(sub) }) })
	case err != nil:
	case wait == nil:
		s.queue.add(sub)
	default:
		s.rest(sub)
	}
}

// rest leaves a subscription until there is more. A job of which nothing was
// seen for a while is asked after.
func (s *socket) rest(sub *subscription) {
	if sub.missed {
		sub.missed = false
		s.queue.add(sub)
		return
	}
	sub.resting = true
	if sub.settling != nil && sub.grace == nil {
		sub.grace = time.AfterFunc(s.g.cfg.Grace, func() { s.report(func() { s.inquire(sub) }) })
	}
}

// rouse gives a subscription that rests a turn.
func (s *socket) rouse(sub *subscription) {
	if sub.resting || sub.parked {
		sub.resting, sub.parked = false, false
		s.queue.add(sub)
	}
}

// deliver writes the events that were gathered, unless nothing can be sent any more.
func (s *socket) deliver(sub *subscription) {
	f := &sub.frame
	if s.mute() {
		f.reset()
	}
	if f.box.empty() {
		return
	}
	f.finish()
	s.g.metrics.framesOut.Add(float64(f.frames))
	s.out.join(f.buffers, &f.box)
	s.g.sent(&sub.debut, f.events)
	if f.credit >= 0 {
		f.credit -= int64(f.records)
	}
	f.reset()
}

// finish ends a subscription of which nothing will come any more.
func (s *socket) finish(sub *subscription) {
	status := endedError
	if sub.job != nil {
		status = sub.job.status()
	}
	s.g.metrics.completions.WithLabelValues(status).Inc()
	s.release(sub) // first, so that its name is free when the client reads this
	s.write(encodeFrame(answerFrame{Op: "end", Sub: sub.name, Status: status}))
}

// drop ends a subscription that cannot be.
func (s *socket) drop(sub *subscription, err error) {
	sub.resting = false
	s.release(sub)
	s.write(encodeFrame(s.refusalOf(sub.ref, sub.name, err)))
}

// fetch reads a piece for a subscription of what is not in memory, or all of
// what its snapshot needs. What it brings is written before another errand takes
// its place, so that a client that does not read costs no more than these.
func (s *socket) fetch(sub *subscription) {
	sub.away, sub.reader.near = true, false
	s.errand(sub.part.id, func() (settle func(), answered bool) {
		wait, err := sub.readFar(s.ctx)
		return func() { s.back(sub, wait, err) }, err == nil || errors.Is(err, errNoMore)
	})
}

func (sub *subscription) readFar(ctx context.Context) (wait <-chan struct{}, err error) {
	f, folds := sub.feed.(folder)
	for {
		wait, err = sub.feed.poll(ctx)
		if err != nil || wait != nil || !folds || !f.folding() {
			return wait, err
		}
	}
}

// back takes a subscription from an errand.
func (s *socket) back(sub *subscription, wait <-chan struct{}, err error) {
	sub.away, sub.reader.near = false, true
	if sub.gone {
		s.release(sub)
		return
	}
	if sub.frame.credit >= 0 {
		sub.frame.credit += sub.more
	}
	sub.more = 0
	s.after(sub, wait, err)
	if v := sub.verdict; v != nil && !sub.gone {
		sub.verdict = nil
		s.judge(sub, *v)
	}
}

// inquire finds out whether a job exists of which nothing was seen.
func (s *socket) inquire(sub *subscription) {
	if sub.gone || sub.settling == nil {
		return
	}
	if sub.away { // its errand tells of it soon enough
		sub.grace.Reset(s.g.cfg.Grace)
		return
	}
	q := sub.job.question()
	s.errand(sub.part.id, func() (settle func(), answered bool) {
		v := s.g.inspect(s.ctx, q)
		return func() { s.judge(sub, v) }, v.err == nil || notFound(v.err)
	})
}

// judge takes in whether a job exists.
func (s *socket) judge(sub *subscription, v verdict) {
	switch {
	case sub.gone || sub.settling == nil || s.ctx.Err() != nil:
		return
	case sub.away:
		sub.verdict = &v
		return
	}
	if err := sub.job.heed(sub.settling, v); err != nil {
		s.drop(sub, err)
		return
	}
	s.rouse(sub)
}
