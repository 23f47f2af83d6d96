package engine

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/penstock-io/penstock/internal/event"
)

// share divides the calls: between lanes by weight and by how long each has
// waited; within a lane its tenants take turns, and a tenant's LPs.
//
// No lane starves another. Each finds its reserved calls free; a call beyond
// those goes to the lane with the greatest claim, and the claim of one that
// waits grows without bound until it gets a call.
type share struct {
	tenants  map[string]*tenant
	calls    [event.LaneCount]int           // under way
	assigned [event.LaneCount]int           // LPs
	turns    [event.LaneCount]fifo[*tenant] // with requests that may run
	since    [event.LaneCount]time.Time     // when the lane got a call, or began to wait for one
}

// tenant is one with calls under way, or with requests that may run.
type tenant struct {
	name  string
	calls int // under way, of all lanes
	ready int // attached, of all LPs
	lanes [event.LaneCount]struct {
		turns  fifo[*ready]
		queued bool // stands in share.turns
	}
}

// ready is a tenant's requests of a LP that may run.
type ready struct {
	fifo[*entry]
	lane   *lane
	tenant *tenant
	queued bool // stands in its tenant's turns
}

// Tenants without work are remembered up to these numbers, for the next request
// is soon there.
const (
	idleTenants = 64 // in all
	idleReady   = 8  // a LP
)

// tenant finds a tenant by name.
func (s *share) tenant(name string) *tenant {
	t := s.tenants[name]
	if t == nil {
		t = &tenant{name: name}
		s.tenants[name] = t
	}
	return t
}

// leave forgets a tenant that has nothing here, unless there are few. One that was
// forgotten may still stand in turns, and its name be another's by then.
func (s *share) leave(t *tenant) {
	if s.tenants[t.name] == t && t.calls == 0 && t.ready == 0 && len(s.tenants) > idleTenants {
		delete(s.tenants, t.name)
	}
}

// runnable puts an entry behind those of its tenant and LP that may run.
func (e *Engine) runnable(en *entry) {
	l := en.lane
	t := e.share.tenant(en.Head.Tenant)
	r := l.ready[t]
	if r == nil {
		r = &ready{lane: l, tenant: t}
		l.ready[t] = r
		t.ready++
	}
	r.push(en)
	e.enqueue(r)
}

// enqueue gives what may run of a LP its turn among its tenant's.
func (e *Engine) enqueue(r *ready) {
	l := r.lane
	if r.queued || r.empty() || l.epoch == 0 || !l.heard {
		return
	}
	r.queued = true
	r.tenant.lanes[l.Lane].turns.push(r)
	e.stand(r.tenant, l.Lane)
}

// enqueueAll is enqueue for all of a LP, once it may start requests.
func (e *Engine) enqueueAll(l *lane) {
	byName := func(a, b *ready) int { return cmp.Compare(a.tenant.name, b.tenant.name) }
	for _, r := range slices.SortedFunc(maps.Values(l.ready), byName) {
		e.enqueue(r)
	}
}

// stand gives a tenant its turn in a lane, if it may have another call.
func (e *Engine) stand(t *tenant, which event.Lane) {
	if mine := &t.lanes[which]; !mine.queued && !mine.turns.empty() && !e.full(t) {
		mine.queued = true
		if e.share.turns[which].empty() {
			e.share.since[which] = e.now
		}
		e.share.turns[which].push(t)
	}
}

// full tells whether a tenant has all the calls that it may have.
func (e *Engine) full(t *tenant) bool { return e.cfg.MaxPerTenant > 0 && t.calls >= e.cfg.MaxPerTenant }

// unready takes a LP that goes out of the turns. What stands in them is passed
// over when it comes to it.
func (e *Engine) unready(l *lane) {
	for t := range l.ready {
		t.ready--
		e.share.leave(t)
	}
	clear(l.ready)
}

// schedule starts what may be started.
func (e *Engine) schedule() {
	for e.inFlight < e.cfg.MaxInFlight {
		which := e.neediest()
		if which == event.NoLane {
			return
		}
		if en := e.next(which); en != nil {
			e.start(en)
		}
	}
}

// neediest is the lane with the greatest claim to the next call, of those that
// may have it: its weight by the calls that it would have then, times how long it
// has waited.
func (e *Engine) neediest() event.Lane {
	best, most := event.NoLane, 0.0
	for which := event.Interactive; int(which) < event.LaneCount; which++ {
		if e.share.turns[which].empty() || !e.free(which) {
			continue
		}
		age := 1 + max(0, e.now.Sub(e.share.since[which]).Seconds()/e.cfg.Ageing.Seconds())
		if claim := float64(e.cfg.Weights[which]) * age / float64(e.share.calls[which]+1); claim > most {
			best, most = which, claim
		}
	}
	return best
}

// free tells whether there is a call for a lane that no other has reserved.
func (e *Engine) free(which event.Lane) bool {
	taken := e.inFlight
	for other, n := range e.cfg.Reserved {
		if event.Lane(other) != which && e.share.assigned[other] > 0 {
			taken += max(0, n-e.share.calls[other])
		}
	}
	return taken < e.cfg.MaxInFlight
}

// next takes a request of the lane's next tenant, of that tenant's next LP, and
// gives both their next turn. It is nil where what stood there may not be
// started: it was cancelled, its tenant has all its calls, or its LP is gone or
// has lost its lease, and gets its turn again when it is claimed anew.
func (e *Engine) next(which event.Lane) (en *entry) {
	since := e.share.since[which]
	t := e.share.turns[which].pop()
	mine := &t.lanes[which]
	mine.queued = false
	if e.full(t) {
		return nil
	}
	r := mine.turns.pop()
	r.queued = false
	if l := r.lane; e.lanes[l.LP] == l && e.mayStart(l) {
		if en = r.pop(); en.cancelled { // which has another way to its end
			en = nil
		}
		e.enqueue(r)
		if r.empty() && len(l.ready) > idleReady {
			delete(l.ready, t)
			t.ready--
		}
	}
	e.stand(t, which)
	e.share.since[which] = since
	e.share.leave(t)
	return en
}

// mayStart tells whether the lane may start requests.
func (e *Engine) mayStart(l *lane) bool {
	e.pulseLapse(e.now, l)
	return l.claimer.Owns() && !l.lapsed && l.heard && e.leases(e.now, l)
}

// begun counts a call.
func (e *Engine) begun(en *entry) {
	which := en.lane.Lane
	e.inFlight++
	e.share.calls[which]++
	e.share.since[which] = e.now
	e.share.tenant(en.Head.Tenant).calls++
}

// over takes the end of a call, which frees its slot, also where its LP is gone.
func (e *Engine) over(in Ended) {
	e.inFlight--
	e.share.calls[in.Lane]--
	t := e.share.tenant(in.Tenant)
	t.calls--
	for which := event.Interactive; int(which) < event.LaneCount; which++ {
		e.stand(t, which)
	}
	e.share.leave(t)
}

// wanting is how many requests of a LP could run if a call were free.
func (e *Engine) wanting(l *lane) (n int) {
	for t, r := range l.ready {
		if !e.full(t) {
			n += r.len()
		}
	}
	return n
}
