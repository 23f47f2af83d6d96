package admission

import (
	"math"
	"time"
)

// Pulse is what an owner says of a lane's partition, about four times a second.
type Pulse struct {
	Epoch    int64  // of its ownership; one of an older owner is passed over
	Owner    string // lanes of one owner share its calls
	Consumed int64  // requests below this offset were taken in
	InFlight int    // taken in and not done
	Running  int    // of those: begun
	Waiting  int    // of those: could begin, and find no free call
	Stalled  bool   // the provider is failing, and is left alone
	Released bool   // the owner has let go
	Old      bool   // it was there before anybody listened: who wrote it may be long gone
}

const (
	// Evidence of the rate fades over fade seconds, and no further than to enough
	// requests: slow models begin few.
	fade, enough = 15.0, 16.0
	// settled is how many seconds of it there must be.
	settled = 1.0
)

// queue is what is known of a lane of a partition.
//
// How fast it is worked off is known only while requests wait for a free call:
// what is measured otherwise is how fast they come. So the rate is how many were
// begun, by the time in which, from one pulse to the next, some waited.
type queue struct {
	start, end int64 // of the log
	pulse      Pulse
	pulsed     bool
	heardAt    time.Time // zero: not since we listen

	begins float64   // requests begun while others waited,
	over   float64   // in so many seconds
	since  time.Time // some have been waiting at every pulse since

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

// done is an offset that as many requests stand below as are done.
func (q *queue) done() int64 {
	if !q.pulsed {
		return q.start
	}
	return q.pulse.Consumed - int64(q.pulse.InFlight)
}

func (q *queue) outstanding() int64 { return max(0, q.end-q.done()) }

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
	was, anew, waited := q.begun(), !q.pulsed || p.Epoch > q.pulse.Epoch, q.pulse.Waiting > 0
	q.pulse, q.pulsed = p, true
	if p.Old {
		return
	}
	begun := q.begun() - was
	if anew || q.heardAt.IsZero() || !waited || p.Waiting == 0 {
		q.begins, q.over, q.since = 0, 0, now
	} else {
		q.measure(float64(max(begun, 0)), now.Sub(q.heardAt).Seconds())
	}
	q.heardAt = now
	if anew || begun > 0 || q.waiting() == 0 {
		q.progressAt = now
	}
}

// measure learns that n requests were begun in dt seconds, while others waited.
func (q *queue) measure(n, dt float64) {
	q.begins += n
	q.over += max(dt, 0)
	if q.begins > enough {
		f := max(math.Exp(-dt/fade), enough/q.begins)
		q.begins, q.over = q.begins*f, q.over*f
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

// rate is how many requests a second are begun, as of the newest pulse; 0 where
// that cannot be told. Calls that all began together end together: until then
// few of them did, and it is taken that all will, once they have been under way
// for twice as long.
func (q *queue) rate() float64 {
	if q.over < settled {
		return 0
	}
	return max(q.begins/q.over, float64(q.pulse.Running)/q.heardAt.Sub(q.since).Seconds())
}

// status is how it stands, but for what is decided of it.
func (q *queue) status(now time.Time) Status {
	s := Status{
		Owner: q.owner(now), Stalled: q.pulse.Stalled, Outstanding: q.outstanding(), Waiting: q.waiting(), Rate: q.rate(),
	}
	if s.Owner == Alive {
		s.Running = q.pulse.Running
	}
	if s.Waiting == 0 {
		return s
	}
	// Who came first has waited for so long already. Where nobody is there to
	// begin what waits, the rest waits beyond that.
	held, rest := now.Sub(q.progressAt).Seconds(), 0.0
	if s.Rate > 0 {
		rest = float64(s.Waiting) / s.Rate
	}
	if s.Owner == Alive {
		s.Wait = seconds(max(held, rest))
	} else {
		s.Wait = seconds(held + rest)
	}
	return s
}

// seconds makes a duration, however long.
func seconds(s float64) time.Duration {
	const most = 1e9 // thirty years, which a duration can hold
	return time.Duration(min(max(s, 0), most) * float64(time.Second))
}
