package tally

import (
	"testing"
	"time"
)

func TestPercentilesOfDelays(t *testing.T) {
	t.Parallel()
	var s Tally
	if s.Percentile(.5) != 0 || s.Delivered() != 0 {
		t.Error("a figure came of nothing")
	}
	for i := range 100 {
		s.delay(time.Duration(i) * time.Millisecond)
	}
	s.delay(time.Hour)
	s.delay(-time.Second) // clocks differ
	if p50, most := s.Percentile(.5), s.Percentile(1); p50 < 48*time.Millisecond || p50 > 52*time.Millisecond || most != 10*time.Second {
		t.Errorf("%v, %v", p50, most)
	}
}
