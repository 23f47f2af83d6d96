package fence_test

import (
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
)

// steps calls emit with every state that may follow.
func (m *model) steps(s *state, emit func(*state, step)) {
	if int(s.made) < m.jobs {
		n := *s
		n.created[n.made] = n.n
		n.made++
		emit(&n, step{-1, "a job is made"})
	}
	for i := range s.ghosts {
		if s.ghosts[i].epoch > 0 {
			n := *s
			n.append(n.ghosts[i])
			n.ghosts[i] = rec{}
			emit(&n, step{-1, "a late append lands"})
		}
	}
	if int(s.assigned) < m.owners {
		n := *s
		n.assign(n.assigned)
		emit(&n, step{int(s.assigned), "is assigned"})
		for k := range s.assigned {
			if m.rejoin && s.owners[k].alive && !s.haunted() {
				n := *s
				m.drop(&n, k)
				n.assign(s.owners[k].name)
				emit(&n, step{int(s.assigned), "is assigned, a later life of " + string('0'+rune(k))})
			}
		}
	}
	for i := range s.assigned {
		if s.owners[i].alive {
			m.leases(s, i, emit)
			m.claiming(s, i, emit)
			m.reading(s, i, emit)
			m.working(s, i, emit)
		}
	}
}

// put emits what becomes of s when its owner i does something.
func (m *model) put(s *state, i int8, what string, emit func(*state, step), do func(n *state, o *owner)) {
	n := *s
	o := &n.owners[i]
	do(&n, o)
	if o.alive {
		o.drive()
		member := i == n.assigned-1
		if !member && !o.lease && o.epoch == 0 && o.sent != 1 && m.off != ruleClaimLease && o.claimer.Next(false) == fence.Wait {
			if c := o.claimer; !waiting(&c) {
				*o = owner{name: o.name} // it can do nothing any more
			}
		}
	}
	emit(&n, step{int(i), what})
}

// drive is the part of engine's drive that happens at once.
func (o *owner) drive() {
	if o.epoch > 0 && o.claimer.Owns() && o.lapsed && o.lease {
		o.claimer = fence.NewClaimer(o.filter.Epochs[lane])
		o.claimer.Waited()
	}
}

func (s *state) assign(name int8) {
	o := &s.owners[s.assigned]
	s.assigned++
	s.life(o, s.commit, s.commit.epoch)
	o.name, o.lease = name, true
}

// life begins a lane's life: what engine's newLane and anew do.
func (s *state) life(o *owner, at meta, known int64) {
	known = max(known, s.pulsed)
	*o = owner{
		alive: true, lease: o.lease, name: o.name, since: s.assigned, waived: -1, covered: known,
		claimer: fence.NewClaimer(known), pos: at.bound, bound: at, next: at.next,
	}
	o.filter.Epochs[lane] = at.epoch
}

// drop ends a lane's life. What was on its way may still land.
func (m *model) drop(s *state, i int8) {
	o := &s.owners[i]
	m.leave(s, o)
	*o = owner{name: o.name}
}

// anew is engine's: what was on its way may still land.
func (m *model) anew(s *state, o *owner) {
	m.leave(s, o)
	s.life(o, s.safeBound(o), o.filter.Epochs[lane])
}

func (m *model) leave(s *state, o *owner) {
	if o.running && o.seq <= m.last && (!o.held || o.out) && !s.haunted() && s.fails < m.fails {
		s.fails++
		s.ghost(rec{epoch: o.epoch, job: o.next, seq: o.seq, who: o.name})
	}
	if o.sent == 1 && !s.haunted() {
		s.ghost(rec{epoch: o.claimer.Epoch(), job: -1, who: o.name})
	}
}

// safeBound is engine's.
func (s *state) safeBound(o *owner) meta {
	at := meta{next: o.next, bound: o.bound.bound, epoch: o.bound.epoch}
	if o.epoch == 0 {
		return at
	}
	at.bound, at.epoch = o.pos, o.filter.Epochs[lane]
	for j := o.next; j < s.made; j++ {
		from, owes := o.first[j], o.resume[j]
		if o.running && j == o.next && !owes {
			from, owes = o.from, true
		}
		if owes && from.bound < at.bound {
			at.bound, at.epoch = from.bound, from.epoch
		}
	}
	return at
}

// leases lapse for good where another was assigned; a member's may come back.
func (m *model) leases(s *state, i int8, emit func(*state, step)) {
	o, member := &s.owners[i], i == s.assigned-1
	switch {
	case o.lease && !member:
		m.put(s, i, "its lease lapses for good", emit, func(_ *state, o *owner) { o.lease = false })
	case o.lease && s.lapses < m.lapses:
		m.put(s, i, "its lease lapses", emit, func(n *state, o *owner) { n.lapses++; o.lease = false })
	case !o.lease && member:
		m.put(s, i, "its lease comes back", emit, func(_ *state, o *owner) {
			o.lease, o.lapsed = true, true
		})
	}
}

// over tells whether a lease's time may have passed since the wait began: all
// that were not members then have lost their leases.
func (s *state) over(o *owner) bool {
	for k := range o.since - 1 {
		if s.owners[k].lease {
			return false
		}
	}
	return true
}

func (m *model) claiming(s *state, i int8, emit func(*state, step)) {
	o := &s.owners[i]
	lease := o.lease || m.off == ruleClaimLease
	switch o.claimer.Next(lease) {
	case fence.Wait:
		if c := o.claimer; !waiting(&c) {
			break
		}
		if m.off == ruleWait || s.over(o) {
			m.put(s, i, "has waited", emit, func(n *state, o *owner) { m.waited(n, o) })
		}
		if m.release && s.released && s.pulsed >= o.filter.Epochs[lane] {
			m.put(s, i, "is spared the wait", emit, func(n *state, o *owner) {
				o.waived = n.pulsed
				m.waited(n, o)
			})
		}
	case fence.FindEnd:
		m.put(s, i, "finds the end", emit, func(n *state, o *owner) { m.locate(n, o) })
	case fence.AppendNow:
		m.claim(s, i, emit)
	case fence.Own, fence.Lost:
	}
	m.sending(s, i, emit)
}

// waiting tells whether a claimer waits for others' leases, by trying.
func waiting(c *fence.Claimer) bool {
	c.Waited()
	return c.Next(false) == fence.FindEnd
}

func (m *model) waited(s *state, o *owner) {
	o.claimer.Waited()
	if !m.fine {
		m.locate(s, o)
	}
}

func (m *model) locate(s *state, o *owner) {
	o.claimer.End(int64(s.n), int64(o.pos))
	if !m.fine {
		m.read(s, o, s.n)
	}
}

// claim is engine's claim.
func (m *model) claim(s *state, i int8, emit func(*state, step)) {
	o := &s.owners[i]
	known := o.filter.Epochs[lane]
	again := func(what string) {
		m.put(s, i, what, emit, func(n *state, o *owner) {
			o.waived = -1
			o.claimer = fence.NewClaimer(known)
			if m.off != ruleCover {
				o.since, o.covered = n.assigned, known
			}
		})
	}
	if m.release && o.epoch == 0 && m.off != ruleCover {
		if known > max(o.covered, o.waived) {
			again("knows of an epoch that it did not wait for")
			return
		}
	} else if o.epoch == 0 && o.waived >= 0 && known > o.waived {
		again("was not to be spared the wait")
		if !s.over(o) {
			return
		}
	}
	send := func(_ *state, o *owner) {
		o.lapsed = false
		o.claimer.Sent()
		o.sent, o.held = 1, m.off != ruleHold
	}
	m.put(s, i, "sends a claim", emit, send)
	if o.epoch > 0 && o.running && o.seq <= m.last && !o.held {
		m.put(s, i, "sends a claim behind an output", emit, func(n *state, o *owner) {
			send(n, o)
			o.out = true
		})
	}
}

// sending is what may become of a claim that was sent.
func (m *model) sending(s *state, i int8, emit func(*state, step)) {
	o := &s.owners[i]
	if o.sent == 1 && !o.out {
		m.put(s, i, "its claim lands", emit, func(n *state, o *owner) {
			n.append(rec{epoch: o.claimer.Epoch(), job: -1, who: o.name})
			o.sent = 2
		})
	}
	if o.sent == 0 || o.out || s.fails >= m.fails {
		return
	}
	m.put(s, i, "is told that its claim failed", emit, func(n *state, o *owner) {
		n.fails++
		o.claimer.Failed()
		o.sent = 0
	})
	if o.sent == 1 && !s.haunted() {
		m.put(s, i, "is told nothing of its claim", emit, func(n *state, o *owner) {
			n.fails++
			n.ghost(rec{epoch: o.claimer.Epoch(), job: -1, who: o.name})
			o.claimer.Failed()
			o.sent = 0
		})
	}
}

func (m *model) reading(s *state, i int8, emit func(*state, step)) {
	o := &s.owners[i]
	if o.pos == s.n {
		return
	}
	c := o.claimer
	if !m.fine && (c.Next(true) == fence.FindEnd || waiting(&c)) {
		return // what is read before the end is found may as well be read then
	}
	m.put(s, i, "reads one", emit, func(n *state, o *owner) { m.read(n, o, o.pos+1) })
	if o.pos+1 < s.n && !m.fine {
		m.put(s, i, "reads all", emit, func(n *state, o *owner) { m.read(n, o, n.n) })
	}
}

// read is engine's tokens, for one batch of records.
func (m *model) read(s *state, o *owner, to int8) {
	for at := o.pos; at < to; at++ {
		o.pos = at // a bound goes with the epoch in force there, within a batch too
		if !m.saw(o, s.log[at], at) {
			m.anew(s, o)
			return
		}
	}
	o.pos = to
	o.claimer.ReadTo(int64(to))
}

// saw is engine's seen.
func (m *model) saw(o *owner, r rec, at int8) bool {
	v := view(r, m.last)
	own := r.job < 0 && r.who == o.name
	if !own && o.epoch > 0 && r.epoch > o.epoch {
		return false
	}
	before := o.filter.Epochs[lane]
	counts := m.admit(&o.filter, &v)
	if own || o.sent == 0 || m.off != ruleVerify {
		o.claimer.Saw(r.epoch, own)
	}
	if own && o.sent != 0 && o.claimer.Next(true) != fence.Wait {
		o.sent = 0 // read back, whether it is void or not
	}
	if own && o.claimer.Owns() && (r.epoch > o.epoch || r.epoch != o.epoch && m.off == ruleStale) {
		o.epoch, o.held, o.out = r.epoch, false, false
	}
	if !counts || r.job < 0 {
		return true
	}
	if o.epoch > 0 {
		if o.running && r.job == o.next && v.Type.Terminal() {
			o.readBack = true
		}
		return true
	}
	if o.past[r.job] == (job.Progress{}) {
		o.resume[r.job], o.first[r.job] = true, meta{bound: at, epoch: before}
	}
	o.past[r.job].Apply(&v)
	return true
}

// working runs jobs in the order of their requests, one at a time.
func (m *model) working(s *state, i int8, emit func(*state, step)) {
	o := &s.owners[i]
	leased := o.lease && !o.lapsed || m.off == ruleLease
	switch {
	case !o.running && o.claimer.Owns() && leased && o.next < s.made:
		m.put(s, i, "starts a job", emit, func(_ *state, o *owner) { m.start(o) })
	case o.running && o.seq <= m.last && (!o.held || o.out):
		m.put(s, i, "writes", emit, func(n *state, o *owner) {
			n.append(rec{epoch: o.epoch, job: o.next, seq: o.seq, who: o.name})
			o.seq++
			o.out = false
		})
	case o.running && o.seq > m.last && (o.readBack || m.off == ruleReadback):
		m.put(s, i, "writes a fact", emit, func(n *state, o *owner) {
			n.facts |= 1 << o.next
			o.done()
		})
	}
	if o.running && s.fails < m.fails {
		m.put(s, i, "fails to write", emit, func(n *state, o *owner) {
			n.fails++
			m.anew(n, o)
		})
	}
	if o.dirty && o.epoch > 0 {
		m.put(s, i, "commits", emit, func(n *state, o *owner) {
			n.commit = n.safeBound(o)
			o.dirty = false
		})
	}
	if !m.release || o.epoch == 0 {
		return
	}
	if s.pulsed < o.epoch {
		m.put(s, i, "its pulse is seen", emit, func(n *state, o *owner) { n.pulsed, n.released = o.epoch, false })
	}
	if i == s.assigned-1 && int(s.assigned) < m.owners && !s.haunted() {
		m.put(s, i, "lets go", emit, func(n *state, o *owner) {
			n.commit = n.safeBound(o)
			if n.pulsed <= o.epoch {
				n.pulsed, n.released = o.epoch, true
			}
			m.drop(n, i)
		})
	}
}

func (m *model) start(o *owner) {
	past := o.past[o.next]
	if past.End != "" && m.off == ruleRefact {
		o.done()
		return
	}
	o.running, o.seq, o.readBack = true, past.NextSeq, past.End != ""
	o.from = meta{bound: o.pos, epoch: o.filter.Epochs[lane]}
}

// done ends the job that the owner is at.
func (o *owner) done() {
	o.past[o.next], o.resume[o.next], o.first[o.next] = job.Progress{}, false, meta{}
	o.next++
	o.running, o.readBack, o.seq, o.from, o.dirty = false, false, 0, meta{}, true
}
