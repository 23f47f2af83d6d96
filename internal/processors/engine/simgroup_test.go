package engine

import (
	"strconv"
	"time"
)

// The group's coordinator.

func (w *world) living() (out []*proc) {
	for _, p := range w.procs {
		if p.alive {
			out = append(out, p)
		}
	}
	return out
}

func (w *world) anyMember(but *proc) *proc {
	var out []*proc
	for _, p := range w.procs {
		if p.alive && p.member && p != but {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out[w.n(len(out))]
}

func (w *world) spawn() {
	p := newProc(w, "owner-"+strconv.Itoa(w.names))
	w.names++
	w.procs = append(w.procs, p)
	for i, old := range w.procs {
		if !old.alive && len(w.procs) > 4 && !old.member {
			w.procs = append(w.procs[:i:i], w.procs[i+1:]...)
			break
		}
	}
	for _, lp := range w.lps {
		if o := w.owner[lp]; o == nil {
			w.assign(lp, p)
		}
	}
}

func (w *world) assign(lp LP, to *proc) {
	if to == nil || !to.alive || !to.member {
		to = w.anyMember(nil)
	}
	w.owner[lp] = to
	if to == nil {
		return
	}
	c := w.commits[lp]
	if !w.retention && c.Metadata != "" && w.n(400) < w.faults {
		c.Metadata = []string{"", "not ours"}[w.n(2)]
		w.seen.lost++
	}
	to.groupQ = append(to.groupQ, &groupEvent{kind: assignedEvent, lp: lp, id: to.id, next: c.Next, metadata: c.Metadata})
}

// move hands a LP over in order: its owner is asked first.
func (w *world) move(lp LP, to *proc) {
	from := w.owner[lp]
	if _, busy := w.moving[lp]; busy || to == nil || from == to {
		return
	}
	if from == nil || !from.member {
		w.assign(lp, to)
		return
	}
	if from.undeliver(lp) {
		w.assign(lp, to)
		return
	}
	w.moving[lp] = to
	from.stopFetch(lp)
	from.groupQ = append(from.groupQ, &groupEvent{kind: revokedEvent, lp: lp})
}

// hurry ends a hand-over that its owner has not come to.
func (w *world) hurry(lp LP) (did bool) {
	to, did := w.moving[lp]
	if did {
		delete(w.moving, lp)
		w.assign(lp, to)
	}
	return did
}

// released ends a hand-over.
func (w *world) released(p *proc, lp LP) {
	if to, ok := w.moving[lp]; ok && w.owner[lp] == p {
		delete(w.moving, lp)
		w.assign(lp, to)
	}
}

// evict removes a member: its LPs are others' at once, and it does not know.
func (w *world) evict(p *proc) {
	if !p.member {
		return
	}
	to := w.anyMember(p)
	if to == nil {
		return
	}
	p.member = false
	for _, lp := range w.lps {
		if w.owner[lp] == p {
			delete(w.moving, lp)
			w.assign(lp, w.anyMember(p))
		}
	}
}

// someone starts a process where none is left, and hands it what was the dead's.
func (w *world) someone() {
	if len(w.living()) == 0 {
		w.spawn()
	}
	for _, p := range w.procs {
		if !p.alive {
			w.evict(p)
		}
	}
}

// calm ends all faults, and waits for everything to end.
func (w *world) calm() {
	for _, p := range w.procs {
		if !p.alive {
			w.evict(p)
		}
		p.stalled, p.muted = time.Time{}, [actions]time.Time{}
	}
	w.someone()
	for _, p := range w.procs {
		p.notice()
	}
	w.someone()
	for _, lp := range w.lps {
		w.hurry(lp)
	}
	for _, lp := range w.lps {
		if o := w.owner[lp]; o == nil || !o.alive {
			w.assign(lp, nil)
		}
	}
	w.faults = 0
	const rounds = 6000
	for range rounds {
		w.now = w.now.Add(5 * time.Millisecond)
		w.someone()
		for _, p := range w.living() {
			p.everything()
		}
		if w.wrong != nil || w.allDone() {
			return
		}
	}
	w.fail("%w: %s%s", errNoEnd, w.undone(), w.story(w.lps[0]))
}
