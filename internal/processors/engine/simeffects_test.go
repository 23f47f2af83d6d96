package engine

import (
	"fmt"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
)

func (p *proc) gate(lp LP, gen uint64) *simGate {
	g := p.gates[lp]
	if g == nil || g.gen != gen {
		if g != nil && !g.cancelled {
			p.w.fail("%v: a gate was replaced that was not shut", lp)
		}
		g = &simGate{gen: gen}
		p.gates[lp] = g
	}
	return g
}

// do carries an effect out, or puts it on its way.
func (p *proc) do(f Effect) {
	switch f := f.(type) {
	case Follow:
		p.tail[f.Partition] = &tail{at: f.From}
	case Unfollow:
		delete(p.tail, f.Partition)
	case FollowControl:
		p.ctl[f.Partition] = &tail{at: f.From}
	case UnfollowControl:
		delete(p.ctl, f.Partition)
	case Stop:
		p.stop(f)
	case FindEnd:
		p.locates = append(p.locates, &locate{f: f})
	case AppendClaim:
		g := p.gate(f.LP, f.Gen)
		g.open = g.open && p.w.noHold
		rec := tokRec{view: event.View{Type: event.LaneClaimed, V: 1, Lane: f.Lane, Epoch: f.Epoch}, owner: p.name}
		p.tokQ[f.Partition] = append(p.tokQ[f.Partition], write{
			land: func() { p.w.appendToken(f.Partition, rec) }, failed: ClaimFailed{LP: f.LP, Gen: f.Gen},
		})
	case Open:
		g := p.gate(f.LP, f.Gen)
		g.open, g.epoch = true, f.Epoch
		p.w.seen.claims++
	case Shut:
		if g := p.gates[f.LP]; g != nil && g.gen == f.Gen {
			g.cancelled = true
			delete(p.gates, f.LP)
		}
	case Start:
		p.starts(&f)
		p.calls = append(p.calls, &simCall{s: f, g: p.gate(f.LP, f.Gen)})
	case AppendFact:
		h := f.Head
		p.owe(write{land: func() { p.w.appendFact(&h) }}, f.LP, f.Gen, f.Offset)
	case Bury:
		p.owe(write{land: func() { p.w.dead[f.LP][f.Request.Offset] = true }}, f.LP, f.Gen, f.Request.Offset)
	case Commit:
		p.pending[f.LP] = f
	case Release:
		delete(p.pending, f.LP)
		p.leaves = append(p.leaves, f)
	case Pause, Resumed:
		p.pause(f)
	case Seek:
		p.wanted = append(p.wanted, f)
	case Pulses:
		for i := range f.Pulses {
			if !p.mute && p.w.n(100) >= p.w.faults/2 {
				p.w.pulses = append(p.w.pulses, p.pulseOf(&f.Pulses[i]))
			}
		}
	case Evict:
		p.evicts = append(p.evicts, f)
	default:
		panic(fmt.Sprintf("an effect that the simulation does not know: %T", f))
	}
}

func (p *proc) pause(f Effect) {
	lp, paused := LP{}, false
	switch f := f.(type) {
	case Pause:
		lp, paused = f.LP, true
	case Resumed:
		lp = f.LP
	}
	if s := p.fetch[lp]; s != nil {
		s.paused = paused
	}
}

func (p *proc) owe(wr write, lp LP, gen uint64, offset int64) {
	if offset >= 0 {
		wr.ok = FactWritten{LP: lp, Gen: gen, Offset: offset}
		wr.failed = FactWritten{LP: lp, Gen: gen, Offset: offset, Failed: true}
	}
	p.jobQ = append(p.jobQ, wr)
}

// simCall is a call as call.go makes it.
type simCall struct {
	s        Start
	g        *simGate
	recalled bool
	t        job.Progress
	stopped  bool
	wrote    bool
	plan     []event.Type
}

// fails stands in a plan for a failure before the first token that is tried again.
const fails event.Type = ""

func (p *proc) stop(f Stop) {
	for _, c := range p.calls {
		if c.s.LP == f.LP && c.s.Gen == f.Gen && c.s.Request.Offset == f.Offset {
			c.stopped = true
			p.w.seen.stopped++
		}
	}
}

func (p *proc) call(i int) {
	c := p.calls[i]
	ended := Ended{LP: c.s.LP, Gen: c.s.Gen, Offset: c.s.Request.Offset, Cancelled: c.s.Cancelled, Tenant: c.s.Request.Head.Tenant}
	over := func() {
		p.post(ended)
		p.calls = append(p.calls[:i:i], p.calls[i+1:]...)
	}
	switch {
	case c.g.cancelled:
		over()
	case !c.recalled:
		if !p.recall(c) {
			p.post(WriteFailed{LP: c.s.LP, Gen: c.s.Gen})
			over()
			return
		}
		if c.t.End != "" {
			ended.Type, ended.Attempt, ended.At, ended.Found = factOf(c.t.End), c.t.Attempt, p.w.now, true
			over()
		}
	case c.g.open:
		if c.stopped {
			c.plan = []event.Type{event.OutputCancelled}
		}
		t := c.plan[0]
		c.plan = c.plan[1:]
		if t == fails {
			p.w.seen.retried++
			ended.Attempt, ended.At = max(c.t.Attempt, 1), p.w.now
			ended.Retry = &Retry{At: p.w.now.Add(time.Duration(p.w.n(300)) * time.Millisecond)}
			if c.wrote || c.t.NextSeq == 0 {
				ended.Retry.Again = &Again{c.t}
				ended.Retry.Again.Attempt = ended.Attempt
			}
			over()
			return
		}
		c.wrote = true
		if t == event.OutputStarted {
			c.t.Attempt++
		}
		h := c.s.Request.Head
		v := event.View{
			Type: t, V: 1, Tenant: []byte(h.Tenant), Job: []byte(h.Job), Attempt: max(c.t.Attempt, 1),
			Seq: c.t.NextSeq, Lane: c.s.Lane, Epoch: c.g.epoch,
		}
		c.t.Apply(&v)
		p.tokQ[c.s.Partition] = append(p.tokQ[c.s.Partition], write{
			land:   func() { p.w.appendToken(c.s.Partition, tokRec{view: v}) },
			failed: WriteFailed{LP: c.s.LP, Gen: c.s.Gen}, gate: c.g,
		})
		if len(c.plan) == 0 {
			ended.Type, ended.Attempt, ended.At, ended.Found = factOf(c.t.End), c.t.Attempt, p.w.now, p.w.noReadBack
			over()
		}
	}
}

// recall is what call.go's does, and what begin does with it.
func (p *proc) recall(c *simCall) bool {
	c.recalled = true
	if c.s.Again != nil {
		c.t = c.s.Again.Progress
	} else if r := c.s.Resume; r != nil {
		from, log := r.From, p.w.tokens[c.s.Partition]
		j := p.w.jobs[jobKey(c.s.Request.Head.Tenant, c.s.Request.Head.Job)]
		if from >= 0 && !r.Whole && !j.again && !j.trimmed {
			p.w.fail("job %s was requested once, and a restore began within its output", j.head.Job)
		}
		if !r.Whole {
			from = max(j.created-int64(p.w.n(5)), p.w.tokFrom[c.s.Partition])
		}
		if from < p.w.tokFrom[c.s.Partition] {
			return false
		}
		var f fence.Filter
		f.Epochs[c.s.Lane] = r.Epoch
		for o := from; o < r.To; o++ {
			v := &log[o].view
			if v.Lane != c.s.Lane {
				continue
			}
			counts := f.Admit(v) || p.w.noRecallFence && v.Type.Output()
			if !counts || string(v.Job) != c.s.Request.Head.Job {
				continue
			}
			if c.t.NextSeq == 0 && v.Seq > 0 && !j.trimmed {
				p.w.fail("job %s is folded from offset %d on, where its first event has seq %d", j.head.Job, o, v.Seq)
			}
			c.t.Apply(v)
		}
	}
	if c.t.End != "" {
		return true
	}
	switch {
	case c.s.Expired:
		c.plan = append(c.plan, event.OutputFailed)
		return true
	case c.s.Cancelled:
		c.plan = append(c.plan, event.OutputCancelled)
		return true
	case c.t.NextSeq == 0:
		c.plan = append(c.plan, event.OutputStarted)
	case c.s.Again != nil || p.w.n(2) == 0:
		c.plan = append(c.plan, event.OutputSuperseded, event.OutputStarted)
	}
	if c.s.Try < 4 && p.w.n(4) == 0 {
		if p.w.n(2) == 0 && c.t.NextSeq == 0 {
			c.plan = nil // before output.started was written
		}
		c.plan = append(c.plan, fails)
		return true
	}
	for range p.w.n(4) {
		c.plan = append(c.plan, event.OutputDelta)
	}
	c.plan = append(c.plan, []event.Type{event.OutputCompleted, event.OutputFailed}[p.w.n(2)])
	return true
}

func (p *proc) pulseOf(f *Pulse) PulseSeen {
	return PulseSeen{LP: f.LP, Epoch: f.Epoch, Released: f.Data.Released, Owner: f.Data.Owner, Member: f.Data.Member, Sent: p.w.now}
}

// evict asks the coordinator to remove a member that was found silent.
func (p *proc) evict() {
	if len(p.evicts) == 0 {
		return
	}
	f := p.evicts[0]
	p.evicts = p.evicts[1:]
	for _, other := range p.w.procs {
		if other.id == f.Member && other.member {
			p.w.seen.evicted++
			p.w.evict(other)
			p.post(Evicted{Member: f.Member, Out: !other.member})
			return
		}
	}
	p.post(Evicted{Member: f.Member, Out: true})
}

func (p *proc) pulse() {
	for range 8 {
		if p.pulseAt == len(p.w.pulses) {
			return
		}
		in := p.w.pulses[p.pulseAt]
		p.pulseAt++
		p.step(in)
	}
}
