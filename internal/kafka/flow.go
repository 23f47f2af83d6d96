package kafka

import (
	"math"
	"time"
)

// flow estimates how many records a second go by, over the last flowSpan or so.
// It has one user at a time.
type flow struct {
	rate float64 // a second, at the time at
	at   time.Time
}

const flowSpan = 100 * time.Millisecond

// add takes note of records at a time, and returns the rate with them.
func (f *flow) add(n int, now time.Time) float64 {
	f.rate = f.rate*math.Exp(-now.Sub(f.at).Seconds()/flowSpan.Seconds()) + float64(n)/flowSpan.Seconds()
	f.at = now
	return f.rate
}

// rest is how long to gather records at a rate: longest where there are busy a
// second or more, less with fewer, and not at all below a quarter of that, where
// there would be little to gather.
func rest(longest time.Duration, rate, busy float64) time.Duration {
	const least = 0.25
	share := 1.0
	if busy > 0 {
		share = min(rate/busy, 1)
	}
	if share < least {
		return 0
	}
	return time.Duration(share * float64(longest))
}
