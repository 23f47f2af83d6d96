package engine

import (
	"math"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

// refreshEvery is how often a LP commits that has nothing new to say: its bound
// moves on, so that a successor reads little, and a commit that came late from
// another owner does not stay.
const refreshEvery = 10 * time.Second

// drive takes the next step of a lane's claim, and commits what has become
// committable.
func (e *Engine) drive(now time.Time, l *lane) {
	e.awake(now, l)
	e.pulseLapse(now, l)
	if l.epoch > 0 && l.claimer.Owns() && l.lapsed && e.leases(now, l) {
		// The same owner under the same membership: nobody was before but we.
		l.claimer = fence.NewClaimer(l.filter.Epochs[l.Lane])
		l.claimer.Waited()
	}
	switch l.claimer.Next(e.leases(now, l)) {
	case fence.Wait:
		if l.waived >= 0 || !now.Before(l.waitUntil) {
			l.claimer.Waited()
		}
		if l.claimer.Next(e.leases(now, l)) != fence.FindEnd {
			break
		}
		fallthrough
	case fence.FindEnd:
		if !l.asked {
			l.asked = true
			e.do(FindEnd{LP: l.LP, Gen: l.gen, Next: l.tracker.Watermark(), From: l.position})
		}
	case fence.AppendNow:
		e.claim(now, l)
	case fence.Own, fence.Lost:
	}
	wait := refreshEvery
	if l.dirty {
		wait = e.cfg.CommitEvery
	}
	if l.epoch > 0 && now.Sub(l.committedAt) >= wait {
		l.committedAt, l.dirty = now, false
		e.do(l.commit())
	}
}

func (e *Engine) claim(now time.Time, l *lane) {
	known := max(l.filter.Epochs[l.Lane], e.pulses[l.LP].epoch)
	if l.epoch == 0 && known > max(l.covered, l.waived) {
		// Whoever claimed this epoch may have done so since the wait began, or it
		// is not the one that released: its lease is to be waited out as well.
		l.covered, l.waived, l.waitUntil = known, -1, now.Add(e.cfg.Lease)
		l.claimer = fence.NewClaimer(known)
		return
	}
	l.lapsed = false
	l.claimer.Sent()
	e.do(AppendClaim{
		LP: l.LP, Gen: l.gen, Epoch: l.claimer.Epoch(),
		Claim: event.Claim{Owner: e.cfg.Owner, Bound: l.safeBound().Bound, Watermark: l.tracker.Watermark()},
	})
}

func (e *Engine) located(now time.Time, in Located) {
	l := e.lanes[in.LP]
	if l == nil || l.gen != in.Gen {
		return
	}
	if l.epoch == 0 && in.End < l.bound.Bound { // the log has lost what was there when that was committed
		e.forgetBound(now, l)
		return
	}
	l.asked = false
	l.claimer.End(in.End, l.position)
	if l.epoch == 0 {
		l.handover = max(l.handover, in.RequestsEnd)
		e.asked(l, in.Jobs, max(in.End, 1))
		l.oldest = time.Time{}
		if in.LogStart > 0 {
			l.oldest = in.Oldest
		}
		e.listen(l, in.ControlFrom, in.ControlEnd)
	}
}

func (e *Engine) claimFailed(in ClaimFailed) {
	if l := e.lanes[in.LP]; l != nil && l.gen == in.Gen {
		l.claimer.Failed()
	}
}

// safeBound is where a successor's restore may begin: no event of a request
// that is not done stands before it. A request that was started and of which
// nothing was read holds nothing back, however long it takes: what it writes
// comes behind what was read. Nor do requests that are still to be delivered,
// unless there was output of which it is not known whose it is.
func (l *lane) safeBound() offsets.Metadata {
	if l.epoch == 0 || len(l.restored) > 0 {
		return l.bound
	}
	m := offsets.Metadata{Bound: l.position, Epoch: l.filter.Epochs[l.Lane]}
	for _, en := range l.entries {
		if en.shown && en.from < m.Bound {
			m.Bound, m.Epoch = en.from, en.epoch
		}
	}
	return m
}

// commit makes what is to be committed now.
func (l *lane) commit() Commit {
	m := l.safeBound()
	m.Done = l.tracker.Above()
	text, err := m.Encode(l.tracker.Watermark())
	if err != nil {
		text = "" // the span is bounded, so this is not reached; without metadata a successor takes longer
	}
	return Commit{LP: l.LP, Next: l.tracker.Watermark(), Metadata: text}
}

// pulse tells how every lane stands.
func (e *Engine) pulse() {
	if len(e.lanes) == 0 {
		return
	}
	all := make([]Pulse, 0, len(e.lanes))
	for _, l := range e.sorted {
		if l.epoch == 0 {
			continue
		}
		const smooth = 0.3
		l.rate += smooth * (float64(l.doneCount)/e.cfg.PulseEvery.Seconds() - l.rate)
		l.doneCount = 0
		all = append(all, e.pulseOf(l))
	}
	if len(all) > 0 {
		e.do(Pulses{all})
	}
}

func (e *Engine) pulseOf(l *lane) Pulse {
	return Pulse{LP: l.LP, Epoch: l.epoch, Data: event.Pulse{
		Partition: l.Partition, Owner: e.cfg.Owner, Member: l.member,
		Bound: l.safeBound().Bound, Watermark: l.tracker.Watermark(), Consumed: l.delivered,
		InFlight: len(l.entries) + len(l.backlog), Running: l.started, Waiting: e.wanting(l) + len(l.backlog),
		Rate: math.Round(l.rate*100) / 100, Breaker: "closed",
	}}
}
