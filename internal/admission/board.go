package admission

import (
	"math"
	"time"
)

// Board knows how all lanes of all partitions stand.
type Board struct {
	cfg    Config
	queues []queue // by lane, then partition
	locals []local // by lane

	endsAt, pulsesAt time.Time // when each signal was last had
	ends, pulses     bool      // whether it ever was
}

// local is what a process lets in by itself of a lane while the signal is stale.
type local struct {
	accepted int64     // in all, as last told
	at       time.Time // of that
	rate     float64   // a second, while the signal was there
	credit   float64
}

// NewBoard makes a Board on which nothing is known; the signals have their first
// chance from now on.
func NewBoard(cfg Config, now time.Time) (*Board, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b := &Board{
		cfg: cfg, queues: make([]queue, len(cfg.Lanes)*cfg.Partitions), locals: make([]local, len(cfg.Lanes)),
		endsAt: now, pulsesAt: now,
	}
	for i := range b.queues {
		b.queues[i].progressAt = now
	}
	for i := range b.locals {
		b.locals[i].at = now
	}
	return b, nil
}

func (c *Config) index(lp LP) int { return lp.Lane*c.Partitions + lp.Partition }

// has tells whether there is such a LP: pulses are others' words.
func (c *Config) has(lp LP) bool {
	return lp.Lane >= 0 && lp.Lane < len(c.Lanes) && lp.Partition >= 0 && lp.Partition < c.Partitions
}

// Start tells the offset of the oldest request that is still there.
func (b *Board) Start(lp LP, offset int64) {
	q := &b.queues[b.cfg.index(lp)]
	q.start, q.end = offset, max(q.end, offset)
}

// End tells the offset that the next request gets. An earlier one than is known
// is passed over.
func (b *Board) End(now time.Time, lp LP, offset int64) {
	b.queues[b.cfg.index(lp)].grow(now, offset)
}

// Crossed tells that a request was refused for Wait or Outstanding: also one that
// was refused between two views has its partition shed until it is below the low
// watermark.
func (b *Board) Crossed(lp LP, why Reason) {
	q := &b.queues[b.cfg.index(lp)]
	q.shedding, q.reason = true, why
}

// EndsKnown tells that the ends of all were asked for, and had.
func (b *Board) EndsKnown(now time.Time) { b.endsAt, b.ends = now, true }

// Pulse tells of a pulse. One of a LP that is not ours is passed over.
func (b *Board) Pulse(now time.Time, lp LP, p Pulse) {
	if b.cfg.has(lp) {
		b.queues[b.cfg.index(lp)].hear(now, p)
	}
}

// PulsesRead tells that there are no pulses that were not told.
func (b *Board) PulsesRead(now time.Time) { b.pulsesAt, b.pulses = now, true }

// Accepted tells how many requests of a lane this process has let in, in all.
func (b *Board) Accepted(now time.Time, lane int, total int64) {
	const over = 10.0 // seconds
	l := &b.locals[lane]
	dt := now.Sub(l.at).Seconds()
	if dt <= 0 {
		return
	}
	n := float64(total - l.accepted)
	l.accepted, l.at = total, now
	if b.stale(now) {
		rate := max(l.rate, minLocal)
		l.credit = min(l.credit-n+rate*dt, rate)
		return
	}
	l.rate += (1 - math.Exp(-dt/over)) * (n/dt - l.rate)
	l.credit = max(l.rate, minLocal)
}

func (b *Board) stale(now time.Time) bool {
	return now.Sub(b.endsAt) > staleAfter || now.Sub(b.pulsesAt) > staleAfter
}

// Assess decides how all stand, for the time until it is asked again. Before
// both signals were had once, what one of them says means nothing: all is open.
func (b *Board) Assess(now time.Time) *View {
	v := &View{cfg: b.cfg, At: now, Stale: b.stale(now), cells: make([]cell, len(b.queues))}
	for lane := range b.locals {
		v.allowances = append(v.allowances, b.locals[lane].accepted+int64(max(b.locals[lane].credit, 0)))
	}
	if !b.ends || !b.pulses {
		for i := range v.cells {
			v.cells[i].closeByWait, v.cells[i].closeByCount = math.MaxInt64, math.MaxInt64
		}
		return v
	}
	v.Begun = true
	for i := range b.queues {
		v.cells[i].Status, v.cells[i].end = b.queues[i].status(now), b.queues[i].end
	}
	urgency := b.urgency(v)
	for i := range b.queues {
		lane := i / b.cfg.Partitions
		b.decide(&b.queues[i], &v.cells[i], lane, urgency[b.queues[i].pulse.Owner])
	}
	return v
}

// urgency is how full the fullest partition of each owner's lanes is, in parts
// of the budget, where that is for want of calls.
func (b *Board) urgency(v *View) map[string][]float64 {
	all := map[string][]float64{}
	for i := range b.queues {
		s := &v.cells[i].Status
		if s.Owner != Alive {
			continue
		}
		lane, owner := i/b.cfg.Partitions, b.queues[i].pulse.Owner
		if all[owner] == nil {
			all[owner] = make([]float64, len(b.cfg.Lanes))
		}
		if s.Rate == 0 {
			continue
		}
		p := b.waitPressure(lane, s)
		if b.queues[i].shedding && b.queues[i].reason == Wait && p >= low {
			p = max(p, high) // a request between two views saw it cross
		}
		all[owner][lane] = max(all[owner][lane], p)
	}
	return all
}

func (b *Board) waitPressure(lane int, s *Status) float64 {
	return s.Wait.Seconds() / b.cfg.Lanes[lane].Wait.Seconds()
}

// decide moves a LP between open and shedding, and says at which end of the log
// an open one closes.
func (b *Board) decide(q *queue, c *cell, lane int, urgent []float64) {
	limits := &b.cfg.Lanes[lane]
	wait := b.waitPressure(lane, &c.Status)
	outstanding := float64(c.Outstanding) / float64(limits.Outstanding)
	if c.Owner != Alive {
		urgent = nil
	}
	over, under := Open, wait < low && outstanding < low
	switch {
	case wait >= high:
		over = Wait
	case outstanding >= high:
		over = Outstanding
	}
	yieldFor := time.Duration(0)
	for other := range min(lane, len(urgent)) {
		p := urgent[other]
		if over == Open && p >= high-earlier*float64(lane-other) {
			over = Yielding
		}
		if p >= low {
			under = false
			yieldFor = max(yieldFor, seconds((p-low)*b.cfg.Lanes[other].Wait.Seconds()))
		}
	}
	switch {
	case over != Open:
		q.shedding, q.reason = true, over
	case under:
		q.shedding = false
	}
	c.closeByWait, c.closeByCount = math.MaxInt64, q.done()+int64(math.Ceil(high*float64(limits.Outstanding)))
	if c.Rate > 0 {
		c.closeByWait = q.begun() + int64(math.Ceil(high*limits.Wait.Seconds()*c.Rate))
	}
	if q.shedding {
		c.Reason = q.reason
	}
	c.RetryAfter = retryAfter(limits, &c.Status, yieldFor)
}

// retryAfter is how long it takes until all is below the low watermark.
func retryAfter(limits *Limits, s *Status, yieldFor time.Duration) time.Duration {
	if s.Reason == Open {
		return 0
	}
	if s.Rate == 0 && s.Reason != Yielding {
		return unknownRetry
	}
	d := max(yieldFor, s.Wait-seconds(low*limits.Wait.Seconds()))
	if over := float64(s.Outstanding) - low*float64(limits.Outstanding); over > 0 && s.Rate > 0 {
		d = max(d, seconds(over/s.Rate))
	}
	return min(max(d, minRetry), maxRetry)
}
