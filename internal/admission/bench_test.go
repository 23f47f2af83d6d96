package admission

import (
	"testing"
	"time"
)

// overloaded is a view in which every lane of every partition is busy.
func overloaded(tb testing.TB) *world {
	tb.Helper()
	w := newWorld(tb, 12, 300, time.Second)
	w.run(5*time.Second, func() {
		for _, at := range w.order {
			w.ask(at, 1)
		}
	})
	return w
}

func TestDecidingAllocatesNothing(t *testing.T) {
	w := overloaded(t)
	end := w.lps[LP{1, 3}].end
	if n := testing.AllocsPerRun(1000, func() {
		for _, at := range w.order {
			_ = w.view.Decide(at, end, 10, time.Second)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	w := overloaded(b)
	at := LP{standard, 3}
	end := w.lps[at].end
	b.ReportAllocs()
	for b.Loop() {
		_ = w.view.Decide(at, end, 10, 0)
	}
}

func BenchmarkAssess(b *testing.B) {
	w := overloaded(b)
	b.ReportAllocs()
	for b.Loop() {
		w.board.Assess(w.now)
	}
}
