package engine

import (
	"slices"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/internal/event"
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
	drainBy time.Time // the end of its grace period; zero: it is not ending
	leaving bool
	mute    bool                  // its pulses are lost
	without [event.LaneCount]bool // all calls may be others' still, from when the lane was not here
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
	f     FindEnd
	in    *Located
	asked bool // of requests and cancels too
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
	}
	cfg := Config{
		Owner: name, MaxInFlight: 4, MaxPerTenant: w.perTenant, MaxWindow: window, MaxWindowBytes: bytes, MaxSpan: simSpan,
		Recent: 4, MaxEndings: 2, CancelAhead: 2 * time.Second,
	}
	w.breaks(&cfg)
	p.eng = New(cfg)
	for _, in := range w.pulses {
		p.step(in)
	}
	p.pulseAt = len(w.pulses)
	return p
}

func (p *proc) String() string { return p.name }

// simSpan is the span that the engines are to keep to.
const simSpan = 12

// breaks breaks a rule of the engine's.
func (r rules) breaks(cfg *Config) {
	if r.noLease || r.noPulseLease && cfg.Owner == "owner-0" {
		cfg.PulseLease = time.Hour
	}
	if r.noSpan {
		cfg.MaxSpan = 1000
	}
	if r.noTenant {
		cfg.MaxPerTenant = 0
	}
	if r.noReserve {
		cfg.Reserved = none
	}
	if r.starve {
		cfg.Weights[event.Standard] = -1
	}
}

func (p *proc) step(in Input) {
	p.w.seen.steps++
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
	defer p.ending()
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
		if p.ending(); !p.alive {
			return
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
	p.w.seen.crashes++
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

// drain begins the end of a process in order.
func (p *proc) drain() {
	if p.alive && p.drainBy.IsZero() {
		p.drainBy = p.w.now.Add(time.Duration(p.w.n(800)) * time.Millisecond)
		p.step(Drain{})
	}
}

// ending hands over when nothing runs any more, or the grace period is over, and
// then leaves the group.
func (p *proc) ending() {
	if p.drainBy.IsZero() || !p.alive {
		return
	}
	if !p.leaving && (p.eng.Idle() || p.w.now.After(p.drainBy)) {
		p.leaving = true
		for _, lp := range p.w.lps {
			if p.eng.lanes[lp] != nil {
				p.step(Revoked{lp})
			}
		}
	}
	if p.leaving && len(p.leaves) == 0 {
		p.w.seen.drains++
		p.w.seen.crashes-- // it is none
		p.crash()
		p.w.evict(p)
	}
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
