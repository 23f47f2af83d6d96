package engine

import (
	"slices"
	"time"
)

// What a process asks of the cluster, and what it is given.

// poll is the intake's: seeks, then changes of the group, then requests.
func (p *proc) poll() {
	for _, f := range p.wanted {
		if a := p.life[f.LP]; a != nil && a.life == f.Life {
			if s := p.fetch[f.LP]; s != nil {
				s.next, s.stopped = f.Next, false
			}
			a.seeks++
		}
	}
	p.wanted = nil
	if p.leaving {
		return
	}
	if len(p.groupQ) > 0 {
		ev := p.groupQ[0]
		p.groupQ = p.groupQ[1:]
		switch ev.kind {
		case assignedEvent:
			p.lives++
			p.life[ev.lp] = &life{life: p.lives}
			p.fetch[ev.lp] = &fetch{next: ev.next}
			if p.w.noWait {
				p.step(PulseSeen{LP: ev.lp, Epoch: p.w.filters[ev.lp.Partition].Epochs[ev.lp.Lane], Released: true})
			}
			p.intakeQ = append(p.intakeQ, Assigned{LP: ev.lp, Life: p.lives, Member: ev.id, Next: ev.next, Metadata: ev.metadata})
		case revokedEvent:
			p.intakeQ = append(p.intakeQ, Revoked{ev.lp})
		case lostEvent:
			p.intakeQ = append(p.intakeQ, Lost{ev.lp})
		}
		return
	}
	if len(p.intakeQ) > 3 {
		return // the mailbox is full
	}
	first := p.w.n(len(p.w.lps))
	for i := range p.w.lps {
		lp := p.w.lps[(first+i)%len(p.w.lps)]
		s, log := p.fetch[lp], p.w.reqs[lp]
		if s == nil || s.paused || s.stopped || s.next >= int64(len(log)) {
			continue
		}
		if s.next < p.w.reqFrom[lp] {
			s.stopped = true
			p.intakeQ = append(p.intakeQ, RequestsGone{LP: lp, Earliest: p.w.reqFrom[lp]})
			return
		}
		in := Requests{LP: lp, Seeks: p.life[lp].seeks}
		for _, r := range log[s.next:min(s.next+1+int64(p.w.n(4)), int64(len(log)))] {
			c := r.Request
			if p.w.noOrder {
				c.Head.Conversation = ""
			}
			in.Requests = append(in.Requests, &c)
		}
		s.next += int64(len(in.Requests))
		p.intakeQ = append(p.intakeQ, in)
		return
	}
}

func (p *proc) pollTail(part int32) {
	s, log := p.tail[part], p.w.tokens[part]
	if s == nil || s.stopped || p.w.now.Before(p.muted[readsTokens]) || s.at >= int64(len(log)) || len(p.tailQ) > 3 {
		return
	}
	if s.at < p.w.tokFrom[part] {
		s.stopped = true
		p.tailQ = append(p.tailQ, TokensGone{Partition: part, Earliest: p.w.tokFrom[part]})
		return
	}
	in := Tokens{Partition: part, From: s.at, Next: min(s.at+1+int64(p.w.n(12)), int64(len(log)))}
	for o := in.From; o < in.Next; o++ {
		in.Seen = append(in.Seen, Seen{Offset: o, View: log[o].view, Owner: log[o].owner})
	}
	s.at = in.Next
	p.tailQ = append(p.tailQ, in)
}

func (p *proc) pollControl(part int32) {
	s, log := p.ctl[part], p.w.control[part]
	if s == nil || s.at >= int64(len(log)) || len(p.ctlQ) > 3 {
		return
	}
	next := min(s.at+1+int64(p.w.n(4)), int64(len(log)))
	p.ctlQ = append(p.ctlQ, Cancels{Partition: part, From: s.at, Next: next, Cancels: log[s.at:next]})
	s.at = next
}

// heartbeat goes through its parts: sent, looked at by the coordinator, back.
// Mostly they follow each other at once.
func (p *proc) heartbeat() {
	if p.beat == nil {
		p.beat = &beat{sent: p.w.now, id: p.id}
		if p.w.n(4) == 3 {
			return
		}
	}
	if !p.beat.asked {
		p.beat.asked, p.beat.answered = true, p.member && p.beat.id == p.id || p.w.noLease
		if p.w.n(4) == 3 {
			return
		}
	}
	if p.beat.answered && p.w.n(100) >= p.w.faults/4 {
		p.step(LeaseRenewed{Sent: p.beat.sent, Member: p.beat.id})
	}
	p.beat = nil
}

// locate goes through its questions, in order: where the tokens end, then all
// that is asked of requests and cancels, and the answer.
func (p *proc) locate() {
	if len(p.locates) == 0 {
		return
	}
	l := p.locates[0]
	part := l.f.Partition
	switch {
	case l.in == nil:
		l.in = &Located{LP: l.f.LP, Gen: l.f.Gen, End: int64(len(p.w.tokens[part])), LogStart: p.w.tokFrom[part]}
		if l.in.LogStart < l.in.End {
			l.in.Oldest = p.w.tokens[part][l.in.LogStart].time
		}
	case !l.asked:
		l.asked = true
		l.in.RequestsEnd = int64(len(p.w.reqs[l.f.LP]))
		if p.w.n(4) > 0 { // else they are too many
			l.in.Jobs = map[string]struct{}{}
			for _, r := range p.w.reqs[l.f.LP][max(l.f.Next, p.w.reqFrom[l.f.LP]):] {
				if r.job != nil {
					l.in.Jobs[jobKey(r.Head.Tenant, r.Head.Job)] = struct{}{}
				}
			}
		}
		p.locateControl(l)
	default:
		p.locates = p.locates[1:]
		p.step(*l.in)
	}
}

// locateControl looks where the cancels of what is not done begin, by the time
// of the first request that is not, and where the log ends.
func (p *proc) locateControl(l *locate) {
	since, log := p.w.now, p.w.control[l.f.Partition]
	if reqs := p.w.reqs[l.f.LP]; l.f.Next < int64(len(reqs)) {
		since = reqs[max(l.f.Next, p.w.reqFrom[l.f.LP])].Time
	}
	l.in.ControlEnd = int64(len(log))
	from, _ := slices.BinarySearchFunc(log, since.Add(-2*time.Second), func(c Cancel, t time.Time) int { return c.Time.Compare(t) })
	l.in.ControlFrom = int64(from)
	if lane := p.eng.lanes[l.f.LP]; lane != nil && lane.gen == l.f.Gen && lane.epoch == 0 {
		p.heard[l.f.Gen] = l.in.ControlEnd
	}
	if p.w.noControl {
		l.in.ControlFrom = l.in.ControlEnd
	}
}

func (p *proc) flushTokens(part int32) {
	if q := p.tokQ[part]; len(q) > 0 {
		p.tokQ[part] = q[1:]
		q[0].land()
	}
}

func (p *proc) flushOther() {
	if len(p.jobQ) == 0 {
		return
	}
	wr := p.jobQ[0]
	p.jobQ = p.jobQ[1:]
	wr.land()
	if wr.ok != nil {
		p.post(wr.ok)
	}
}

func (p *proc) commit() {
	if len(p.leaves) > 0 {
		r := p.leaves[0]
		p.leaves = p.leaves[1:]
		if r.Commit != nil {
			if p.member && p.w.n(100) >= p.w.faults/4 {
				p.w.applyCommit(*r.Commit)
			}
			p.w.pulses = append(p.w.pulses, p.pulseOf(r.Pulse))
		}
		p.w.released(p, r.LP)
		return
	}
	if len(p.flying) > 0 {
		c := p.flying[0]
		p.flying = p.flying[1:]
		switch _, newer := p.pending[c.LP]; {
		case p.member && p.w.n(100) >= p.w.faults/4:
			p.w.applyCommit(c)
		case !newer && p.fetch[c.LP] != nil:
			p.pending[c.LP] = c
		}
		return
	}
	for _, lp := range p.w.lps {
		if c, ok := p.pending[lp]; ok {
			p.flying = append(p.flying, c)
			delete(p.pending, lp)
		}
	}
}
