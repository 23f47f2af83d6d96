package engine

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
)

func cancelOf(from int64, at time.Time, jobs ...string) Cancels {
	in := Cancels{From: from, Next: from + int64(len(jobs))}
	for _, id := range jobs {
		in.Cancels = append(in.Cancels, Cancel{Tenant: "t", Job: id, Time: at})
	}
	return in
}

// kept copies effects, which hold until the next step alone.
func kept(effects []Effect) []Effect { return append([]Effect(nil), effects...) }

func TestACancelEndsWhatWaitsInTheSameStepThoughNoSlotIsFree(t *testing.T) {
	e, lps, now := owned(t, 1, Config{MaxInFlight: 1})
	lp := lps[0]
	e.Step(*now, asked(lp, 0, 4))
	starts := only[Start](e.Step(*now, cancelOf(0, *now, "j1", "j3", "j1")))
	if len(starts) != 2 || !starts[0].Cancelled || starts[0].Request.Offset != 1 || starts[1].Request.Offset != 3 || e.inFlight != 1 {
		t.Fatalf("%+v, %d in flight", starts, e.inFlight)
	}
	if again := e.Step(*now, cancelOf(3, *now, "j1")); len(only[Start](again))+len(only[Stop](again)) != 0 {
		t.Errorf("a second cancel did something: %v", again)
	}
	if stop := only[Stop](e.Step(*now, cancelOf(4, *now, "j0"))); len(stop) != 1 || stop[0].Offset != 0 {
		t.Fatalf("what runs was not broken off: %v", stop)
	}
	gen := e.lanes[lp].gen
	for _, o := range []int64{1, 3} {
		e.Step(*now, Ended{LP: lp, Gen: gen, Tenant: "t", Offset: o, Type: event.JobCancelled, Found: true, Cancelled: true})
		e.Step(*now, FactWritten{LP: lp, Gen: gen, Offset: o})
	}
	if e.Stats().InFlight != 1 || e.ending != 0 || e.Idle() {
		t.Errorf("%+v, %d ending", e.Stats(), e.ending)
	}
	e.Step(*now, Ended{LP: lp, Gen: gen, Tenant: "t", Offset: 0, Type: event.JobCancelled, Found: true})
	if got := only[Start](e.Step(*now, Tick{})); len(got) != 0 { // j2 was started as the slot came free
		t.Errorf("%v", got)
	}
	e.Step(*now, FactWritten{LP: lp, Gen: gen, Offset: 0})
	if s := e.Stats(); s.Cancels != 0 || s.InFlight != 1 {
		t.Errorf("cancels of jobs that are done are remembered: %+v", s)
	}
	// A cancel after the end is not remembered either.
	if e.Step(*now, cancelOf(5, *now, "j0")); e.Stats().Cancels != 0 {
		t.Error("the cancel of a job that has ended is remembered")
	}
}

func TestACancelledJobLeavesTheOrderOfItsKeyToTheOthers(t *testing.T) {
	e, lps, now := owned(t, 1, Config{})
	lp := lps[0]
	in := asked(lp, 0, 4)
	for _, r := range in.Requests {
		r.Head.Conversation = "c"
	}
	if got := only[Start](e.Step(*now, in)); len(got) != 1 {
		t.Fatalf("%v", got)
	}
	gen := e.lanes[lp].gen
	if got := only[Start](e.Step(*now, cancelOf(0, *now, "j1", "j2"))); len(got) != 2 {
		t.Fatalf("%v", got)
	}
	end := func(o int64, cancelled bool) []Start {
		t.Helper()
		got := kept(e.Step(*now, Ended{LP: lp, Gen: gen, Tenant: "t", Offset: o, Type: event.JobCompleted, Found: true, Cancelled: cancelled}))
		return only[Start](append(got, e.Step(*now, FactWritten{LP: lp, Gen: gen, Offset: o})...))
	}
	if got := end(2, true); len(got) != 0 {
		t.Errorf("the end of one in the middle started %v", got)
	}
	if got := end(0, false); len(got) != 0 {
		t.Errorf("the last was started before the one that was cancelled has ended: %v", got)
	}
	if got := end(1, true); len(got) != 1 || got[0].Request.Offset != 3 || got[0].Cancelled {
		t.Errorf("%v", got)
	}
}

func TestNothingIsStartedBeforeTheCancelsWereRead(t *testing.T) {
	lp := LP{event.Standard, 0}
	e, now := New(Config{Owner: "me"}), time.UnixMilli(1_700_000_000_000)
	e.Step(now, LeaseRenewed{Sent: now, Member: "m"})
	e.Step(now, PulseSeen{LP: lp, Released: true})
	e.Step(now, Assigned{LP: lp, Life: 1, Member: "m"})
	got := only[FollowControl](e.Step(now, Located{LP: lp, Gen: 1, ControlFrom: 5, ControlEnd: 9}))
	if diff := cmp.Diff([]FollowControl{{0, 5}}, got); diff != "" {
		t.Fatal(diff)
	}
	e.Step(now, Tokens{From: 0, Next: 1, Seen: []Seen{claimSeen(lp, 0, 1, "me")}})
	if got := only[Start](e.Step(now, asked(lp, 0, 2))); len(got) != 0 {
		t.Fatalf("started before the cancels were read: %v", got)
	}
	if got := only[Start](e.Step(now, cancelOf(5, now, "j0", "x", "y"))); len(got) != 0 {
		t.Fatalf("started before the cancels were read to their end: %v", got)
	}
	if got := only[FollowControl](e.Step(now, ControlGone{Partition: 0, Earliest: 8})); len(got) != 1 || got[0].From != 8 {
		t.Errorf("%v", got)
	}
	starts := only[Start](e.Step(now, cancelOf(8, now, "z")))
	if len(starts) != 2 || !starts[0].Cancelled || starts[0].Request.Offset != 0 || starts[1].Cancelled {
		t.Fatalf("%+v", starts)
	}
	// Another lane of the partition needs older ones: they are read again.
	other := LP{event.Batch, 0}
	e.Step(now, Assigned{LP: other, Life: 2, Member: "m"})
	got = only[FollowControl](e.Step(now, Located{LP: other, Gen: e.lanes[other].gen, ControlFrom: 2, ControlEnd: 9}))
	if diff := cmp.Diff([]FollowControl{{0, 2}}, got); diff != "" {
		t.Error(diff)
	}
	e.Step(now, Lost{lp})
	if got := only[UnfollowControl](e.Step(now, Lost{other})); len(got) != 1 {
		t.Error("cancels that nobody needs are read on")
	}
}

func TestCancelsAreRememberedWithinABoundAndForTheirOwnJobAlone(t *testing.T) {
	e, lps, now := owned(t, 1, Config{MaxCancels: 3, CancelAhead: time.Minute})
	lp := lps[0]
	for i := range 5 {
		e.Step(*now, cancelOf(int64(i), *now, "j"+strconv.Itoa(i)))
	}
	if s := e.Stats(); s.Cancels != 3 || s.CancelsForgotten != 2 {
		t.Fatalf("%+v", s)
	}
	in := asked(lp, 0, 5)
	for i, r := range in.Requests {
		r.Time = *now
		if i == 4 { // the same id, much later
			r.Time = now.Add(time.Minute + time.Millisecond)
		}
	}
	var cancelled []int64
	for _, s := range only[Start](e.Step(*now, in)) {
		if s.Cancelled {
			cancelled = append(cancelled, s.Request.Offset)
		}
	}
	if diff := cmp.Diff([]int64{2, 3}, cancelled); diff != "" {
		t.Error(diff)
	}
}

func TestMemoryForgetsTheOldest(t *testing.T) {
	var m memory[int]
	for i := range 3 {
		if m.add(strconv.Itoa(i), i, 3) {
			t.Fatal("forgot with room")
		}
	}
	m.add("1", 10, 3)
	m.drop("0")
	if m.add("3", 3, 3) {
		t.Error("one that was dropped is not forgotten")
	}
	if !m.add("4", 4, 3) || m.has("1") || !m.has("2") || !m.has("3") || !m.has("4") {
		t.Errorf("%+v", m)
	}
}
