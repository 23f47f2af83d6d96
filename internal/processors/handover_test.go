package processors

import (
	"context"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
)

// TestWhatStillRunsAtTheEndOfTheGracePeriodGoesOnElsewhere stops one of three in
// the midst of its calls. What was begun is not begun anew, and nobody waits for
// a lease or a session.
func TestWhatStillRunsAtTheEndOfTheGracePeriodGoesOnElsewhere(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	const grace = 500 * time.Millisecond
	a := w.start("one", func(c *Config) { c.Grace, c.SessionTimeout = grace, 50*time.Second })
	others := []*running{w.start("two", nil), w.start("three", nil)}
	for _, r := range append(others, a) {
		r.waitReady(t)
	}
	heard := w.listen()
	begun := time.Now()
	ids := w.endless(30)
	w.outputsUntil(func(o *told) bool { return o.NextSeq > 5 }, ids...)
	stopped := time.Now()
	a.end(t)
	t.Logf("it had left %v after its grace period", time.Since(stopped.Add(grace)))
	got := w.goOn(begun, ids)
	heard.end()
	for id, o := range got {
		if o.Attempt != 1 {
			t.Errorf("%s: attempt %d, %v", id, o.Attempt, o.all)
		}
	}
	gaps := heard.resumed("one", stopped.Add(grace))
	if len(gaps) == 0 {
		t.Fatal("no job was handed over")
	}
	t.Logf("%d jobs were handed over: first new event after %v at the median, %v at the most", len(gaps), gaps[len(gaps)/2], gaps[len(gaps)-1])
	if worst := gaps[len(gaps)-1]; worst > 40*time.Second {
		t.Errorf("%v: that is the session timeout", worst)
	}
}

// TestProcessorsComeAndGoWithoutAStallOrALeak has small windows, which pause and
// resume all the time, and partitions that move all the time.
func TestProcessorsComeAndGoWithoutAStallOrALeak(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	small := func(c *Config) {
		c.Grace = 200 * time.Millisecond
		c.Engine.MaxWindow, c.Engine.MaxInFlight = 6, 8
	}
	w.start("stays", small).waitReady(t)
	var ids []string
	more := func(n int) {
		for range n {
			ids = append(ids, w.request(event.Lanes()[len(ids)%3], "sim:tokens=10,ttft=0s,gap=5ms", ""))
		}
	}
	for _, owner := range []string{"first", "second", "third"} {
		more(40)
		r := w.start(owner, small)
		r.waitReady(t)
		more(40)
		r.end(t)
		if n := len(r.gates); n > 0 {
			t.Errorf("%s has left, and keeps %d gates", owner, n)
		}
	}
	more(20)
	for id, o := range w.outputs(ids...) {
		if o.End != event.OutputCompleted {
			t.Errorf("%s: %v", id, o.all)
		}
	}
	for id, f := range w.facts(ids...) {
		if f[0].Type != event.JobCompleted {
			t.Errorf("%s: %v", id, f)
		}
	}
	w.committed()
}

// TestAPeerThatStandsStillForAWhileLosesNothing freezes one for longer than its
// peers wait for its pulses, and thaws it.
func TestAPeerThatStandsStillForAWhileLosesNothing(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	l := newLink()
	t.Cleanup(l.kill)
	for _, r := range []*running{w.behind(l).start("one", nil), w.start("two", nil), w.start("three", nil)} {
		r.waitReady(t)
	}
	heard := w.listen()
	begun := time.Now()
	ids := w.endless(30)
	w.outputsUntil(func(o *told) bool { return o.NextSeq > 5 }, ids...)
	l.freeze()
	still, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	<-still.Done()
	l.thaw()
	got := w.goOn(begun, ids)
	heard.end()
	heard.resumed("one", time.Now())
	for id, o := range got {
		if o.Attempt != 1 {
			t.Errorf("%s: attempt %d, %v", id, o.Attempt, o.all)
		}
	}
	w.committed()
}
