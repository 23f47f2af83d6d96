package tally

import (
	"fmt"
	"strings"
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

func TestTokensAreCountedByTheirPartOfTheText(t *testing.T) {
	t.Parallel()
	event := func(seq int, kind, data string) string {
		return fmt.Sprintf(`{"type":"output.%s","v":1,"time":"2026-01-02T03:04:05.678Z","seq":%d,"data":{%s}}`, kind, seq, data)
	}
	var s Tally
	take := func(seq int64, events ...string) int64 {
		next, _, err := s.Take([]byte(strings.Join(events, ",")), seq)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	seq := take(0, event(0, "delta", `"index":0,"content":"four"`))
	s.Counted.Store(true)
	seq = take(seq, event(1, "delta", `"index":0,"content":"a \"b\" c"`), event(2, "delta", `"index":0`))
	s.Counted.Store(false)
	take(seq, event(3, "delta", `"index":0,"content":"seventeen letters"`), event(4, "completed", `"usage":{"completion_tokens":60}`))
	if s.Events.Load() != 2 || s.All.Load() != 4 || s.Text.Load() != 9 || s.AllText.Load() != 30 || s.Delivered() != 18 {
		t.Errorf("%d of %d events, %d of %d bytes, so %g tokens", s.Events.Load(), s.All.Load(), s.Text.Load(), s.AllText.Load(), s.Delivered())
	}
}
