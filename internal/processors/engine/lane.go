package engine

import (
	"slices"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

// lane is one assigned LP, from its assignment or the last time it was taken
// anew. Each such incarnation has a gen of its own, so that answers to an
// earlier one are told apart.
type lane struct {
	LP
	life    uint64 // of the assignment
	member  string // that it was assigned to
	gen     uint64 // unique in this process
	seeks   uint64
	claimer fence.Claimer
	filter  fence.Filter // of this lane alone
	epoch   int64        // owned; 0 until the first claim is read back
	asked   bool         // FindEnd is under way
	lapsed  bool         // the lease lapsed: only a new claim restores it
	pulsed  time.Time    // when its newest pulse was sent that came back, or it was claimed

	waitUntil time.Time // the leases of those before have run out by then
	covered   int64     // newest epoch that was known when the wait began
	waived    int64     // epoch of a released pulse that spares the wait; -1: none

	position int64                // of the token partition: read through
	bound    offsets.Metadata     // where the restore began: Bound and Epoch
	handover int64                // requests below this may have output from before our claim
	oldest   time.Time            // records older than this are gone from the token partition; zero: none are
	restored map[string]*restored // by jobKey
	wanted   map[string]struct{}  // the only jobs of which output before wantedTo is asked for; nil: any
	wantedTo int64                // of the token partition; 0: not told yet
	stalled  bool                 // the reading waits for wanted

	heard   bool  // the cancels from before our claim were read: requests may be started
	heardTo int64 // of the control partition: then they were

	tracker      *offsets.Tracker
	delivered    int64      // requests below this were delivered
	backlog      []*Request // delivered and not taken in, for want of room
	backlogBytes int
	entries      map[int64]*entry // taken in and not done, by offset
	bytes        int              // of entries
	jobs         map[string]*entry
	keys         map[string]*keyQueue
	ready        map[*tenant]*ready // runnable
	resting      []*entry           // wait for their next try
	started      int                // entries that were started
	recent       memory[struct{}]   // jobs that have ended, by jobKey
	paused       bool

	dirty       bool
	committedAt time.Time
	doneCount   int // since the last pulse
	rate        float64
}

// entry is one request from being taken in to being done.
type entry struct {
	*Request
	lane      *lane
	name      string // jobKey
	key       *keyQueue
	resume    *Resume
	shown     bool  // there is output of it: none stands before from
	from      int64 // of the token partition
	epoch     int64 // of the lane, in force at from
	started   bool
	cancelled bool
	try       int    // how often it was started
	retry     *Retry // of the last try, which failed
	readBack  bool   // its terminal event was read, unfenced
	written   bool   // its fact was handed over to be written
	repeats   []int64
	fact      event.Type
	data      []byte
	attempt   int
	at        time.Time // of the end
}

// keyQueue is the FIFO of one key: only its head runs.
type keyQueue struct {
	name  string
	queue []*entry
}

func (e *Engine) newLane(from Assigned, m offsets.Metadata) *lane {
	e.gens++
	lp := from.LP
	l := &lane{
		LP: lp, life: from.Life, member: from.Member, gen: e.gens, waived: -1, claimer: fence.NewClaimer(m.Epoch),
		position: m.Bound, handover: from.Next, restored: map[string]*restored{},
		bound: offsets.Metadata{Bound: m.Bound, Epoch: m.Epoch}, tracker: offsets.NewTracker(from.Next, m.Done), delivered: from.Next,
		entries: map[int64]*entry{}, jobs: map[string]*entry{}, keys: map[string]*keyQueue{}, ready: map[*tenant]*ready{},
	}
	l.filter.Epochs[lp.Lane] = m.Epoch
	return l
}

// owed is how many started requests are not done.
func (l *lane) owed() int { return l.started }

func (e *Engine) assigned(now time.Time, in Assigned) {
	m := metadataOf(in)
	l := e.newLane(in, m)
	l.covered = max(m.Epoch, e.pulses[in.LP].epoch)
	l.claimer = fence.NewClaimer(l.covered)
	if old := e.lanes[in.LP]; old != nil { // the group forgot to say that it was lost
		e.drop(in.LP)
	}
	e.put(l)
	// A Pause for an earlier assignment may have come too late, and hit this one.
	e.do(Resumed{in.LP})
	l.waitUntil = now.Add(e.cfg.Lease)
	if p, ok := e.pulses[in.LP]; ok {
		l.released(p.epoch, p.released)
		e.spare(l)
	}
	e.follow(l.Partition)
}

// released spares the wait where the newest owner known has let go.
func (l *lane) released(epoch int64, released bool) {
	if l.epoch == 0 && released && epoch >= l.filter.Epochs[l.Lane] {
		l.waived = epoch
	}
}

// follow has a token partition read from where the furthest behind of its lanes
// stands: they share one reading, and whoever is further on passes over what it
// has seen.
func (e *Engine) follow(partition int32) {
	from := int64(-1)
	for _, which := range event.Lanes() {
		if l := e.lanes[LP{which, partition}]; l != nil && (from < 0 || l.position < from) {
			from = l.position
		}
	}
	if from >= 0 {
		e.do(Follow{Partition: partition, From: from})
	}
}

// anew takes a LP that is still assigned from the beginning: what this process
// believes of it may not be what the log says.
func (e *Engine) anew(now time.Time, old *lane) {
	m := old.safeBound()
	m.Done = slices.Clone(old.tracker.Above())
	e.restart(now, old, old.tracker.Watermark(), m)
}

// restart is anew from where it is told.
func (e *Engine) restart(now time.Time, old *lane, next int64, m offsets.Metadata) {
	e.do(Shut{LP: old.LP, Gen: old.gen})
	e.unready(old)
	l := e.newLane(Assigned{LP: old.LP, Life: old.life, Member: old.member, Next: next}, m)
	l.covered = max(old.filter.Epochs[old.Lane], e.pulses[old.LP].epoch)
	l.claimer = fence.NewClaimer(l.covered)
	l.dirty = old.dirty
	l.seeks = old.seeks + 1
	l.recent = old.recent // what was read back stays true
	l.waitUntil = now.Add(e.cfg.Lease)
	e.put(l)
	e.do(Seek{LP: l.LP, Life: l.life, Next: l.delivered})
	if old.paused {
		e.do(Resumed{l.LP})
	}
	e.follow(l.Partition)
}

// drop forgets a LP. Its calls are broken off, and no output of it is written
// any more.
func (e *Engine) drop(lp LP) {
	l := e.lanes[lp]
	if l == nil {
		return
	}
	e.remove(l)
	e.unready(l)
	e.do(Shut{LP: lp, Gen: l.gen})
	for _, other := range e.sorted {
		if other.Partition == lp.Partition {
			return
		}
	}
	e.do(Unfollow{lp.Partition})
	if e.controls[lp.Partition] != nil {
		delete(e.controls, lp.Partition)
		e.do(UnfollowControl{lp.Partition})
	}
}

func (e *Engine) revoked(in Revoked) {
	l := e.lanes[in.LP]
	if l == nil {
		e.do(Release{LP: in.LP})
		return
	}
	e.drop(in.LP)
	r := Release{LP: in.LP}
	if l.epoch > 0 { // one that never owned it has nothing to release
		c, p := l.commit(), e.pulseOf(l)
		p.Data.Released = true
		r.Commit, r.Pulse = &c, &p
	}
	e.do(r)
}

// tokens folds what stands in the token partition: claims, what was there
// before ours, and our own writes coming back.
func (e *Engine) tokens(now time.Time, in Tokens) {
	for _, which := range event.Lanes() {
		l := e.lanes[LP{which, in.Partition}]
		if l == nil || in.From > l.position || in.Next <= l.position {
			continue // not up to it: the tail was set back to an earlier offset for this or another lane
		}
		if l.stalled = l.wantedTo == 0 && l.epoch == 0 && len(l.restored) >= maxUnasked; l.stalled {
			continue // it is read again when it is known which jobs are asked for
		}
		for i := range in.Seen {
			s := &in.Seen[i]
			if s.Offset < l.position || s.View.Lane != which {
				continue
			}
			l.position = s.Offset // what is admitted meanwhile counts from here
			if !e.seen(l, s) {
				e.anew(now, l)
				l = nil
				break
			}
		}
		if l != nil {
			l.position = in.Next
			l.claimer.ReadTo(in.Next)
		}
	}
}

// seen takes one record of the lane. It returns false if the lane is another's
// now.
func (e *Engine) seen(l *lane, s *Seen) bool {
	v := &s.View
	own := v.Type == event.LaneClaimed && s.Owner == e.cfg.Owner
	if !own && l.epoch > 0 && v.Epoch > l.epoch {
		return false
	}
	before := l.filter.Epochs[l.Lane]
	counts := l.filter.Admit(v)
	l.claimer.Saw(v.Epoch, own)
	// An older claim of ours, whose outcome was unknown, may turn up at any time.
	if own && l.claimer.Owns() && v.Epoch == l.claimer.Epoch() && l.epoch != v.Epoch {
		l.position = s.Offset + 1
		e.own(l, v.Epoch)
	}
	if counts && v.Type.Output() {
		e.output(l, v, s.Offset, before)
	}
	return true
}

func (e *Engine) own(l *lane, epoch int64) {
	l.epoch, l.pulsed = epoch, e.now
	e.do(Open{LP: l.LP, Gen: l.gen, Epoch: epoch})
	e.take(l)
	e.enqueueAll(l)
}

// output takes an event that counts: of a job that we run, the terminal one is
// its read-back; before our claim, all are the past that is folded.
func (e *Engine) output(l *lane, v *event.View, offset, epochBefore int64) {
	if l.epoch > 0 {
		if v.Seq > 0 && v.Type != event.OutputStarted && !v.Type.Terminal() {
			return
		}
		e.keyBuf = append(append(append(e.keyBuf[:0], v.Tenant...), jobKeyMark), v.Job...)
		en := l.jobs[string(e.keyBuf)]
		if en == nil || en.try == 0 {
			return
		}
		if !en.shown {
			en.shown, en.from, en.epoch = true, offset, epochBefore
		}
		if v.Type.Terminal() {
			en.readBack = true
			e.settle(en)
			return
		}
		if v.Type != event.OutputStarted {
			return
		}
		if en.fact != "" {
			return // it has ended meanwhile, and its last fact says all
		}
		h := v.Head()
		h.Type = event.JobStarted
		e.do(AppendFact{LP: l.LP, Gen: l.gen, Offset: -1, Head: h, Data: v.Data, Traceparent: en.Record.Traceparent()})
		return
	}
	e.keyBuf = append(append(append(e.keyBuf[:0], v.Tenant...), jobKeyMark), v.Job...)
	if r := l.restored[string(e.keyBuf)]; r != nil {
		r.Apply(v)
		return
	}
	if offset < l.wantedTo && l.wanted != nil {
		if _, ok := l.wanted[string(e.keyBuf)]; !ok {
			if v.Type.Terminal() {
				l.recent.add(string(e.keyBuf), struct{}{}, e.cfg.Recent)
			}
			return
		}
	}
	// A bound may lie within the output of a job that is done, of which a second
	// request is not.
	r := &restored{first: offset, epoch: epochBefore, whole: v.Seq == 0}
	l.restored[string(e.keyBuf)] = r
	r.Apply(v)
}

// asked takes the jobs of which a restore is asked for output, and forgets the
// others: they are done, or have not begun. Only what was written before end can
// be told so, for a job whose output stands there was requested by then.
func (e *Engine) asked(l *lane, jobs map[string]struct{}, end int64) {
	l.wanted, l.wantedTo = jobs, end
	if jobs != nil {
		for key, r := range l.restored {
			if _, ok := jobs[key]; ok || r.first >= end {
				continue
			}
			if r.End != "" {
				l.recent.add(key, struct{}{}, e.cfg.Recent)
			}
			delete(l.restored, key)
		}
	}
	if l.stalled {
		l.stalled = false
		e.follow(l.Partition)
	}
}

// tokensGone goes on where the log begins now. Whatever stood before is not to
// be had any more.
func (e *Engine) tokensGone(now time.Time, in TokensGone) {
	for _, which := range event.Lanes() {
		l := e.lanes[LP{which, in.Partition}]
		if l == nil || l.position >= in.Earliest {
			continue
		}
		if l.epoch > 0 { // our own writes are gone before we read them
			e.anew(now, l)
			l = e.lanes[l.LP]
		}
		l.position = max(l.position, in.Earliest)
		l.bound.Bound = max(l.bound.Bound, in.Earliest)
		l.claimer.ReadTo(l.position)
	}
	e.follow(in.Partition) // the reading has stopped, also where all lanes are further on
}

// tokensCut: the token partition has lost its end, and what is remembered of places
// in it may be of what was lost. It is read from its beginning.
func (e *Engine) tokensCut(now time.Time, in TokensCut) {
	for _, l := range e.lanesOf(in.Partition) {
		if l != nil {
			e.forgetBound(now, l)
		}
	}
}

// forgetBound takes a LP from the beginning without a bound, as where its metadata
// are lost.
func (e *Engine) forgetBound(now time.Time, l *lane) {
	e.restart(now, l, l.tracker.Watermark(), offsets.Metadata{Done: slices.Clone(l.tracker.Above())})
}

// requestsCut: a LP's requests have lost their end, and which of them are done is not
// known by their offsets any more. All that there are are taken in again; of a job
// that has ended the token log tells.
func (e *Engine) requestsCut(now time.Time, in RequestsCut) {
	if l := e.lanes[in.LP]; l != nil {
		e.restart(now, l, in.Earliest, offsets.Metadata{})
	}
}
