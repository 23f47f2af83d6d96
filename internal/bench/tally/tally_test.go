package tally

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestPercentilesOfDelays(t *testing.T) {
	t.Parallel()
	var d Delays
	if d.Percentile(.5) != 0 {
		t.Error("a figure came of nothing")
	}
	for i := range 100 {
		d.add(time.Duration(i) * time.Millisecond)
	}
	d.add(time.Hour)
	d.add(-time.Second) // clocks differ
	if p50, most := d.Percentile(.5), d.Percentile(1); p50 < 48*time.Millisecond || p50 > 52*time.Millisecond || most != 10*time.Second {
		t.Errorf("%v, %v", p50, most)
	}
}

// said is an event that was appended so long ago.
func said(seq int, ago time.Duration, kind, data string) string {
	return fmt.Sprintf(`{"type":"output.%s","v":1,"time":"%s","seq":%d,"data":{%s}}`, kind, time.Now().Add(-ago).UTC().Format(layout), seq, data)
}

func TestTokensAreCountedAndHowOldTheyAre(t *testing.T) {
	t.Parallel()
	var all Tally
	s := Stream{Gap: time.Second}
	take := func(events ...string) {
		t.Helper()
		if done, err := all.Take([]byte(strings.Join(events, ",")), &s); err != nil || done {
			t.Fatal(done, err)
		}
	}
	take(said(0, 10*time.Second, "started", ``), said(1, 9*time.Second, "delta", `"index":0,"content":"One"`))
	all.Counted.Store(true)
	// The second token was to be said 8 seconds ago.
	take(said(2, 4*time.Second, "delta", `"index":0,"content":" two \"three\".\n\nFour"`), said(3, 3*time.Second, "delta", `"index":0`))
	all.Counted.Store(false)
	take(said(4, 0, "delta", `"index":0,"content":" five six"`))
	if all.Events.Load() != 2 || all.Pieces.Load() != 1 || all.Tokens.Load() != 3 {
		t.Errorf("%d tokens in %d events in %d pieces", all.Tokens.Load(), all.Events.Load(), all.Pieces.Load())
	}
	for want, got := range map[time.Duration]time.Duration{4 * time.Second: all.Delays.Percentile(1), 8 * time.Second: all.Ages.Percentile(1)} {
		if got < want || got > want+time.Second {
			t.Errorf("the oldest is %v, want %v", got, want)
		}
	}
	if done, err := all.Take([]byte(said(5, 0, "completed", `"usage":{"completion_tokens":6}`)), &s); err != nil || !done {
		t.Errorf("at the end: %v, %v", done, err)
	}
	if _, err := all.Take([]byte(said(6, 0, "completed", `"usage":{"completion_tokens":7}`)), &s); err == nil {
		t.Error("a token is missing, and nobody says so")
	}
}
