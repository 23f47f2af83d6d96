package engine

import (
	"maps"
	"time"
)

// peers is what the pulses tell of the group's other members, and which of them
// is to be removed from it for its silence: the coordinator would notice only
// after the session timeout. A wrong suspicion costs a rebalance, and nothing
// else: the fence decides what counts.
//
// It judges by the order of the one log that all pulses stand in. A member is
// silent when several rounds of our own pulses stand behind its last one. So
// where nobody's pulses arrive nobody is judged; one who is late to read judges
// no otherwise than one who is not; and of two whose pulses arrive neither can
// find the other silent. These rules keep it from running wild:
//
//   - Ours must have come back at their usual pace, and soon after they were
//     sent, for as long as the silence lasts: else we may be what is slow.
//   - After an interruption of ours, the others have three times as long to be
//     heard again: their clients may take longer than ours to come back.
//   - Who was heard in one round alone has just joined, or is long gone; who owns
//     nothing, as after it released all in order, says nothing.
//   - Where more than half of all members are silent, ourselves counted, it is
//     not they who are dead.
//   - One is removed at a time, and no other for a second after.
//   - A process that was removed and came back gets twice as long each time.
type peers struct {
	after time.Duration // of silence; 0 removes nobody
	every time.Duration // from pulse to pulse

	round     int // of ours that came back
	roundAt   time.Time
	sentAt    time.Time // the newest of ours that came back
	steady    int       // the round with which they began to come as usual
	steadyAt  time.Time
	askedAt   time.Time
	members   map[string]*peer
	evictions map[string]eviction // by owner
}

// peer is a member that was heard.
type peer struct {
	owner   string
	lps     int // that it owns, as far as the pulses tell
	rounds  int
	heardAt time.Time
	heard   int       // our round when it was heard
	outAt   time.Time // by then it was a member no more; zero: it is one
}

// eviction is a process that was removed, and may have come back.
type eviction struct {
	times int
	at    time.Time
}

const (
	silentRounds   = 4 // at least, of ours since
	unsteady       = 4 // times the usual pace, or the usual age: a busy machine is often twice as late
	afterStall     = 3 // times as long
	evictPause     = time.Second
	mostDoublings  = 4
	forgetEviction = time.Minute
	forgetPeer     = time.Minute
)

func newPeers(after, every time.Duration) peers {
	return peers{after: max(0, after), every: every, members: map[string]*peer{}, evictions: map[string]eviction{}}
}

// ours takes a pulse of ours that came back.
func (p *peers) ours(now, sent time.Time) {
	if sent.After(p.sentAt) {
		p.sentAt = sent
	}
	gap := now.Sub(p.roundAt)
	if gap < p.every/2 {
		return // of the same round
	}
	p.round++
	if gap > unsteady*p.every || now.Sub(sent) > unsteady*p.every {
		p.steady, p.steadyAt = p.round, now
	}
	p.roundAt = now
}

// hears takes a pulse of a member.
func (p *peers) hears(now time.Time, member, owner string) {
	m := p.members[member]
	if m == nil {
		m = &peer{owner: owner}
		p.members[member] = m
	}
	if now.Sub(m.heardAt) >= p.every/2 {
		m.rounds++
	}
	m.heardAt, m.heard = now, p.round
}

// owns counts the LPs of a member.
func (p *peers) owns(member string, change int) {
	if m := p.members[member]; m != nil {
		m.lps += change
	}
}

// silent gives the member that is to be removed, and "" where there is none.
func (p *peers) silent(now time.Time) string {
	if p.after == 0 || now.Sub(p.askedAt) < evictPause || now.Sub(p.roundAt) > unsteady*p.every {
		return ""
	}
	known, suspects := 1, 0
	var worst string
	for id, m := range p.members {
		if m.lps == 0 || !m.outAt.IsZero() {
			continue
		}
		known++
		if !p.suspects(now, m) {
			continue
		}
		suspects++
		if w := p.members[worst]; w == nil || m.heardAt.Before(w.heardAt) || m.heardAt.Equal(w.heardAt) && id < worst {
			worst = id
		}
	}
	if 2*suspects > known {
		return ""
	}
	if worst != "" {
		p.askedAt = now
	}
	return worst
}

func (p *peers) suspects(now time.Time, m *peer) bool {
	allowed := p.after << min(p.evictions[m.owner].times, mostDoublings)
	since, at := m.heard, m.heardAt
	if at.Before(p.steadyAt) {
		since, at = p.steady, p.steadyAt
		allowed *= afterStall
	}
	return m.rounds > 1 && p.round-since >= silentRounds && now.Sub(at) >= allowed
}

// out notes that a member is one no more.
func (p *peers) out(now time.Time, member string) {
	m := p.members[member]
	if m == nil || !m.outAt.IsZero() {
		return
	}
	m.outAt = now
	p.evictions[m.owner] = eviction{p.evictions[m.owner].times + 1, now}
}

// outSince tells by when a member was one no more; zero where it may be one.
func (p *peers) outSince(member string) time.Time {
	if m := p.members[member]; m != nil {
		return m.outAt
	}
	return time.Time{}
}

// forget drops what is of no use any more: members that own nothing, of which
// there are as many as LPs else.
func (p *peers) forget(now time.Time) {
	maps.DeleteFunc(p.members, func(_ string, m *peer) bool { return m.lps == 0 && now.Sub(m.heardAt) > forgetPeer })
	maps.DeleteFunc(p.evictions, func(_ string, e eviction) bool { return now.Sub(e.at) > forgetEviction })
}

// pulseSeen takes a pulse of anybody's.
func (e *Engine) pulseSeen(now time.Time, in PulseSeen) {
	switch {
	case in.Owner != "" && in.Owner == e.cfg.Owner:
		e.peers.ours(now, in.Sent)
	case in.Member != "":
		e.peers.hears(now, in.Member, in.Owner)
	}
	if old, ok := e.pulses[in.LP]; !ok || old.epoch <= in.Epoch {
		if !old.released {
			e.peers.owns(old.member, -1)
		}
		if !in.Released {
			e.peers.owns(in.Member, 1)
		}
		e.pulses[in.LP] = pulse{epoch: in.Epoch, released: in.Released, member: in.Member, at: now}
		if l := e.lanes[in.LP]; l != nil {
			e.pulsed(now, l, &in)
			l.released(in.Epoch, in.Released)
			e.spare(l)
		}
	}
}

// judge removes a peer that was silent for too long. One who drains, or whose
// own membership is in doubt, leaves that to others.
func (e *Engine) judge(now time.Time) {
	if e.draining || !e.leased(now) {
		return
	}
	if member := e.peers.silent(now); member != "" {
		m := e.peers.members[member]
		e.do(Evict{Member: member, Owner: m.owner, Silent: now.Sub(m.heardAt)})
	}
}

// evicted takes the coordinator's answer.
func (e *Engine) evicted(now time.Time, in Evicted) {
	if !in.Out {
		return
	}
	e.peers.out(now, in.Member)
	for _, l := range e.sorted {
		e.spare(l)
	}
}

// pulsed renews the lease of a lane by a pulse of ours that came back. One that
// took longer than the lease had left renews nothing.
func (e *Engine) pulsed(now time.Time, l *lane, in *PulseSeen) {
	if in.Owner != e.cfg.Owner || in.Epoch != l.epoch {
		return
	}
	e.pulseLapse(now, l)
	if in.Sent.After(l.pulsed) {
		l.pulsed = in.Sent
	}
}

// pulseLapse ends the lease of a lane whose pulses do not come back. It starts
// nothing until it has been claimed again: so whoever reads the pulses up to a
// time knows who has no lease at that time, by the silence alone, and whoever was
// silent cannot go on as if nothing had been.
func (e *Engine) pulseLapse(now time.Time, l *lane) {
	if l.claimer.Owns() && now.Sub(l.pulsed) >= e.cfg.PulseLease { // else a claim is on its way
		l.lapsed = true
	}
}

// spare shortens the wait of a lane whose last owner is known to have no lease
// any more. It has run out where the owner was silent for a pulse's lease: where
// a pulse of ours stands behind its last one that was sent so much later. Where
// the owner is known to be out of the group it runs out one lease after that,
// whatever it was answered before.
func (e *Engine) spare(l *lane) {
	p := e.pulses[l.LP]
	if l.epoch > 0 || p.epoch == 0 || p.epoch != l.covered {
		return
	}
	until := l.waitUntil
	if out := e.peers.outSince(p.member); !out.IsZero() {
		until = out.Add(e.cfg.Lease)
	}
	if e.peers.sentAt.Sub(p.at) >= e.cfg.PulseLease {
		until = e.now
	}
	if until.Before(l.waitUntil) {
		l.waitUntil = until
	}
}
