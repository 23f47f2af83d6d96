package fence_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
)

func TestTheFilterAdmitsWhatIsNotOlderThanTheNewestOfItsLane(t *testing.T) {
	steps := []struct {
		kind   event.Type
		lane   event.Lane
		epoch  int64
		counts bool
		newest int64 // of the lane, then
	}{
		{event.OutputDelta, event.Interactive, 3, true, 3}, // what it meets first, it believes
		{event.OutputDelta, event.Interactive, 2, false, 3},
		{event.LaneClaimed, event.Interactive, 3, false, 3}, // a claim that is no news
		{event.LaneClaimed, event.Interactive, 5, true, 5},
		{event.OutputCompleted, event.Interactive, 3, false, 5},
		{event.LaneClaimed, event.Interactive, 4, false, 5}, // late: it takes nothing back
		{event.OutputCompleted, event.Interactive, 5, true, 5},
		{event.OutputStarted, event.Interactive, 6, true, 6}, // begun in the middle: its claim stood before
		{event.OutputStarted, event.Standard, 1, true, 1},    // lanes have epochs of their own
		{event.OutputSuperseded, event.Standard, 1, true, 1},
		{event.OutputToolResult, event.Standard, 0, false, 1},
		{event.OutputDelta, event.NoLane, 9, false, 0},
		{event.LaneClaimed, event.NoLane, 9, false, 0},
		{"output.later", event.Standard, 9, false, 1}, // unknown: it moves nothing
		{event.JobCompleted, event.Standard, 9, false, 1},
		{event.LanePulse, event.Standard, 9, false, 1},
		{event.OutputDelta, event.Batch, 0, true, 0},
	}
	var f fence.Filter
	for i, s := range steps {
		v := event.View{Type: s.kind, Lane: s.lane, Epoch: s.epoch}
		if got := f.Admit(&v); got != s.counts || f.Epochs[s.lane] != s.newest {
			t.Errorf("%d: %s of %v in epoch %d: %v, newest %d", i, s.kind, s.lane, s.epoch, got, f.Epochs[s.lane])
		}
	}
	if diff := cmp.Diff(fence.Epochs{event.Interactive: 6, event.Standard: 1}, f.Epochs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func anyView(t *rapid.T) event.View {
	return event.View{
		Type:  rapid.SampledFrom([]event.Type{event.LaneClaimed, event.OutputStarted, event.OutputDelta, event.OutputCompleted, "output.later"}).Draw(t, "type"),
		Lane:  rapid.SampledFrom(append(event.Lanes(), event.NoLane)).Draw(t, "lane"),
		Epoch: rapid.Int64Range(0, 6).Draw(t, "epoch"),
	}
}

// A log as owners write it: in order of their claims, with what zombies write
// in between, but no output of an epoch that was not claimed.
func anyLog(t *rapid.T) []event.View {
	var newest fence.Epochs
	views := make([]event.View, rapid.IntRange(0, 40).Draw(t, "length"))
	for i := range views {
		v := anyView(t)
		if v.Type == event.LaneClaimed && rapid.Bool().Draw(t, "new") {
			v.Epoch = newest[v.Lane] + 1
		}
		v.Epoch = min(v.Epoch, newest[v.Lane]+1)
		if v.Type == event.LaneClaimed {
			newest[v.Lane] = max(newest[v.Lane], v.Epoch)
		} else {
			v.Epoch = min(v.Epoch, newest[v.Lane])
		}
		views[i] = v
	}
	return views
}

func TestReadersThatBeginAnywhereAgreeFromTheFirstNewClaimOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := anyLog(t)
		start := rapid.IntRange(0, len(log)).Draw(t, "start")
		var early, late fence.Filter
		for i := range log[:start] {
			early.Admit(&log[i])
		}
		var agreed [event.LaneCount]bool
		for i := start; i < len(log); i++ {
			v := &log[i]
			first, second := early.Admit(v), late.Admit(v)
			if v.Type == event.LaneClaimed && first {
				agreed[v.Lane] = true
				if !second {
					t.Fatalf("%d: a claim that is news to one who knows more is none to one who knows less", i)
				}
			}
			if agreed[v.Lane] && (first != second || early.Epochs[v.Lane] != late.Epochs[v.Lane]) {
				t.Fatalf("%d: %+v: one says %v, the other %v", i, v, first, second)
			}
		}
	})
}

func TestAReaderThatGoesOnWithTheEpochsOfAnotherAgreesAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := anyLog(t)
		start := rapid.IntRange(0, len(log)).Draw(t, "start")
		var whole fence.Filter
		for i := range log[:start] {
			whole.Admit(&log[i])
		}
		resumed := fence.Filter{Epochs: whole.Epochs}
		for i := start; i < len(log); i++ {
			if first, second := whole.Admit(&log[i]), resumed.Admit(&log[i]); first != second {
				t.Fatalf("%d: %+v: one says %v, the other %v", i, log[i], first, second)
			}
		}
	})
}

func TestEpochsNeverFallAndOlderOutputNeverCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f fence.Filter
		for range rapid.IntRange(0, 40).Draw(t, "length") {
			v, before := anyView(t), f.Epochs
			counts := f.Admit(&v)
			for l := range f.Epochs {
				if f.Epochs[l] < before[l] {
					t.Fatalf("%+v took lane %d from %d to %d", v, l, before[l], f.Epochs[l])
				}
			}
			if counts && (v.Epoch < before[v.Lane] || f.Epochs[v.Lane] != v.Epoch) {
				t.Fatalf("%+v counts, with %v before and %v behind it", v, before, f.Epochs)
			}
		}
	})
}

// claimer drives a claim as far as sent, with everything before 10 read.
func claimer(known int64) fence.Claimer {
	c := fence.NewClaimer(known)
	c.Waited()
	c.End(10, 10)
	c.Sent()
	return c
}

func TestAClaimIsMadeStepByStep(t *testing.T) {
	c := fence.NewClaimer(4)
	want := func(lease bool, a fence.Action) {
		t.Helper()
		if got := c.Next(lease); got != a {
			t.Fatalf("next is %d, want %d", got, a)
		}
		if c.Owns() != (a == fence.Own) {
			t.Fatalf("owns: %v", c.Owns())
		}
	}
	want(true, fence.Wait)
	c.End(10, 10) // nobody asked
	c.ReadTo(99)
	c.Sent()
	c.Failed()
	want(true, fence.Wait)
	c.Waited()
	want(false, fence.FindEnd)
	c.End(10, 3)
	want(true, fence.Wait)
	c.Waited()
	c.Saw(6, false)
	c.ReadTo(9)
	want(true, fence.Wait)
	c.ReadTo(10)
	want(false, fence.Wait) // without a lease
	want(true, fence.AppendNow)
	if c.Epoch() != 7 {
		t.Fatalf("epoch %d", c.Epoch())
	}
	c.Sent()
	want(true, fence.Wait)
	if c.Epoch() != 7 {
		t.Fatalf("epoch %d", c.Epoch())
	}
	c.Saw(6, false) // a zombie's
	want(true, fence.Wait)
	c.Saw(7, true)
	want(false, fence.Own) // to own needs no lease; to start a job does
	c.Saw(7, false)        // a late claim of the same epoch is void
	c.Saw(3, false)
	c.Failed() // answers too late
	c.Sent()
	want(true, fence.Own)
	if c.Epoch() != 7 {
		t.Fatalf("epoch %d", c.Epoch())
	}
	c.Saw(8, false)
	want(true, fence.Lost)
	c.Saw(9, true)
	c.Waited()
	want(true, fence.Lost)
}

func TestAPartitionThatIsReadAlreadyNeedsNoReading(t *testing.T) {
	c := fence.NewClaimer(0)
	c.Waited()
	c.End(10, 12)
	if got := c.Next(true); got != fence.AppendNow || c.Epoch() != 1 {
		t.Errorf("next is %d, epoch %d", got, c.Epoch())
	}
}

func TestAnEpochSeenBetweenReadyAndSentIsOutdone(t *testing.T) {
	c := fence.NewClaimer(0)
	c.Waited()
	c.End(10, 10)
	c.Saw(5, false)
	c.Sent()
	if c.Epoch() != 6 {
		t.Errorf("epoch %d", c.Epoch())
	}
}

func TestAClaimBehindAnotherOfItsOrANewerEpochIsVoidAndIsMadeAgain(t *testing.T) {
	for _, other := range []int64{5, 6, 9} {
		c := claimer(4)
		c.Saw(other, false)
		if c.Next(true) != fence.Wait {
			t.Fatalf("%d: it waits no more for its claim", other)
		}
		c.Saw(5, true)
		if c.Next(true) != fence.FindEnd || c.Owns() {
			t.Fatalf("%d: next is %d", other, c.Next(true))
		}
		c.End(20, 20)
		c.Sent()
		if c.Epoch() != other+1 {
			t.Errorf("%d: claims %d", other, c.Epoch())
		}
		c.Saw(other+1, true)
		if !c.Owns() {
			t.Errorf("%d: does not own", other)
		}
	}
}

func TestAClaimOfUnknownOutcomeIsMadeAgainAndMayTurnUp(t *testing.T) {
	t.Run("before the next", func(t *testing.T) {
		c := claimer(4)
		c.Failed()
		if c.Next(true) != fence.FindEnd {
			t.Fatalf("next is %d", c.Next(true))
		}
		c.End(11, 10)
		c.Saw(5, true)
		c.ReadTo(11)
		if c.Owns() || c.Next(true) != fence.AppendNow || c.Epoch() != 6 {
			t.Errorf("next is %d, epoch %d", c.Next(true), c.Epoch())
		}
	})
	t.Run("behind the next", func(t *testing.T) {
		c := claimer(4)
		c.Failed()
		c.End(10, 10)
		c.Sent() // nobody has read the first: the epoch is the same
		c.Saw(5, true)
		c.Saw(5, true)
		if !c.Owns() || c.Epoch() != 5 {
			t.Errorf("owns %v, epoch %d", c.Owns(), c.Epoch())
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	var f fence.Filter
	v := event.View{Type: event.OutputDelta, Lane: event.Standard, Epoch: 7}
	b.ReportAllocs()
	for b.Loop() {
		if !f.Admit(&v) {
			b.Fatal("not admitted")
		}
	}
}
