package admission

import (
	"testing"
	"time"
)

func TestAnIdleSystemShedsNothingHoweverSlowItsModelsAre(t *testing.T) {
	for _, took := range []time.Duration{100 * time.Millisecond, 5 * time.Second, 2 * time.Minute} {
		w := newWorld(t, 2, 400, took)
		at := LP{interactive, 1}
		w.run(time.Minute, nil) // nothing at all
		n := 0
		w.run(15*time.Minute, func() {
			if n++; n%100 == 0 { // one in 2.5 s
				w.ask(at, 1)
			}
		})
		w.ask(at, 200) // and many at once, of which each finds a call
		w.run(10*time.Second, nil)
		w.ask(at, 20)
		if n := w.refusals(at); n > 0 {
			t.Errorf("jobs of %s: %d were refused: %v", took, n, w.lps[at].last)
		}
	}
}

func TestTheFirstRequestsEverAreLetIn(t *testing.T) {
	w := newWorld(t, 1, 50, 500*time.Millisecond)
	at := LP{interactive, 0}
	w.ask(at, 800) // eight seconds of work
	w.run(20*time.Second, nil)
	if n := w.refusals(at); n > 0 || len(w.lps[at].waits) != 800 {
		t.Errorf("%d were refused, %d begun", n, len(w.lps[at].waits))
	}
}

// Many calls that began together end together: that none has ended yet says
// nothing about how long what waits behind them will wait.
func TestCallsThatBeganTogetherAreNotHeldForStuck(t *testing.T) {
	w := newWorld(t, 1, 100, 12*time.Second)
	at := LP{standard, 0}
	w.run(time.Second, nil)
	w.ask(at, 100)
	worst := time.Duration(0)
	w.run(2*time.Minute, func() {
		if len(w.lps[at].arrived) < 100 {
			w.ask(at, 1)
		}
		worst = max(worst, w.view.Status(at).Wait)
	})
	if n := w.refusals(at); n > 0 {
		t.Errorf("%d were refused; the longest estimate was %s", n, worst)
	}
}

func TestUnderTooMuchWorkWhatIsLetInIsBegunWithinTheBudgetAndNoCallIsIdle(t *testing.T) {
	for name, took := range map[string]time.Duration{"quick": 200 * time.Millisecond, "usual": 4 * time.Second, "slow": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			const slots = 40
			capacity := slots / took.Seconds()
			w := newWorld(t, 1, slots, took)
			at := LP{standard, 0}
			w.run(time.Second, nil)
			owed, idle, steps := 0.0, 0, 0
			w.run(30*time.Minute, func() {
				owed += 3 * capacity * step.Seconds()
				w.ask(at, int(owed))
				owed -= float64(int(owed))
				if steps++; w.now.Sub(time.Unix(1_700_000_000, 0)) > time.Minute && w.running < slots {
					idle++
				}
			})
			budget := budgets()[standard].Wait
			if got := w.longest(at, 0); got > budget+budget/10 {
				t.Errorf("a request waited %s, and %s is the budget", got, budget)
			}
			if idle > steps/100 {
				t.Errorf("in %d of %d steps a call was idle", idle, steps)
			}
			if l := w.lps[at]; l.refused[Wait] == 0 || l.last.RetryAfter < minRetry || l.last.RetryAfter > maxRetry {
				t.Errorf("refused: %v, last %+v", l.refused, l.last)
			}
		})
	}
}

func TestAPartitionOpensAgainByItselfOnceItIsWorkedOff(t *testing.T) {
	w := newWorld(t, 1, 10, time.Second)
	at := LP{interactive, 0}
	w.run(time.Second, nil)
	w.run(20*time.Second, func() { w.ask(at, 1) })
	if w.view.Status(at).Reason != Wait {
		t.Fatalf("after twenty seconds of four times too much: %+v", w.view.Status(at))
	}
	after := w.view.Status(at).RetryAfter
	w.run(after+2*time.Second, nil)
	if s := w.view.Status(at); s.Reason != Open || s.RetryAfter != 0 {
		t.Errorf("two seconds after the time that it told, %s: %+v", after, s)
	}
}

func TestOneDeadOwnerDoesNotHideBehindElevenHealthyOnes(t *testing.T) {
	w := newWorld(t, 12, 1200, time.Second)
	gone := LP{interactive, 3}
	flow := func() {
		for p := range 12 {
			if (w.now.UnixMilli()/25+int64(p))%4 == 0 { // ten a second each
				w.ask(LP{interactive, p}, 1)
			}
		}
	}
	w.run(10*time.Second, flow)
	w.dead[gone] = true
	w.run(6*time.Second, flow)
	if n := w.refusals(gone); n > 0 {
		t.Errorf("%d were refused before a takeover had its time", n)
	}
	w.run(14*time.Second, flow)
	s := w.view.Status(gone)
	if s.Owner != Silent || s.Reason != Wait || s.Outstanding < 50 || w.refusals(gone) == 0 {
		t.Errorf("twenty seconds after its owner died: %+v, %d refused", s, w.refusals(gone))
	}
	for p := range 12 {
		if at := (LP{interactive, p}); at != gone && (w.refusals(at) > 0 || w.view.Status(at).Reason != Open) {
			t.Errorf("%v sheds too: %+v", at, w.view.Status(at))
		}
	}
	w.dead[gone] = false
	w.run(3*time.Second, flow)
	if s := w.view.Status(gone); s.Reason != Open || s.Owner != Alive {
		t.Errorf("after a takeover: %+v", s)
	}
}

func TestWhereNobodyWorksSomethingIsLetInAndNotForEver(t *testing.T) {
	w := newWorld(t, 1, 0, time.Second)
	for lane := range 3 {
		w.dead[LP{lane, 0}] = true
	}
	w.run(time.Hour, nil) // idle, whatever the time
	at := LP{standard, 0}
	w.ask(at, 50_000)
	l := w.lps[at]
	if l.end != 16_000 || l.refused[Outstanding] != 34_000 {
		t.Fatalf("%d were let in, of 20,000 at most: %v", l.end, l.refused)
	}
	if l.last.RetryAfter != unknownRetry {
		t.Errorf("told to come back in %s", l.last.RetryAfter)
	}
	few := LP{interactive, 0}
	w.ask(few, 3)
	w.run(20*time.Second, nil)
	if s := w.view.Status(few); s.Reason != Wait || s.Owner != Nobody || s.Wait < 19*time.Second {
		t.Errorf("three that nobody begins, after twenty seconds: %+v", s)
	}
	// An owner comes.
	for lane := range 3 {
		delete(w.dead, LP{lane, 0})
	}
	w.slots = 1000
	w.run(time.Minute, nil)
	for lane := range 3 {
		if s := w.view.Status(LP{lane, 0}); s.Reason != Open || s.Outstanding != 0 {
			t.Errorf("lane %d once there is an owner: %+v", lane, s)
		}
	}
}

func TestLessUrgentLanesOfTheSameOwnerShedFirst(t *testing.T) {
	w := newWorld(t, 2, 20, time.Second)
	w.run(time.Second, nil)
	first := map[int]time.Duration{}
	began := w.now
	w.run(2*time.Minute, func() {
		if w.now.UnixMilli()%50 == 0 { // 40 a second for 20 calls
			w.ask(LP{interactive, 0}, 2)
		}
		for lane := range 3 {
			if _, ok := first[lane]; !ok && w.view.Status(LP{lane, 0}).Reason != Open {
				first[lane] = w.now.Sub(began)
			}
		}
	})
	if len(first) != 3 || first[batch] >= first[standard] || first[standard] >= first[interactive] {
		t.Errorf("they shed after %v", first)
	}
	if s := w.view.Status(LP{batch, 1}); s.Reason != Yielding { // its calls are the same
		t.Errorf("another partition of the owner: %+v", s)
	}
	w.run(time.Minute, nil)
	for lane := range 3 {
		if s := w.view.Status(LP{lane, 1}); s.Reason != Open {
			t.Errorf("lane %d when all is done: %+v", lane, s)
		}
	}
}

func TestAStaleSignalClosesBatchAndLetsInOfTheRestWhatItDidBefore(t *testing.T) {
	w := newWorld(t, 1, 1000, 10*time.Millisecond)
	flow := func() { // 40 a second of each
		for lane := range 3 {
			w.ask(LP{lane, 0}, 1)
		}
	}
	w.run(time.Minute, flow)
	w.signal = false
	w.run(3*time.Second, flow)
	if w.view.Stale || w.refusals(LP{batch, 0}) > 0 {
		t.Fatal("stale within three seconds")
	}
	w.run(500*time.Millisecond, nil)
	before := w.accepted
	w.run(10*time.Second, func() {
		for range 5 {
			flow()
		}
	})
	if !w.view.Stale || w.accepted[batch] != before[batch] || w.lps[LP{batch, 0}].last.Reason != Stale {
		t.Errorf("stale: %v, %d of batch were let in", w.view.Stale, w.accepted[batch]-before[batch])
	}
	for _, lane := range []int{interactive, standard} {
		if n := w.accepted[lane] - before[lane]; n < 380 || n > 480 {
			t.Errorf("lane %d: %d were let in within ten seconds, at 40 a second before", lane, n)
		}
	}
	w.signal = true
	w.run(time.Second, nil)
	before = w.accepted
	w.run(time.Second, flow)
	if w.accepted[batch] != before[batch]+40 {
		t.Errorf("batch when the signal is back: %d of 40", w.accepted[batch]-before[batch])
	}
}

func TestALoneProcessLetsInBeforeItKnowsAnything(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	b, err := NewBoard(Config{Lanes: budgets(), Partitions: 1}, now)
	if err != nil {
		t.Fatal(err)
	}
	open := func(when string) {
		t.Helper()
		for lane := range 3 {
			if d := b.Assess(now).Decide(LP{lane, 0}, 5_000_000, 0, time.Minute); d.Reason != Open {
				t.Errorf("%s: lane %d: %+v", when, lane, d)
			}
		}
	}
	open("at first")
	for lane := range 3 { // a log of days, and no pulse was read yet
		b.Start(LP{lane, 0}, 1_000_000)
		b.End(now, LP{lane, 0}, 5_000_000)
	}
	b.EndsKnown(now)
	open("with the ends alone")
	for lane := range 3 {
		b.Pulse(now, LP{lane, 0}, Pulse{Epoch: 9, Consumed: 5_000_000, Old: true})
	}
	b.PulsesRead(now)
	open("with the last words of a dead owner")
	now = now.Add(staleAfter)
	b.Accepted(now, 0, 0)
	open("just before it is stale")
	now = now.Add(time.Second)
	for lane := range 3 {
		b.Accepted(now, lane, 0)
	}
	if d := b.Assess(now).Decide(LP{standard, 0}, 5_000_000, 0, 0); d.Reason != Open {
		t.Errorf("stale from the start: %+v: ten a second are let in", d)
	}
}

func TestADeadlineThatCannotBeMetIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t, 1, 10, time.Second)
	at := LP{standard, 0}
	w.run(time.Second, nil)
	w.ask(at, 210)
	w.run(3*time.Second, nil)
	v, end := w.view, w.lps[at].end
	d := v.Decide(at, end, 0, 0)
	if d.Reason != Open || d.Wait < 15*time.Second || d.Wait > 27*time.Second {
		t.Fatalf("180 before ten calls of a second: %+v", d)
	}
	for left, want := range map[time.Duration]Reason{d.Wait - 1: Deadline, d.Wait: Open, 1: Deadline, time.Hour: Open} {
		if got := v.Decide(at, end, 0, left); got.Reason != want || got.RetryAfter != 0 {
			t.Errorf("with %s left: %+v, want %s", left, got, want)
		}
	}
	if later := v.Decide(at, end+100, 0, 0); later.Wait <= d.Wait {
		t.Errorf("behind a hundred more: %s, and before %s", later.Wait, d.Wait)
	}
}

// The step-count argument for how soon a crossing is noticed: no step. Between
// two views the first request that finds the end beyond the watermark is refused.
func TestTheFirstRequestBeyondTheWatermarkIsRefusedWithoutAnotherView(t *testing.T) {
	w := newWorld(t, 1, 10, time.Second)
	at := LP{interactive, 0}
	w.run(time.Second, nil)
	w.ask(at, 60)
	w.run(4*time.Second, nil) // ten run, and some wait: the rate is known
	v := w.view
	if s := v.Status(at); s.Reason != Open || s.Rate < 7 || s.Rate > 12 {
		t.Fatalf("%+v", s)
	}
	let := 0
	for end := w.lps[at].end; ; end++ {
		d := v.Decide(at, end, 0, 0)
		if d.Reason == Open {
			let++
			continue
		}
		if d.Reason != Wait || d.Wait < 11*time.Second || d.Wait > 13*time.Second || d.RetryAfter < 4*time.Second || d.RetryAfter > 6*time.Second {
			t.Errorf("refused behind %d more: %+v, want at 12 s, until 7.5 s", let, d)
		}
		break
	}
}

func TestAConversationsOwnQueueIsNoReasonToRefuseOthers(t *testing.T) {
	w := newWorld(t, 1, 10, time.Second)
	at := LP{interactive, 0}
	for range 400 { // 100 s
		w.now = w.now.Add(250 * time.Millisecond)
		w.board.Pulse(w.now, at, Pulse{Epoch: 1, Owner: "o", Consumed: 500, InFlight: 300, Running: 1})
		w.lps[at].end = 500
		w.assess()
	}
	if s := w.view.Status(at); s.Reason != Open || s.Wait != 0 || s.Outstanding != 300 {
		t.Errorf("299 of one conversation wait for each other: %+v", s)
	}
}

func TestAnOlderOwnersPulsesArePassedOver(t *testing.T) {
	w := newWorld(t, 1, 10, time.Second)
	at := LP{batch, 0}
	w.board.Pulse(w.now, at, Pulse{Epoch: 2, Consumed: 10})
	w.board.Pulse(w.now, at, Pulse{Epoch: 1, Consumed: 5, Released: true})
	w.board.Pulse(w.now, LP{3, 0}, Pulse{Epoch: 2})
	w.board.Pulse(w.now, LP{0, 1}, Pulse{Epoch: 2})
	w.lps[at].end = 12
	w.assess()
	if s := w.view.Status(at); s.Owner != Alive || s.Outstanding != 2 {
		t.Errorf("%+v", s)
	}
	w.board.Pulse(w.now, at, Pulse{Epoch: 2, Consumed: 12, Released: true})
	w.assess()
	if s := w.view.Status(at); s.Owner != Nobody || s.Outstanding != 0 {
		t.Errorf("after its release: %+v", s)
	}
}

func TestABoardSaysWhatItLacks(t *testing.T) {
	for _, cfg := range []Config{{}, {Lanes: budgets()}, {Lanes: []Limits{{}}, Partitions: 1}, {Lanes: []Limits{{Wait: 1}}, Partitions: 1}} {
		if _, err := NewBoard(cfg, time.Time{}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
