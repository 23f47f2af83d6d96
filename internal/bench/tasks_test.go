package bench

import (
	"testing"
	"time"
)

func TestTheMiddleOfARunLeavesItsBeginningAndItsTailOut(t *testing.T) {
	const ms = time.Millisecond
	seen := []progress{{0, 2000}, {900 * ms, 2090}, {1000 * ms, 2100}, {2000 * ms, 2500}, {3000 * ms, 2900}, {9000 * ms, 3000}}
	if got := middle(seen, 1000); got != 400 {
		t.Errorf("%v tasks a second", got)
	}
	if got := middle(seen, 500); got != 200 { // two facts a task
		t.Errorf("%v tasks a second", got)
	}
	if got := middle([]progress{{0, 0}, {time.Second, 1000}}, 1000); got != 0 {
		t.Errorf("%v tasks a second, of a run without a middle", got)
	}
	if got := middle([]progress{{0, 7}}, 1000); got != 0 {
		t.Errorf("%v tasks a second, of nothing", got)
	}
}

func TestThisProcesssCPUIsTold(t *testing.T) {
	before := cpu()
	for began := time.Now(); cpu() == before; {
		if time.Since(began) > time.Minute {
			t.Fatal("a minute of work cost nothing")
		}
	}
}
