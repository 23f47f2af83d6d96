// Package admission decides whether one more request is let in. It estimates,
// for every lane of every partition, how long a request would wait there before
// it is begun, and holds that to a budget.
//
// What it promises. As long as there are calls to be had, nothing is refused for
// its wait, however slow the models are and however little is known: an idle
// system sheds nothing. Where requests wait for a call, a lane's partition sheds
// from 0.8 of its budget until it is below 0.5, and less urgent lanes of the same
// owner shed before more urgent ones. What is outstanding is bounded in number
// too, for where no rate can be measured, since nobody works.
//
// The package is pure: it has no goroutine, no lock and no clock. A Board has
// one caller, who tells it what was seen and asks it for a View. A View is never
// changed once made and may be asked from many goroutines; asking it takes
// nanoseconds and allocates nothing.
package admission

import (
	"fmt"
	"time"
)

const (
	// high and low are the watermarks, in parts of a budget.
	high, low = 0.8, 0.5
	// earlier is how much sooner a lane sheds for each step that a lane in
	// trouble, of the same owner, is more urgent than it.
	earlier = 0.1
	// silence is how old an owner's newest pulse may be: six are missed by then.
	silence = 1500 * time.Millisecond
	// staleAfter is how long a signal may be missing before nothing is known.
	staleAfter = 3 * time.Second
	// minLocal is what a process lets in by itself while the signal is stale, in
	// jobs a second of a lane, if it did not let in more before.
	minLocal = 10.0
	// A client is told to come back after a time from the estimate, between
	// these; where there is no estimate, after unknownRetry.
	minRetry, maxRetry, unknownRetry = time.Second, time.Minute, 5 * time.Second
)

// Limits are a lane's budgets, for each of its partitions.
type Limits struct {
	Wait        time.Duration // how long a request may have to wait before it is begun
	Outstanding int64         // requests that are let in and not done
}

// Config says what is decided about.
type Config struct {
	Lanes      []Limits // most urgent first
	Partitions int      // of every lane
}

func (c *Config) validate() error {
	if len(c.Lanes) == 0 || c.Partitions < 1 {
		return fmt.Errorf("admission: %d lanes of %d partitions: there must be one of each at least", len(c.Lanes), c.Partitions)
	}
	for i, l := range c.Lanes {
		if l.Wait <= 0 || l.Outstanding < 1 {
			return fmt.Errorf("admission: lane %d: a budget must be above zero: it is %s, and %d requests", i, l.Wait, l.Outstanding)
		}
	}
	return nil
}

// LP names a lane of a partition, by the lane's place in Config.Lanes.
type LP struct{ Lane, Partition int }

// Reason is why a request is not let in.
type Reason uint32

// The reasons.
const (
	Open        Reason = iota // it is let in
	Wait                      // the wait is above its watermark
	Outstanding               // too much is let in and not done
	Yielding                  // a more urgent lane of the same owner needs the calls
	Stale                     // how much there is to do is not known at present
	Deadline                  // it would not be begun before its deadline
)

// String names the reason, for metrics and GET /v1/load.
func (r Reason) String() string {
	return [...]string{"open", "wait", "outstanding", "yielding", "stale", "deadline"}[r]
}

// Decision is what becomes of one request.
type Decision struct {
	Reason     Reason        // Open: it is let in
	Wait       time.Duration // the estimate, for a request that comes now
	RetryAfter time.Duration // 0 where it is let in, or will never be
}

// Owner tells whether somebody works on a lane's partition.
type Owner uint8

// What is known of an owner.
const (
	Nobody Owner = iota // none was ever seen, or the last one has let go
	Silent              // it has not been heard of for a while
	Alive
)

// String names it, for GET /v1/load.
func (o Owner) String() string { return [...]string{"none", "silent", "alive"}[o] }

// Status is how a lane of a partition stands.
type Status struct {
	Reason      Reason        // why requests are refused; Open where they are not
	Owner       Owner         // who works on it
	Stalled     bool          // the owner leaves the provider alone, which is failing
	Wait        time.Duration // the estimate
	RetryAfter  time.Duration // what who is refused is told; 0 where it is open
	Outstanding int64         // requests that are let in and not done
	Waiting     int64         // of those, what waits for a call and for nothing else
	Running     int           // calls under way
	Rate        float64       // jobs a second; 0 where it cannot be told
}
