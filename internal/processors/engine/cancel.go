package engine

import (
	"time"

	"github.com/penstock-io/penstock/internal/job"
)

// control is what was read of a control partition, for all of its lanes here.
type control struct {
	from, position int64             // all cancels of [from, position) were read
	cancels        memory[time.Time] // by jobKey, of jobs that are not done: when the cancel was written
}

// listen has a lane hear of the cancels of [from, end) before it starts
// anything: one that was written while nobody owned the lane, or that its owner
// before did not come to carry out.
func (e *Engine) listen(l *lane, from, end int64) {
	c := e.controls[l.Partition]
	if c == nil || from < c.from {
		if c == nil {
			c = &control{}
			e.controls[l.Partition] = c
		}
		c.from, c.position = from, from
		e.do(FollowControl{Partition: l.Partition, From: from})
	}
	l.heard, l.heardTo = false, end
	e.hear(l, c)
}

func (e *Engine) hear(l *lane, c *control) {
	if !l.heard && c.position >= l.heardTo {
		l.heard = true
		e.enqueueAll(l)
	}
}

// cancels takes what was read of a control partition. A cancel that is read
// twice does what it did once.
func (e *Engine) cancels(in Cancels) {
	c := e.controls[in.Partition]
	if c == nil || in.Next <= c.position {
		return
	}
	for i := range in.Cancels {
		e.cancelRead(c, in.Partition, &in.Cancels[i])
	}
	if in.From <= c.position {
		c.position = in.Next
		e.heard(in.Partition, c)
	}
}

func (e *Engine) heard(partition int32, c *control) {
	for _, l := range e.lanesOf(partition) {
		if l != nil {
			e.hear(l, c)
		}
	}
}

// controlGone goes on where the log begins now: what stood before is older than
// any request that is kept.
func (e *Engine) controlGone(in ControlGone) {
	c := e.controls[in.Partition]
	if c == nil {
		return
	}
	c.position = max(c.position, in.Earliest)
	e.do(FollowControl{Partition: in.Partition, From: c.position})
	e.heard(in.Partition, c)
}

// cancelRead cancels the job where it is known, and remembers the cancel until
// the job is done: it may not have been taken in yet, or be taken in anew.
func (e *Engine) cancelRead(c *control, partition int32, in *Cancel) {
	key, at, ended, known := jobKey(in.Tenant, in.Job), in.Time, false, false
	for _, l := range e.lanesOf(partition) {
		if l == nil {
			continue
		}
		if en := l.jobs[key]; en == nil {
			ended = ended || l.recent.has(key)
		} else {
			known = true
			if at.Before(en.Time) { // by another clock: it is this job's all the same
				at = en.Time
			}
			e.cancel(en)
		}
	}
	if (known || !ended) && c.cancels.add(key, at, e.cfg.MaxCancels) {
		e.forgotten++
	}
}

// asks tells whether a cancel of the job was read.
func (c *control) asks(en *entry, ahead time.Duration) bool {
	if c == nil {
		return false
	}
	at, ok := c.cancels.get(en.name)
	if !ok {
		return false
	}
	_, minted := job.ParseID(en.Head.Job)
	return minted || !en.Time.After(at.Add(ahead))
}

// drop forgets the cancel of a job that is done.
func (c *control) drop(key string) {
	if c != nil {
		c.cancels.drop(key)
	}
}

// cancel ends a job: a call is broken off, and what waits is ended without one,
// out of its key's turn.
func (e *Engine) cancel(en *entry) {
	if en.cancelled || en.fact != "" {
		return
	}
	en.cancelled = true
	if en.started {
		e.do(Stop{LP: en.lane.LP, Gen: en.lane.gen, Offset: en.Offset})
		return
	}
	e.endings = append(e.endings, en) // at most the windows' worth
}

// scheduleEndings starts the calls that end what was cancelled while it waited.
// They take no slot, since none may be free for long, and are over as soon as
// the log has taken one event.
func (e *Engine) scheduleEndings() {
	if len(e.endings) == 0 {
		return
	}
	left := e.endings[:0]
	for _, en := range e.endings {
		switch l := en.lane; {
		case e.lanes[l.LP] != l: // gone: its next owner knows of the cancel
		case e.ending >= e.cfg.MaxEndings || !e.mayStart(l):
			left = append(left, en)
		default:
			e.start(en)
		}
	}
	clear(e.endings[len(left):])
	e.endings = left
}
