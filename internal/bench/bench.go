// Package bench measures a running deployment, beside the bare Kafka cost of the
// same trip in the same run. Its figures are ratios within one run: the machine
// is the same for both.
package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Trip is one measured round; n is unique among all of a run.
type Trip func(ctx context.Context, n int) (time.Duration, error)

// Sample is what a number of trips took.
type Sample struct {
	Concurrency int
	Times       []time.Duration // sorted
	Elapsed     time.Duration   // for all of them
}

// Percentile returns the time below which p (0 to 1) of the trips stayed.
func (s *Sample) Percentile(p float64) time.Duration {
	if len(s.Times) == 0 {
		return 0
	}
	return s.Times[int(float64(len(s.Times)-1)*p)]
}

// PerSecond is how many trips a second were made.
func (s *Sample) PerSecond() float64 {
	if s.Elapsed == 0 {
		return 0
	}
	return float64(len(s.Times)) / s.Elapsed.Seconds()
}

// add joins what another round of the same trips took.
func (s *Sample) add(o Sample) {
	s.Times = append(s.Times, o.Times...)
	slices.Sort(s.Times)
	s.Elapsed += o.Elapsed
}

// run makes total trips, so many at a time. It ends at the first error.
func run(ctx context.Context, trip Trip, concurrency, total int, counter *atomic.Int64) (Sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		mu    sync.Mutex
		times = make([]time.Duration, 0, total)
		left  atomic.Int64
		wg    sync.WaitGroup
	)
	left.Store(int64(total))
	begun := time.Now()
	for range concurrency {
		wg.Go(func() {
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				d, err := trip(ctx, int(counter.Add(1)))
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				times = append(times, d)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Sample{}, err
	}
	slices.Sort(times)
	return Sample{Concurrency: concurrency, Times: times, Elapsed: time.Since(begun)}, nil
}

// Ratio is what a sample took over what a bare one did, at a percentile; 0 where
// that is not known.
func Ratio(ours, bare *Sample, at float64) float64 {
	took := bare.Percentile(at)
	if took == 0 {
		return 0
	}
	return float64(ours.Percentile(at)) / float64(took)
}

// Options say how much is measured.
type Options struct {
	Concurrency []int // trips at a time; each is measured by itself
	Trips       int   // of each contender, at each concurrency, at least
	Rounds      int   // the contenders take turns so often
}

// Contender is a trip with a name.
type Contender struct {
	Name string
	Trip Trip
}

// Turns makes the trips of all contenders by turns, at each concurrency, so that
// what else the machine does falls on all of them. The samples are in the order of
// the contenders.
func Turns(ctx context.Context, all []Contender, opt Options, tell func(concurrency int, samples []Sample)) error {
	if opt.Rounds < 1 || opt.Trips < opt.Rounds {
		return errors.New("bench: at least one round and a trip a round are needed")
	}
	var counter atomic.Int64
	for _, c := range all {
		if _, err := run(ctx, c.Trip, min(opt.Trips, 16), min(opt.Trips, 200), &counter); err != nil {
			return fmt.Errorf("bench: warming up %s: %w", c.Name, err)
		}
	}
	for _, concurrency := range opt.Concurrency {
		samples := make([]Sample, len(all))
		for range opt.Rounds {
			for i, c := range all {
				s, err := run(ctx, c.Trip, concurrency, max(opt.Trips/opt.Rounds, concurrency), &counter)
				if err != nil {
					return fmt.Errorf("bench: %s at %d at a time: %w", c.Name, concurrency, err)
				}
				samples[i].Concurrency = concurrency
				samples[i].add(s)
			}
		}
		tell(concurrency, samples)
	}
	return nil
}
