package engine

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// disturb is an event from outside the processes.
func (w *world) disturb() {
	if w.n(100) >= w.faults {
		if len(w.seq) > 0 && w.n(6) == 0 {
			w.cancel(w.seq[len(w.seq)-1-w.n(min(len(w.seq), 12))])
			return
		}
		w.request()
		return
	}
	p := w.procs[w.n(len(w.procs))]
	const every = 700 // steps: its successor is to get somewhere
	if w.zombies && w.at >= w.lastZombie+every {
		w.lastZombie = w.at
		w.zombie(p)
		return
	}
	switch w.n(13) {
	case 12:
		if w.n(6) == 0 {
			p.drain()
		}
	case 0, 1:
		w.move(w.lps[w.n(len(w.lps))], w.anyMember(nil))
	case 2:
		if w.n(2) == 0 { // a zombie: it does not read what would tell it, and goes on
			p.muted[readsTokens] = w.now.Add(time.Duration(w.n(9000)) * time.Millisecond)
		}
		w.evict(p)
	case 3:
		if !w.zombies || w.n(8) == 0 {
			p.notice()
		}
	case 4:
		if w.n(3) == 0 {
			p.crash()
		}
	case 5:
		if len(w.living()) < 3 {
			w.spawn()
		}
	case 7: // a part of it is slow
		p.muted[w.n(actions)] = w.now.Add(time.Duration(w.n(2500)) * time.Millisecond)
	case 6:
		p.stalled = w.now.Add(time.Duration(w.n(2500)) * time.Millisecond)
	case 8:
		p.loseWrites(int32(w.n(2)))
	case 9:
		w.late()
	case 10:
		w.now = w.now.Add(time.Duration(w.n(900)) * time.Millisecond)
	case 11:
		for _, lp := range w.lps { // the rebalance does not wait any longer
			if w.hurry(lp) {
				break
			}
		}
		if w.retention && w.n(4) == 0 {
			w.expire()
		}
	}
}

// zombie removes a member that does not read what would tell it, and that has
// requests to come.
func (w *world) zombie(p *proc) {
	for _, other := range w.procs {
		if other != p {
			other.notice()
		}
	}
	if !p.alive || !p.member || w.anyMember(p) == nil {
		return
	}
	for _, lp := range w.lps {
		if p.fetch[lp] != nil {
			w.hot = lp
		}
	}
	p.muted[readsTokens] = w.now.Add(time.Duration(3000+w.n(6000)) * time.Millisecond)
	p.stalled = time.Time{}
	w.evict(p)
}

// late lands a write that nobody knows of, or drops it and all behind it.
func (w *world) late() {
	if len(w.limbo) == 0 {
		return
	}
	i := w.n(len(w.limbo))
	q := w.limbo[i]
	if w.n(4) > 0 {
		q[0]()
		q = q[1:]
	} else {
		q = nil
	}
	w.limbo[i] = q
	if len(q) == 0 {
		w.limbo = append(w.limbo[:i:i], w.limbo[i+1:]...)
	}
}

// cancel asks for a job to be stopped, whether it has ended or not.
func (w *world) cancel(j *jobState) {
	log := w.control[j.Partition]
	j.cancels = append(j.cancels, int64(len(log)))
	w.control[j.Partition] = append(log, Cancel{Tenant: j.head.Tenant, Job: j.head.Job, Time: w.now})
}

// request writes a request: a new job, or one of the kinds that are trouble.
func (w *world) request() {
	if w.made*w.steps >= w.requests*(w.at+40) {
		return // they are spread over the run
	}
	w.made++
	lp := w.lps[w.n(len(w.lps))]
	if w.zombies && w.n(2) == 0 {
		lp = w.hot
	}
	r := &reqRec{Request: Request{Time: w.now, Bytes: 10 + w.n(40)}}
	kind := w.n(16)
	var again *jobState
	if kind >= 10 && kind <= 13 && len(w.seq) > 0 {
		again = w.seq[len(w.seq)-1-w.n(min(len(w.seq), 6))]
	}
	switch {
	case kind == 15:
		r.Poison = "it cannot be run"
	case kind == 14:
		r.Skip = true
	case again != nil && kind >= 12: // plainly twice
		again.again, again.twice = true, true
		lp, r.job, r.Head, r.Data = again.LP, again, again.head, again.data
	case again != nil: // ingest did not know whether it took
		again.again = true
		lp, r.job, r.Head, r.Data = again.LP, again, again.head, again.data
		r.Data.Repeat = true
	default:
		id, err := job.Mint(w.now, "", 1, randomBytes{w.random})
		if err != nil {
			panic(err)
		}
		j := &jobState{
			LP: lp, created: int64(len(w.tokens[lp.Partition])), first: int64(len(w.reqs[lp])),
			head: event.Head{Type: event.JobRequested, V: 1, Tenant: []string{"t", "t", "u"}[w.n(3)], Job: id},
		}
		if kind >= 7 {
			j.conv = "c" + strconv.Itoa(w.n(2))
			j.head.Conversation = j.conv
		}
		j.key = jobKey(j.head.Tenant, id)
		w.jobs[j.key] = j
		w.seq = append(w.seq, j)
		r.job, r.Head = j, j.head
		if w.n(12) == 0 { // the cancel overtakes its job
			w.cancel(j)
		}
	}
	r.Offset = int64(len(w.reqs[lp]))
	w.reqs[lp] = append(w.reqs[lp], r)
}

type randomBytes struct{ r *rand.Rand }

func (b randomBytes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b.r.Uint32())
	}
	return len(p), nil
}

// expire is retention: tokens and requests lose their oldest records.
func (w *world) expire() {
	p := int32(w.n(2))
	if n := int64(len(w.tokens[p])) - w.tokFrom[p]; n > 4 {
		w.trim(p, w.tokFrom[p]+int64(w.n(int(n/2)+1)))
		for _, j := range w.jobs {
			if j.Partition == p && j.created < w.tokFrom[p] {
				j.trimmed = true
			}
		}
	}
	lp := w.lps[w.n(len(w.lps))]
	if n := int64(len(w.reqs[lp])) - w.reqFrom[lp]; n > 4 {
		w.reqFrom[lp] += int64(w.n(int(n/2) + 1))
		for _, r := range w.reqs[lp][:w.reqFrom[lp]] {
			if r.job != nil {
				r.job.trimmed = true
			}
		}
	}
}

// trim moves the start of a token log, short of a claim that is known from
// nowhere else: the kept days are many, and commits are made every few seconds.
func (w *world) trim(p int32, to int64) {
	for o := w.tokFrom[p]; o < to; o++ {
		v := &w.tokens[p][o].view
		if v.Type == event.LaneClaimed && v.Epoch > metadata(w.commits[LP{v.Lane, p}]).Epoch {
			return
		}
		w.tokFrom[p] = o + 1
	}
}
