package processors

import (
	"testing"
	"time"
)

// tempoOf has n calls that say a piece every 20 ms write as the tempo has them, for some
// seconds, and tells how many events a second they wrote in the last one, and how long
// they gathered then.
func tempoOf(t *tempo, now *time.Time, n int) (events int, gather time.Duration) {
	const base, gap, step = 10 * time.Millisecond, 20 * time.Millisecond, time.Millisecond
	wrote := make([]time.Time, n)
	for i := range wrote {
		wrote[i] = now.Add(time.Duration(i) * gap / time.Duration(n))
	}
	end := now.Add(6 * time.Second)
	for ; now.Before(end); *now = now.Add(step) {
		gather = t.gather(base, *now)
		for i := range wrote {
			if now.Sub(wrote[i]) >= max(gather, gap) {
				wrote[i] = *now
				t.wrote()
				if end.Sub(*now) <= time.Second {
					events++
				}
			}
		}
	}
	return events, gather
}

func TestAProcessWritesSoManyEventsOfTextAndGathersTheRest(t *testing.T) {
	now := time.Unix(1000, 0)
	tempo := &tempo{limit: 10_000, began: now}
	for _, c := range []struct {
		calls    int
		from, to int // events a second
		gather   time.Duration
	}{
		{calls: 100, from: 4500, to: 5100, gather: 10 * time.Millisecond},
		{calls: 2000, from: 12_000, to: 13_000, gather: 160 * time.Millisecond}, // the longest
		{calls: 400, from: 9000, to: 11_000, gather: 40 * time.Millisecond},
		{calls: 100, from: 4500, to: 5100, gather: 10 * time.Millisecond},
	} {
		events, gather := tempoOf(tempo, &now, c.calls)
		if events < c.from || events > c.to || gather < c.gather*9/10 || gather > c.gather*11/10 {
			t.Errorf("%d calls wrote %d events a second, %s apart; want %d to %d, %s", c.calls, events, gather, c.from, c.to, c.gather)
		}
	}
	now = now.Add(time.Hour)
	tempo.wrote()
	if got := tempo.gather(10*time.Millisecond, now); got != 10*time.Millisecond {
		t.Errorf("after an hour of silence it is %s", got)
	}
}

func TestWhatHasNoTempoGathersAsItIsTold(t *testing.T) {
	var none *tempo
	none.wrote()
	if got := none.gather(time.Second, time.Unix(1000, 0)); got != time.Second {
		t.Errorf("it is %s", got)
	}
}

func TestTheTempoIsOfAllCallsThoughTheyLookAtTheClockAtDifferentTimes(t *testing.T) {
	now := time.Unix(1000, 0)
	tempo := &tempo{limit: 10_000, began: now}
	for range 200 {
		now = now.Add(50 * time.Millisecond)
		for range 1000 { // 20,000 a second
			tempo.wrote()
			_ = tempo.gather(10*time.Millisecond, now)
			_ = tempo.gather(10*time.Millisecond, now.Add(-time.Millisecond)) // it looked, and waited for a core
		}
	}
	if got := tempo.gather(10*time.Millisecond, now); got != 160*time.Millisecond {
		t.Errorf("twice as many as there may be, and they gather for %s", got)
	}
}
