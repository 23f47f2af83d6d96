package admission

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// anyPulse is what an owner may say of a log that ends there.
func anyPulse(t *rapid.T, end int64) Pulse {
	waiting := rapid.IntRange(0, 3_000).Draw(t, "waiting")
	running := rapid.IntRange(0, 200).Draw(t, "running")
	return Pulse{
		Epoch: rapid.Int64Range(1, 3).Draw(t, "epoch"), Owner: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "owner"),
		Consumed: end - rapid.Int64Range(0, 500).Draw(t, "unread"),
		Waiting:  waiting, Running: running, InFlight: waiting + running + rapid.IntRange(0, 100).Draw(t, "blocked"),
		Released: rapid.Float64Range(0, 1).Draw(t, "released") < .05,
	}
}

// TestWatermarks holds what is decided to the rules, whatever is seen.
func TestWatermarks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const partitions = 2
		cfg := Config{Lanes: budgets(), Partitions: partitions}
		now := time.Unix(1_700_000_000, 0)
		b, err := NewBoard(cfg, now)
		if err != nil {
			t.Fatal(err)
		}
		b.EndsKnown(now)
		b.PulsesRead(now)
		ends := make([]int64, 3*partitions)
		before := b.Assess(now)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 2_000).Draw(t, "ms")) * time.Millisecond)
			for i := range ends {
				at := LP{i / partitions, i % partitions}
				ends[i] += rapid.Int64Range(0, 2_000).Draw(t, "more")
				b.End(now, at, ends[i])
				if rapid.Bool().Draw(t, "pulse") {
					b.Pulse(now, at, anyPulse(t, ends[i]))
				}
			}
			b.EndsKnown(now)
			b.PulsesRead(now)
			v := b.Assess(now)
			for i := range ends {
				at := LP{i / partitions, i % partitions}
				holds(t, &cfg, at, before.Status(at), v.Status(at))
				monotone(t, v, at, ends[i])
			}
			before = v
		}
	})
}

// holds checks one LP from one view to the next.
func holds(t *rapid.T, cfg *Config, at LP, was, is Status) {
	limits := cfg.Lanes[at.Lane]
	wait := is.Wait.Seconds() / limits.Wait.Seconds()
	outstanding := float64(is.Outstanding) / float64(limits.Outstanding)
	says := fmt.Sprintf("%v was %+v, is %+v", at, was, is)
	const hair = 1e-9
	if wait >= high+hair && is.Reason != Wait || outstanding >= high+hair && is.Reason == Open {
		t.Fatalf("above the high watermark and open: %s", says)
	}
	if was.Reason == Open && is.Reason != Open && is.Reason != Yielding && wait < high-hair && outstanding < high-hair {
		t.Fatalf("closed below the high watermark: %s", says)
	}
	if was.Reason != Open && is.Reason == Open && (wait >= low+hair || outstanding >= low+hair) {
		t.Fatalf("opened above the low watermark: %s", says)
	}
	if is.Reason == Yielding && at.Lane == interactive {
		t.Fatalf("nothing is more urgent: %s", says)
	}
	if open := is.Reason == Open; open != (is.RetryAfter == 0) || !open && (is.RetryAfter < minRetry || is.RetryAfter > maxRetry) {
		t.Fatalf("told to come back in %s: %s", is.RetryAfter, says)
	}
	if is.Waiting == 0 && is.Wait != 0 || is.Wait < 0 || is.Outstanding < 0 {
		t.Fatalf("an estimate of nothing: %s", says)
	}
}

// monotone checks that what is refused is refused behind more requests as well.
func monotone(t *rapid.T, v *View, at LP, end int64) {
	refused, wait := false, time.Duration(0)
	for _, more := range []int64{0, 1, 10, 1_000, 30_000, 1_000_000} {
		d := v.Decide(at, end+more, 0, 0)
		if refused && d.Reason == Open || d.Wait < wait {
			t.Fatalf("%v behind %d more: %+v", at, more, d)
		}
		refused, wait = d.Reason != Open, d.Wait
	}
	if !refused {
		t.Fatalf("%v: a million more are let in", at)
	}
}

// TestUrgency: a lane sheds for its wait only where the less urgent lanes of its
// owner shed as well.
func TestUrgency(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		took := time.Duration(rapid.IntRange(50, 5_000).Draw(t, "ms")) * time.Millisecond
		slots := rapid.IntRange(1, 40).Draw(t, "slots")
		w := newWorldOf(2, slots, took)
		w.run(time.Second, nil)
		asks := [3]int{rapid.IntRange(0, 6).Draw(t, "interactive"), rapid.IntRange(0, 6).Draw(t, "standard"), rapid.IntRange(0, 6).Draw(t, "batch")}
		w.run(30*time.Second, func() {
			for lane, n := range asks {
				w.ask(LP{lane, 0}, n)
			}
			for lane := range 2 {
				if s := w.view.Status(LP{lane, 0}); s.Reason != Wait || s.Rate == 0 || s.Wait.Seconds() < low*budgets()[lane].Wait.Seconds() {
					continue // its number alone keeps it shut, or nothing is known
				}
				for less := lane + 1; less < 3; less++ {
					for p := range 2 {
						if s := w.view.Status(LP{less, p}); s.Reason == Open {
							t.Fatalf("lane %d sheds (%+v), and lane %d of partition %d does not: %+v", lane, w.view.Status(LP{lane, 0}), less, p, s)
						}
					}
				}
			}
		})
	})
}
