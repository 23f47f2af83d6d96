package kafka

import (
	"testing"
	"time"
)

func TestTheRestIsLongestWhereMostComes(t *testing.T) {
	at, f := time.Unix(1000, 0), flow{}
	for range 100 { // 10,000 a second
		at = at.Add(10 * time.Millisecond)
		f.add(100, at)
	}
	const longest = 20 * time.Millisecond
	for _, c := range []struct {
		busy     float64
		from, to time.Duration
	}{
		{0, longest, longest}, {5000, longest, longest}, {20_000, 8 * time.Millisecond, 12 * time.Millisecond}, {60_000, 0, 0},
	} {
		if got := rest(longest, f.rate, c.busy); got < c.from || got > c.to {
			t.Errorf("%v at %v records a second of %v, want %v to %v", got, f.rate, c.busy, c.from, c.to)
		}
	}
	if rate := f.add(0, at.Add(5*time.Second)); rate > 1 {
		t.Errorf("%v a second after a silence", rate)
	}
}
