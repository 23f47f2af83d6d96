package admission

import "time"

// View is what was decided at one time, for all requests until the next one.
type View struct {
	At    time.Time
	Begun bool // both signals were had once; all is open before that
	Stale bool // the signal has been missing for so long that nothing is known

	cfg        Config
	cells      []cell
	allowances []int64 // by lane: while stale, how many requests may be let in, in all
}

// cell is one LP.
type cell struct {
	Status
	end          int64 // of the log, as of the view
	closeByWait  int64 // ends of the log from which on requests are refused,
	closeByCount int64 // whatever the view says otherwise
}

// Status tells how a lane of a partition stands.
func (v *View) Status(lp LP) Status { return v.cells[v.cfg.index(lp)].Status }

// Decide tells what becomes of a request. end is the newest that is known of the
// log's end, accepted how many requests of the lane this process has let in, in
// all; left is how long the request has until its deadline, 0 for ever.
//
// A crossing that the view did not see, since requests came after it, is seen
// here: by the first request that finds the end of the log beyond the watermark.
func (v *View) Decide(lp LP, end, accepted int64, left time.Duration) Decision {
	c := &v.cells[v.cfg.index(lp)]
	wait := c.Wait
	if end > c.end && c.Rate > 0 {
		wait += seconds(float64(end-c.end) / c.Rate)
	}
	switch {
	case end >= c.closeByCount:
		return v.refuse(c, lp, Outstanding, wait)
	case v.Stale:
		// Closed for the least urgent; of the others so many as this process let
		// in before.
		if lp.Lane == len(v.cfg.Lanes)-1 {
			return Decision{Reason: Stale, Wait: wait, RetryAfter: unknownRetry}
		}
		if accepted >= v.allowances[lp.Lane] {
			return Decision{Reason: Stale, Wait: wait, RetryAfter: minRetry}
		}
		return Decision{Wait: wait}
	case c.Reason != Open:
		return v.refuse(c, lp, c.Reason, wait)
	case end >= c.closeByWait:
		return v.refuse(c, lp, Wait, wait)
	case left > 0 && wait > left:
		return Decision{Reason: Deadline, Wait: wait}
	default:
		return Decision{Wait: wait}
	}
}

func (v *View) refuse(c *cell, lp LP, why Reason, wait time.Duration) Decision {
	d := Decision{Reason: why, Wait: wait, RetryAfter: c.RetryAfter}
	if d.RetryAfter == 0 { // it was open when the view was made
		s := c.Status
		s.Reason, s.Wait = why, wait
		d.RetryAfter = retryAfter(&v.cfg.Lanes[lp.Lane], &s, 0)
	}
	return d
}
