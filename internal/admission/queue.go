package admission

import (
	"math"
	"time"
)

// Pulse is what an owner says of a lane's partition, about four times a second.
type Pulse struct {
	Epoch    int64   // of its ownership; one of an older owner is passed over
	Owner    string  // lanes of one owner share its calls
	Consumed int64   // requests below this offset were taken in
	InFlight int     // taken in and not done
	Running  int     // of those: begun
	Waiting  int     // of those: could begin, and find no free call
	Rate     float64 // jobs done a second, smoothed
	Stalled  bool    // the provider is failing, and is left alone
	Released bool    // the owner has let go
	Old      bool    // it was there before anybody listened: who wrote it may be long gone
}

const (
	pulseEvery = 0.25 // seconds, for a first pulse
	maxGap     = 1.0  // seconds that one pulse can stand for
	// Evidence of how long jobs take fades over fade seconds, and no further
	// than to enough jobs: slow models end few.
	fade, enough = 10.0, 16.0
	smooth       = 0.3
)

// queue is what is known of a lane of a partition.
//
// How fast it is worked off is known only while requests wait for a free call:
// what is measured otherwise is how fast they come. A job's time, from being
// begun to being done, can be had at any time: calls under way, summed over
// time, over jobs done (Little's law). The rate is the calls that run now over
// that time.
type queue struct {
	start, end int64 // of the log
	pulse      Pulse
	pulsed     bool
	heardAt    time.Time // zero: not since we listen

	running float64 // smoothed
	busy    float64 // calls under way, summed over time: job-seconds
	done    float64 // jobs done in that time

	busySince time.Time // calls have been under way since
	busySeen  bool      // that they began was seen
	before    float64   // seconds a job took, when they began

	progressAt time.Time // when a request was begun the last time, or none waited
	shedding   bool
	reason     Reason // where shedding
}

// begun is the offset below which requests were begun, or wait for their own
// kind alone.
func (q *queue) begun() int64 {
	if !q.pulsed {
		return q.start
	}
	return q.pulse.Consumed - int64(q.pulse.Waiting)
}

func (q *queue) waiting() int64 { return max(0, q.end-q.begun()) }

// settled is an offset that as many requests stand below as are done.
func (q *queue) settled() int64 {
	if !q.pulsed {
		return q.start
	}
	return q.pulse.Consumed - int64(q.pulse.InFlight)
}

func (q *queue) outstanding() int64 { return max(0, q.end-q.settled()) }

// grow takes a later end of the log.
func (q *queue) grow(now time.Time, end int64) {
	if end <= q.end {
		return
	}
	if q.waiting() == 0 {
		q.progressAt = now
	}
	q.end = end
}

// hear takes a pulse.
func (q *queue) hear(now time.Time, p Pulse) {
	if q.pulsed && p.Epoch < q.pulse.Epoch {
		return
	}
	was, anew := q.begun(), !q.pulsed || p.Epoch > q.pulse.Epoch
	dt := pulseEvery
	if !q.heardAt.IsZero() {
		dt = min(max(now.Sub(q.heardAt).Seconds(), 0), maxGap)
	}
	q.pulse, q.pulsed = p, true
	if p.Old {
		return
	}
	q.measure(now, dt)
	q.heardAt = now
	if anew || q.begun() > was || q.waiting() == 0 {
		q.progressAt = now
	}
}

// measure learns from a pulse that stands for dt seconds.
func (q *queue) measure(now time.Time, dt float64) {
	p := &q.pulse
	if p.Running == 0 {
		q.before, q.busySince, q.busySeen = q.jobTime(now), now, true
	} else if q.busySince.IsZero() {
		q.busySince = now
	}
	q.running += smooth * (float64(p.Running) - q.running)
	q.busy += float64(p.Running) * dt
	q.done += p.Rate * dt
	if q.done > enough {
		f := max(math.Exp(-dt/fade), enough/q.done)
		q.busy, q.done = q.busy*f, q.done*f
	}
}

// jobTime is how many seconds a job takes, as far as is known. Of calls that
// all began together none has ended yet: no job takes longer than they have
// been under way, unless jobs did before.
func (q *queue) jobTime(now time.Time) float64 {
	underWay := 0.0
	if !q.busySince.IsZero() {
		underWay = now.Sub(q.busySince).Seconds()
	}
	switch {
	case q.done < 1:
		return max(underWay, q.before)
	case q.busySeen:
		return min(q.busy/q.done, max(underWay, q.before))
	default:
		return q.busy / q.done
	}
}

// owner tells who works on it.
func (q *queue) owner(now time.Time) Owner {
	switch {
	case !q.pulsed || q.pulse.Released:
		return Nobody
	case q.heardAt.IsZero() || now.Sub(q.heardAt) > silence:
		return Silent
	default:
		return Alive
	}
}

// rate is how many requests a second are worked off, as of the newest pulse; 0
// where that cannot be told.
func (q *queue) rate(now time.Time) float64 {
	if q.pulse.Waiting == 0 || q.pulse.Running == 0 || q.heardAt.IsZero() {
		return 0
	}
	t := q.jobTime(now)
	if t <= 0 {
		return 0
	}
	return max(float64(q.pulse.Running), q.running) / t
}

// status is how it stands, but for what is decided of it.
func (q *queue) status(now time.Time) Status {
	s := Status{
		Owner: q.owner(now), Stalled: q.pulse.Stalled, Outstanding: q.outstanding(), Waiting: q.waiting(),
	}
	rate := q.rate(now)
	if s.Owner == Alive {
		s.Running, s.Rate = q.pulse.Running, rate
	}
	if s.Waiting == 0 {
		return s
	}
	var wait float64
	if rate > 0 {
		wait = float64(s.Waiting) / rate
	}
	if s.Owner != Alive || rate == 0 {
		// Nobody begins anything, or how fast cannot be told: who came first has
		// waited for so long already.
		wait += now.Sub(q.progressAt).Seconds()
	}
	s.Wait = seconds(wait)
	return s
}

// seconds makes a duration, however long.
func seconds(s float64) time.Duration {
	const most = 1e9 // thirty years, which a duration can hold
	return time.Duration(min(max(s, 0), most) * float64(time.Second))
}
