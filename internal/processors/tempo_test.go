package processors

import (
	"testing"
	"time"
)

func TestAProcessIsBusyWhereItsCallsSayMuch(t *testing.T) {
	var tempo tempo
	now := time.Unix(1000, 0)
	say := func(perSecond int) (busy bool) {
		for range perSecond {
			now = now.Add(time.Second / time.Duration(perSecond))
			busy = tempo.note(now)
		}
		return busy
	}
	if say(busyDeltas/2) || !say(busyDeltas*2) || say(50) {
		t.Error("it is busy at half of what makes it so, or not at twice as much, or for ever")
	}
	if (coalesce{}).tempo.note(now) {
		t.Error("what has no tempo is busy")
	}
}
