package engine

import (
	"time"

	"github.com/penstock-io/penstock/internal/event"
)

// rest has a call that failed before it said anything wait for its next try.
// Its slot is free meanwhile, and its key blocked.
func (e *Engine) rest(en *entry, in *Ended) {
	l := en.lane
	en.started = false
	l.started--
	en.retry = in.Retry
	h := en.Head
	h.Type, h.V, h.Time, h.Attempt, h.Lane = event.JobRetrying, event.Version, in.At, in.Attempt, l.Lane
	e.do(AppendFact{LP: l.LP, Gen: l.gen, Offset: -1, Head: h, Data: in.Retry.Fact})
	if en.cancelled { // as it failed
		e.endings = append(e.endings, en)
		return
	}
	l.resting = append(l.resting, en)
}

// awake makes those runnable whose wait is over.
func (e *Engine) awake(now time.Time, l *lane) {
	if len(l.resting) == 0 {
		return
	}
	left := l.resting[:0]
	for _, en := range l.resting {
		switch {
		case en.cancelled: // it is ended without another try
		case now.Before(en.retry.At):
			left = append(left, en)
		default:
			e.runnable(en)
		}
	}
	clear(l.resting[len(left):])
	l.resting = left
}

// Backoff says how long a call that failed waits for its next try.
type Backoff struct {
	Tries int           // at most, the first included
	Base  time.Duration // before the second try at most; doubles with each
	Cap   time.Duration // the longest wait, also where a provider asks for a longer one
}

// Wait tells how long to wait after try number try, counted from 1, has failed:
// exponential, with full jitter, and at least as long as the provider asked for.
// ok is false where there is to be no other try: enough were made, or the
// provider asks for longer than Cap. random is drawn from [0, 1).
//
// Full jitter is that of "Exponential Backoff And Jitter" (AWS Architecture
// Blog, 2015). What a provider asks for is a least: the jitter is put on top of
// it, so that those who were refused together do not come back together.
func (b Backoff) Wait(try int, asked time.Duration, random float64) (wait time.Duration, ok bool) {
	if try >= b.Tries || asked > b.Cap {
		return 0, false
	}
	window := b.Cap
	const doublings = 30 // and no overflow
	if n := max(try, 1) - 1; n < doublings && b.Base<<n>>n == b.Base {
		window = min(window, b.Base<<n)
	}
	return min(asked+time.Duration(random*float64(window)), b.Cap), true
}
