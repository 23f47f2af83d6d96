package engine

import (
	"slices"
	"strconv"
	"time"
)

// proc is one process: an Engine, and what carries out its effects.
type proc struct {
	w       *world
	name    string
	eng     *Engine
	alive   bool
	member  bool   // as the coordinator has it
	id      string // of its membership, or of its last one
	joins   int
	evicts  []Evict
	stalled time.Time
	muted   [actions]time.Time // parts that are slow, until when

	groupQ  []*groupEvent // from the coordinator, not yet polled
	fetch   map[LP]*fetch // as the kafka client has it
	life    map[LP]*life  // as the intake has it
	lives   uint64
	wanted  []Seek
	intakeQ []Input
	tail    map[int32]*tail
	tailQ   []Input
	ctl     map[int32]*tail // of the control partitions
	ctlQ    []Input
	heard   map[uint64]int64 // by gen: where the control log ended when its owner looked
	posts   []Input          // from calls, acknowledgements, timers
	tokQ    map[int32][]write
	jobQ    []write
	pending map[LP]Commit
	flying  []Commit
	leaves  []Release
	gates   map[LP]*simGate
	calls   []*simCall
	locates []*locate
	beat    *beat
	pulseAt int
}

type groupEvent struct {
	kind     int
	lp       LP
	next     int64
	metadata string
	id       string
}

const (
	assignedEvent = iota
	revokedEvent
	lostEvent
)

type fetch struct {
	next            int64
	paused, stopped bool
}

type life struct{ life, seeks uint64 }

type tail struct {
	at      int64
	stopped bool
}

// write is a record on its way, what is told when it is in the log or when
// nobody knows.
type write struct {
	land   func()
	ok     Input
	failed Input
	gate   *simGate // broken by a failure
}

type simGate struct {
	gen       uint64
	open      bool
	epoch     int64
	cancelled bool
}

type locate struct {
	f  FindEnd
	in *Located
}

type beat struct {
	sent     time.Time
	id       string
	asked    bool
	answered bool
}

func newProc(w *world, name string) *proc {
	window, bytes := 5, 150
	if w.zombies { // which read nothing back, and need room to go on
		window, bytes = 30, 3000
	}
	p := &proc{
		w: w, name: name, id: name + "#0", alive: true, member: true, fetch: map[LP]*fetch{}, life: map[LP]*life{}, tail: map[int32]*tail{},
		ctl: map[int32]*tail{}, heard: map[uint64]int64{},
		tokQ: map[int32][]write{}, pending: map[LP]Commit{}, gates: map[LP]*simGate{},
		eng: New(Config{Owner: name, MaxInFlight: 4, MaxWindow: window, MaxWindowBytes: bytes, Recent: 4, MaxEndings: 2, CancelAhead: 2 * time.Second}),
	}
	for _, in := range w.pulses {
		p.step(in)
	}
	p.pulseAt = len(w.pulses)
	return p
}

func (p *proc) String() string { return p.name }

func (p *proc) step(in Input) {
	for _, f := range p.eng.Step(p.w.now, in) {
		p.do(f)
	}
	p.bounds()
}

// actions is how many kinds of things a process does.
const (
	actions     = 14
	readsTokens = 3
)

// act does one thing, chosen among all that could happen next.
func (p *proc) act() {
	if !p.alive || p.w.now.Before(p.stalled) {
		return
	}
	which := p.w.n(actions)
	if p.w.now.Before(p.muted[which]) {
		return
	}
	switch which {
	case 0:
		p.step(Tick{})
	case 1:
		p.poll()
		p.deliver(&p.intakeQ, 0)
	case 2:
		p.deliver(&p.intakeQ, 0)
	case readsTokens:
		p.pollTail(int32(p.w.n(2)))
		p.deliver(&p.tailQ, 0)
	case 4:
		for range 2 {
			if len(p.posts) > 0 {
				p.deliver(&p.posts, p.w.n(len(p.posts)))
			}
		}
	case 5:
		p.heartbeat()
	case 6:
		p.locate()
	case 7:
		p.flushTokens(int32(p.w.n(2)))
	case 8:
		p.flushOther()
	case 9:
		p.commit()
	case 10:
		for range 2 {
			if len(p.calls) > 0 {
				p.call(p.w.n(len(p.calls)))
			}
		}
	case 11:
		p.pulse()
	case 13:
		p.evict()
	case 12:
		p.pollControl(int32(p.w.n(2)))
		p.deliver(&p.ctlQ, 0)
	}
}

// everything does all that is to be done, once.
func (p *proc) everything() {
	p.step(Tick{})
	for range 3 {
		p.poll()
		p.deliver(&p.intakeQ, 0)
		p.pollTail(0)
		p.pollTail(1)
		p.deliver(&p.tailQ, 0)
		p.deliver(&p.tailQ, 0)
		p.pollControl(0)
		p.pollControl(1)
		p.deliver(&p.ctlQ, 0)
		p.deliver(&p.ctlQ, 0)
		p.deliver(&p.posts, 0)
		p.heartbeat()
		p.locate()
		p.flushTokens(0)
		p.flushTokens(1)
		p.flushOther()
		p.commit()
		p.pulse()
		p.evict()
		for i := range slices.Backward(p.calls) {
			p.call(i)
		}
	}
}

func (p *proc) deliver(q *[]Input, i int) {
	if i >= len(*q) {
		return
	}
	in := (*q)[i]
	*q = append((*q)[:i:i], (*q)[i+1:]...)
	p.step(in)
}

func (p *proc) post(in Input) { p.posts = append(p.posts, in) }

// undeliver drops an assignment that the process was not told of.
func (p *proc) undeliver(lp LP) bool {
	for i, ev := range p.groupQ {
		if ev.kind == assignedEvent && ev.lp == lp {
			p.groupQ = append(p.groupQ[:i:i], p.groupQ[i+1:]...)
			return true
		}
	}
	return false
}

func (p *proc) stopFetch(lp LP) { delete(p.fetch, lp) }

// notice is when a removed member learns of it, and joins again.
func (p *proc) notice() {
	if p.member || !p.alive {
		return
	}
	for _, lp := range p.w.lps {
		p.undeliver(lp)
		if p.fetch[lp] != nil {
			p.stopFetch(lp)
			p.groupQ = append(p.groupQ, &groupEvent{kind: lostEvent, lp: lp})
		}
	}
	p.member = true
	p.joins++
	p.id = p.name + "#" + strconv.Itoa(p.joins)
	for _, lp := range p.w.lps {
		if p.w.owner[lp] == nil {
			p.w.assign(lp, p)
		}
	}
}

// crash ends the process. Some of what it had on its way still lands.
func (p *proc) crash() {
	if !p.alive {
		return
	}
	p.alive = false
	for part := range int32(2) {
		p.lose(p.tokQ[part])
	}
	p.lose(p.jobQ)
	for _, c := range p.flying {
		p.w.limbo = append(p.w.limbo, []func(){func() {
			if p.member {
				p.w.applyCommit(c)
			}
		}})
	}
	p.tokQ, p.jobQ, p.calls, p.posts = nil, nil, nil, nil
}

// lose puts the first few writes where nobody knows of them; the others are gone.
func (p *proc) lose(q []write) {
	n := p.w.n(len(q) + 1)
	if n == 0 {
		return
	}
	lost := make([]func(), n)
	for i := range lost {
		lost[i] = q[i].land
	}
	p.w.limbo = append(p.w.limbo, lost)
}

// loseWrites fails all that is on its way to a partition, or to other topics.
func (p *proc) loseWrites(part int32) {
	if !p.alive {
		return
	}
	q := p.tokQ[part]
	if p.w.n(3) == 0 {
		q, p.jobQ = p.jobQ, nil
	} else {
		delete(p.tokQ, part)
	}
	p.lose(q)
	for _, wr := range q {
		if wr.gate != nil {
			wr.gate.cancelled = true
		}
		if wr.failed != nil {
			p.post(wr.failed)
		}
	}
}

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

func (p *proc) locate() {
	if len(p.locates) == 0 {
		return
	}
	l := p.locates[0]
	if l.in == nil {
		part := l.f.Partition
		l.in = &Located{LP: l.f.LP, Gen: l.f.Gen, End: int64(len(p.w.tokens[part])), RequestsEnd: int64(len(p.w.reqs[l.f.LP])), LogStart: p.w.tokFrom[part]}
		if l.in.LogStart < l.in.End {
			l.in.Oldest = p.w.tokens[part][l.in.LogStart].time
		}
		if p.w.n(4) > 0 { // else they are too many
			l.in.Jobs = map[string]struct{}{}
			for _, r := range p.w.reqs[l.f.LP][max(l.f.Next, p.w.reqFrom[l.f.LP]):] {
				if r.job != nil {
					l.in.Jobs[jobKey(r.Head.Tenant, r.Head.Job)] = struct{}{}
				}
			}
		}
		p.locateControl(l)
		return
	}
	p.locates = p.locates[1:]
	p.step(*l.in)
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
