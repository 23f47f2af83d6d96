package engine

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

func TestACallThatIsToBeMadeAgainGivesItsSlotBackAndBlocksItsKeyAlone(t *testing.T) {
	e, lps, now := owned(t, 1, Config{MaxInFlight: 1})
	lp := lps[0]
	in := asked(lp, 0, 3)
	in.Requests[0].Head.Conversation, in.Requests[1].Head.Conversation = "c", "c"
	e.Step(*now, in)
	gen := e.lanes[lp].gen
	again := &Again{job.Progress{Attempt: 1, NextSeq: 1}}
	effects := kept(e.Step(*now, Ended{
		Tenant: "t",
		LP:     lp, Gen: gen, Offset: 0, Attempt: 1, At: *now,
		Retry: &Retry{At: now.Add(time.Second), Fact: []byte(`{}`), Again: again},
	}))
	if f := only[AppendFact](effects); len(f) != 1 || f[0].Head.Type != event.JobRetrying || f[0].Offset != -1 || f[0].Head.Attempt != 1 {
		t.Fatalf("%v", f)
	}
	if s := only[Start](effects); len(s) != 1 || s[0].Request.Offset != 2 {
		t.Fatalf("the slot was not given to the other key: %v", s)
	}
	finish(e, *now, lp, 2)
	beat := func(after time.Duration) []Start {
		*now = now.Add(after)
		e.Step(*now, LeaseRenewed{Sent: *now, Member: "m"})
		return only[Start](kept(e.Step(*now, Tick{})))
	}
	for range 3 {
		if s := beat(300 * time.Millisecond); len(s) != 0 {
			t.Fatalf("started %v before its time", s)
		}
	}
	*now = now.Add(100 * time.Millisecond)
	s := only[Start](e.Step(*now, Tick{}))
	if len(s) != 1 || s[0].Request.Offset != 0 || s[0].Try != 2 || s[0].Again != again {
		t.Fatalf("%+v", s)
	}
	if m := metadata(e.lanes[lp].commit()); m.Bound != 1 {
		t.Errorf("bound %d hides what the first try wrote", m.Bound)
	}
}

func TestWhatRestsIsNotWaitedForInADrain(t *testing.T) {
	e, lps, now := owned(t, 1, Config{})
	lp := lps[0]
	e.Step(*now, asked(lp, 0, 1))
	gen := e.lanes[lp].gen
	e.Step(*now, Drain{})
	e.Step(*now, Ended{LP: lp, Gen: gen, Tenant: "t", Offset: 0, Attempt: 1, At: *now, Retry: &Retry{At: now.Add(time.Hour)}})
	if !e.Idle() {
		t.Error("it waits for an hour")
	}
	if r := only[Release](e.Step(*now, Revoked{lp})); len(r) != 1 || r[0].Commit.Next != 0 {
		t.Errorf("%+v", r)
	}
}

func TestBackoffGrowsWithinItsBoundsAndHeedsWhatAProviderAsks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Backoff{
			Tries: rapid.IntRange(1, 80).Draw(t, "tries"),
			Base:  time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "base")),
			Cap:   time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "cap")),
		}
		try := rapid.IntRange(0, 90).Draw(t, "try")
		asked := time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "asked"))
		random := rapid.Float64Range(0, 0.999999).Draw(t, "random")
		wait, ok := b.Wait(try, asked, random)
		if want := try < b.Tries && asked <= b.Cap; ok != want {
			t.Fatalf("%+v after try %d, asked for %v: %v", b, try, asked, ok)
		}
		if ok && (wait < asked || wait > b.Cap) {
			t.Fatalf("%v: asked for %v, at most %v", wait, asked, b.Cap)
		}
	})
	b := Backoff{Tries: 10, Base: time.Second, Cap: 20 * time.Second}
	for try, want := range map[int]time.Duration{1: time.Second / 2, 2: time.Second, 3: 2 * time.Second, 4: 4 * time.Second, 9: 10 * time.Second} {
		if got, _ := b.Wait(try, 0, 0.5); got != want {
			t.Errorf("try %d: %v, want %v", try, got, want)
		}
	}
}
