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

// Pair is one trip's sample beside the bare one's.
type Pair struct {
	Ours, Bare Sample
}

// Ratio is ours over the bare one, at a percentile.
func (p *Pair) Ratio(at float64) float64 {
	bare := p.Bare.Percentile(at)
	if bare == 0 {
		return 0
	}
	return float64(p.Ours.Percentile(at)) / float64(bare)
}

// Options say how much is measured.
type Options struct {
	Concurrency []int // trips at a time; each is measured by itself
	Trips       int   // of each kind, at each concurrency, at least
	Rounds      int   // the two kinds take turns so often
}

// Compare makes trips of both kinds by turns, so that what else the machine does
// falls on both.
func Compare(ctx context.Context, ours, bare Trip, opt Options, tell func(*Pair)) ([]Pair, error) {
	if opt.Rounds < 1 || opt.Trips < opt.Rounds || len(opt.Concurrency) == 0 {
		return nil, errors.New("bench: at least one round, a trip a round and one concurrency are needed")
	}
	var counter atomic.Int64
	warm := min(opt.Trips, 200)
	for _, trip := range []Trip{bare, ours} {
		if _, err := run(ctx, trip, min(warm, 16), warm, &counter); err != nil {
			return nil, fmt.Errorf("bench: warming up: %w", err)
		}
	}
	pairs := make([]Pair, 0, len(opt.Concurrency))
	for _, c := range opt.Concurrency {
		pair := Pair{Ours: Sample{Concurrency: c}, Bare: Sample{Concurrency: c}}
		total := max(opt.Trips/opt.Rounds, c) // everyone has one to make
		for range opt.Rounds {
			for _, kind := range []struct {
				trip Trip
				into *Sample
			}{{bare, &pair.Bare}, {ours, &pair.Ours}} {
				s, err := run(ctx, kind.trip, c, total, &counter)
				if err != nil {
					return nil, fmt.Errorf("bench: at %d at a time: %w", c, err)
				}
				kind.into.add(s)
			}
		}
		tell(&pair)
		pairs = append(pairs, pair)
	}
	return pairs, nil
}
