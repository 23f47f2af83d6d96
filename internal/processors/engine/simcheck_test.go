package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
)

// What must hold, as the reader who sees everything has it.

// appendToken is the only way into a token log, and where it is read.
func (w *world) appendToken(p int32, rec tokRec) {
	offset := int64(len(w.tokens[p]))
	rec.time = w.now
	w.tokens[p] = append(w.tokens[p], rec)
	v := &rec.view
	counts := w.filters[p].Admit(v) || w.noFence && v.Type.Output()
	if !counts || !v.Type.Output() {
		return
	}
	j := w.jobs[jobKey(string(v.Tenant), string(v.Job))]
	if j == nil {
		w.fail("an output of nobody's job: %+v", v)
		return
	}
	w.counted(j, v, offset)
}

func (w *world) counted(j *jobState, v *event.View, offset int64) {
	if j.twice || j.trimmed {
		j.ended = j.ended || v.Type.Terminal()
		j.offsets = append(j.offsets, offset)
		return
	}
	if v.Seq != int64(len(j.offsets)) {
		w.fail("job %s: %s at offset %d has seq %d, not %d%s", j.head.Job, v.Type, offset, v.Seq, len(j.offsets), w.story(j.LP))
	}
	if j.ended {
		w.fail("job %s: %s after its end", j.head.Job, v.Type)
	}
	if v.Type == event.OutputCancelled && len(j.cancels) == 0 {
		w.fail("job %s: cancelled by nobody", j.head.Job)
	}
	if v.Type == event.OutputStarted && v.Attempt == 1 && j.conv != "" {
		for _, o := range w.seq {
			if o.conv == j.conv && o.head.Tenant == j.head.Tenant && o.LP == j.LP && o.first < j.first && !o.ended && !o.trimmed && !j.trimmed {
				w.fail("job %s started before %s of the same conversation ended", j.head.Job, o.head.Job)
			}
		}
	}
	j.offsets = append(j.offsets, offset)
	if v.Type.Terminal() {
		j.ended, j.endAt, j.endedType = true, offset, v.Type
	}
}

// story is a partition's log, as far as it concerns a lane.
func (w *world) story(lp LP) string {
	var b strings.Builder
	for o := range w.tokens[lp.Partition] {
		r := &w.tokens[lp.Partition][o]
		if v := &r.view; v.Lane == lp.Lane {
			fmt.Fprintf(&b, "\n%4d e%d %s %s %d %s", o, v.Epoch, v.Type, v.Job, v.Seq, r.owner)
		}
	}
	return b.String()
}

// appendFact is the only way into the jobs log.
func (w *world) appendFact(h *event.Head) {
	j := w.jobs[jobKey(h.Tenant, h.Job)]
	if j == nil {
		w.fail("a fact of nobody's job: %+v", h)
		return
	}
	if !h.Type.Terminal() {
		return
	}
	if !j.ended && !j.trimmed {
		w.fail("job %s (%+v): %s without a terminal event that counts; log starts at %d%s", j.head.Job, j, h.Type, w.tokFrom[j.Partition], w.story(j.LP))
	}
	if j.ended && !j.twice && !j.trimmed && factOf(j.endedType) != h.Type {
		w.fail("job %s: %s follows from %s", j.head.Job, h.Type, j.endedType)
	}
	j.factDone = true
}

func factOf(t event.Type) event.Type {
	switch t {
	case event.OutputFailed:
		return event.JobFailed
	case event.OutputCancelled:
		return event.JobCancelled
	default:
		return event.JobCompleted
	}
}

// starts is told of every call. A job whose cancel stood in the log before its
// owner looked where the log ends is not run.
func (p *proc) starts(f *Start) {
	p.w.seen.started++
	if f.Cancelled {
		p.w.seen.cancelled++
		return
	}
	j := p.w.jobs[jobKey(f.Request.Head.Tenant, f.Request.Head.Job)]
	if j.ended || j.twice || j.trimmed || f.Expired {
		return
	}
	for _, offset := range j.cancels {
		if offset < p.heard[f.Gen] {
			p.w.fail("job %s is run by %s, though its cancel stands at offset %d, before %d, where it looked", j.head.Job, p.name, offset, p.heard[f.Gen])
		}
	}
}

// done tells whether nothing is owed for a request.
func (w *world) done(lp LP, r *reqRec) bool {
	switch {
	case r.Skip:
		return true
	case r.Poison != "":
		return w.dead[lp][r.Offset]
	default:
		return r.job.ended && r.job.factDone || r.job.trimmed && r.job.factDone
	}
}

// applyCommit is the only way to a commit.
func (w *world) applyCommit(c Commit) {
	if w.highBound {
		m := metadata(c)
		m.Bound = int64(len(w.tokens[c.Partition]))
		m.Epoch = w.filters[c.Partition].Epochs[c.Lane]
		c.Metadata, _ = m.Encode(c.Next)
	}
	w.commits[c.LP] = c
	if c.Metadata == "" {
		w.fail("%v: a commit without metadata", c.LP)
		return
	}
	m := metadata(c)
	committed := func(o int64) bool {
		if o < c.Next {
			return true
		}
		for _, r := range m.Done {
			if o >= r.From && o < r.To {
				return true
			}
		}
		return false
	}
	if c.Next > int64(len(w.reqs[c.LP])) {
		w.fail("%v: %d committed, and the log ends at %d", c.LP, c.Next, len(w.reqs[c.LP]))
		return
	}
	for _, r := range w.reqs[c.LP] {
		if committed(r.Offset) {
			if !w.done(c.LP, r) && r.Offset >= w.reqFrom[c.LP] {
				w.fail("%v: offset %d committed and not done (%+v)", c.LP, r.Offset, r.job)
			}
			continue
		}
		if j := r.job; j != nil && !w.highBound && !j.twice && !j.trimmed && !j.factDone && len(j.offsets) > 0 && j.offsets[0] < m.Bound {
			w.fail("%v: bound %d hides output at %d of request %d that is not done", c.LP, m.Bound, j.offsets[0], r.Offset)
		}
	}
	if w.highBound || w.retention {
		return
	}
	var f fence.Filter
	for i := range w.tokens[c.Partition][:m.Bound] {
		f.Admit(&w.tokens[c.Partition][i].view)
	}
	if f.Epochs[c.Lane] != m.Epoch {
		w.fail("%v: epoch %d is in force at bound %d, and the commit says %d", c.LP, f.Epochs[c.Lane], m.Bound, m.Epoch)
	}
}

// bounds are looked at after each step.
func (p *proc) bounds() {
	e := p.eng
	if e.inFlight > e.cfg.MaxInFlight || e.inFlight < 0 {
		p.w.fail("%d calls in flight, %d at most", e.inFlight, e.cfg.MaxInFlight)
	}
	if e.ending > e.cfg.MaxEndings || e.ending < 0 {
		p.w.fail("%d calls end what was cancelled, %d at most", e.ending, e.cfg.MaxEndings)
	}
	for _, l := range e.lanes {
		if len(l.entries) > e.cfg.MaxWindow {
			p.w.fail("%d requests in the window, %d at most", len(l.entries), e.cfg.MaxWindow)
		}
		if l.bytes > e.cfg.MaxWindowBytes && len(l.entries) > 1 {
			p.w.fail("%d bytes in the window, %d at most", l.bytes, e.cfg.MaxWindowBytes)
		}
		if len(l.recent.values) > e.cfg.Recent || len(l.keys) > len(l.entries) || len(l.jobs) > len(l.entries) {
			p.w.fail("remembered %d, keys %d, jobs %d of %d entries", len(l.recent.values), len(l.keys), len(l.jobs), len(l.entries))
		}
		bytes, started := 0, 0
		for _, en := range l.entries {
			bytes += en.Bytes
			if en.started {
				started++
			}
			if en.started && !en.cancelled && slices.Contains(l.resting, en) {
				p.w.fail("a call that runs waits for its next try")
			}
		}
		if l.tracker.Span() > simSpan {
			p.w.fail("%v: %d offsets from the watermark to the newest, %d at most", l.LP, l.tracker.Span(), simSpan)
		}
		if bytes != l.bytes || started != l.started {
			p.w.fail("%d bytes and %d started are counted, and are %d and %d", l.bytes, l.started, bytes, started)
		}
	}
	p.shares()
}

// shares looks at who has the calls, and who waits for one, by plain counting.
func (p *proc) shares() {
	e, total := p.eng, 0
	var calls, here, wanting [event.LaneCount]int
	tenants := map[string]int{}
	for _, c := range p.calls { // what runs, whether or not its lane is still ours
		if !c.s.Cancelled {
			calls[c.s.Lane]++
			tenants[c.s.Request.Head.Tenant]++
			total++
		}
	}
	for _, in := range p.posts { // an end that the engine was not told of yet
		if in, ok := in.(Ended); ok && !in.Cancelled {
			calls[in.Lane]++
			tenants[in.Tenant]++
			total++
		}
	}
	for who, n := range tenants {
		if p.w.perTenant > 0 && n > p.w.perTenant {
			p.w.fail("%s has %d calls, %d at most", who, n, p.w.perTenant)
		}
	}
	if total != e.inFlight {
		p.w.fail("%d calls are counted, and are %d", e.inFlight, total)
	}
	for _, l := range e.lanes {
		here[l.Lane]++
		if l.epoch == 0 || !l.heard || l.lapsed || !l.claimer.Owns() || !e.leases(p.w.now, l) || e.draining {
			continue
		}
		for _, k := range l.keys {
			if en := k.queue[0]; !en.started && !en.cancelled && !slices.Contains(l.resting, en) &&
				(p.w.perTenant == 0 || tenants[en.Head.Tenant] < p.w.perTenant) {
				wanting[l.Lane]++
			}
		}
	}
	for _, lane := range event.Lanes() {
		taken := total
		for _, other := range event.Lanes() {
			if other != lane && here[other] > 0 {
				taken += max(0, 1-calls[other]) // each has one of the four
			}
		}
		if taken < 4 && wanting[lane] > 0 {
			p.w.fail("%d requests of %s wait, though a call is free: %d of 4, by lane %v", wanting[lane], lane, total, calls)
		}
		if p.reserveBroken(lane, calls, here) {
			p.w.fail("the call that is %s's was given to another: %v", lane, calls)
		}
	}
}

// reserveBroken tells whether the others have taken a lane's own call, though
// none of theirs was begun before the lane was here.
func (p *proc) reserveBroken(lane event.Lane, calls, here [event.LaneCount]int) bool {
	if here[lane] == 0 {
		p.without[lane] = true
	} else if total := calls[1] + calls[2] + calls[3]; total < 4 {
		p.without[lane] = false
	}
	return !p.without[lane] && calls[lane] == 0 && calls[1]+calls[2]+calls[3] == 4
}

// allDone tells whether every request is done and committed.
func (w *world) allDone() bool {
	for _, lp := range w.lps {
		if w.commits[lp].Next != int64(len(w.reqs[lp])) && len(w.reqs[lp]) > 0 {
			return false
		}
		for _, r := range w.reqs[lp] {
			if !w.done(lp, r) && r.Offset >= w.reqFrom[lp] {
				return false
			}
		}
	}
	return true
}

func (w *world) undone() string {
	var b strings.Builder
	for _, lp := range w.lps {
		fmt.Fprintf(&b, "\n%v: committed %d of %d, owner %v;", lp, w.commits[lp].Next, len(w.reqs[lp]), w.owner[lp])
		for _, r := range w.reqs[lp] {
			if !w.done(lp, r) {
				fmt.Fprintf(&b, " %d (poison %q)", r.Offset, r.Poison)
			}
		}
		if o := w.owner[lp]; o != nil {
			if l := o.eng.lanes[lp]; l != nil {
				for _, en := range l.entries {
					fmt.Fprintf(&b, " entry %d %s started %v, read back %v, written %v, resume %+v, ends as %q;", en.Offset, en.Head.Job, en.started, en.readBack, en.written, en.resume, en.fact)
				}
				fmt.Fprintf(&b, " lane: %s, position %d, epoch %d, claimer %+v, delivered %d, handover %d, backlog %d, entries %d, paused %v, asked %v, lapsed %v; calls %d, gates %+v, tail %+v, fetch %+v",
					l.tracker, l.position, l.epoch, l.claimer, l.delivered, l.handover, len(l.backlog), len(l.entries), l.paused, l.asked, l.lapsed, len(o.calls), o.gates[lp], o.tail[lp.Partition], o.fetch[lp])
			}
		}
	}
	return b.String()
}

// finalCheck reads every job's output as one does who knows nothing before its
// creation.
func (w *world) finalCheck() {
	for _, j := range w.seq {
		if j.twice || j.trimmed {
			continue
		}
		if !j.ended || !j.factDone {
			w.fail("job %s has no end", j.head.Job)
		}
		var f fence.Filter
		var late []int64
		log := w.tokens[j.Partition]
		for o := j.created; o < int64(len(log)); o++ {
			v := &log[o].view
			if f.Admit(v) && v.Type.Output() && string(v.Job) == j.head.Job {
				late = append(late, o)
			}
		}
		if !w.noFence && !slices.Equal(late, j.offsets) {
			w.fail("job %s: a reader from its creation counts %v, one from the start %v", j.head.Job, late, j.offsets)
		}
	}
}
