package processors

import (
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/llm"
)

func TestSilenceIsCountedWhileTheModelIsWaitedFor(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	why := ""
	v := &vigil{
		now: func() time.Time { return now }, made: now, first: time.Minute, next: 10 * time.Second,
		cancel: func(cause error) { why = cause.Error() },
	}
	after := func(d time.Duration, want string) {
		t.Helper()
		now = now.Add(d)
		v.check(now)
		if !strings.Contains(why, want) || want == "" && why != "" {
			t.Fatalf("broken off for %q, want %q", why, want)
		}
		why = ""
	}
	after(time.Hour, "") // it has not begun
	v.listen()
	after(59*time.Second, "")
	v.heard(&llm.Chunk{}) // which says nothing, so it is no token
	v.listen()
	after(time.Second, "said nothing within 1m0s")
	v.heard(&llm.Chunk{Content: "a"})
	after(time.Hour, "") // a piece is being written
	v.listen()
	after(9*time.Second, "")
	v.heard(&llm.Chunk{}) // a sign of life
	v.listen()
	after(9*time.Second, "")
	after(time.Second, "fell silent for 10s")
	v.rest()
	after(time.Hour, "")
}

func TestWhoRestsTakesTheNextCall(t *testing.T) {
	ran := make(chan *call)
	w := newWorkers(func(c *call) { ran <- c })
	for range 3 * maxResting { // of one goroutine, or as many more as did not rest in time
		c := &call{}
		w.take(c)
		if <-ran != c {
			t.Fatal("another call ran")
		}
	}
	for range 2 * maxResting { // at once: none waits for another
		w.take(&call{})
	}
	for range 2 * maxResting {
		<-ran
	}
	w.end()
}
