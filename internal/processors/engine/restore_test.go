package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
)

// restoring makes an engine that has been assigned a LP, whose metadata is lost.
func restoring(tb testing.TB) (*Engine, LP, time.Time) {
	tb.Helper()
	e, now, lp := New(Config{Owner: "me"}), time.UnixMilli(1_700_000_000_000), LP{event.Standard, 0}
	e.Step(now, LeaseRenewed{Sent: now, Member: "m"})
	e.Step(now, PulseSeen{LP: lp, Epoch: 0, Released: true})
	e.Step(now, Assigned{LP: lp, Life: 1})
	return e, lp, now
}

// manyEnd makes a chunk in which so many jobs end, one event each.
func manyEnd(lp LP, from, n int64) Tokens {
	in := Tokens{Partition: lp.Partition, From: from, Next: from + n, Seen: make([]Seen, n)}
	for i := range in.Seen {
		in.Seen[i] = outputSeen(lp, from+int64(i), fmt.Appendf(nil, "job-%d", from+int64(i)), 0, event.OutputCompleted)
	}
	return in
}

func TestARestoreKeepsOnlyWhatIsAskedFor(t *testing.T) {
	e, lp, now := restoring(t)
	l := e.lanes[lp]
	e.Step(now, manyEnd(lp, 0, 100))
	if len(l.restored) != 100 {
		t.Fatalf("%d jobs are kept before it is known which are asked for", len(l.restored))
	}
	e.Step(now, Located{LP: lp, Gen: l.gen, End: 300, RequestsEnd: 2, Jobs: map[string]struct{}{JobKey("t", "job-7"): {}, JobKey("t", "job-203"): {}}})
	e.Step(now, manyEnd(lp, 100, 200))
	if len(l.restored) != 2 || l.restored[JobKey("t", "job-7")] == nil || l.restored[JobKey("t", "job-203")] == nil {
		t.Errorf("%d jobs are kept of the two that are asked for", len(l.restored))
	}
	if !l.recent.has(JobKey("t", "job-8")) || !l.recent.has(JobKey("t", "job-299")) {
		t.Error("those that have ended are not remembered as such")
	}
	e.Step(now, manyEnd(lp, 300, 1)) // it may be of a request that was not known then
	if l.restored[JobKey("t", "job-300")] == nil {
		t.Error("a job that came behind the end that was told is not kept")
	}
}

func TestARestoreThatDoesNotKnowWhatIsAskedForWaits(t *testing.T) {
	e, lp, now := restoring(t)
	l := e.lanes[lp]
	const chunk = 10_000
	for from := int64(0); from < 10*chunk; from += chunk {
		e.Step(now, manyEnd(lp, from, chunk))
	}
	if len(l.restored) != maxUnasked || l.position != maxUnasked || !l.stalled {
		t.Errorf("%d jobs are kept at offset %d", len(l.restored), l.position)
	}
	got := only[Follow](e.Step(now, Located{LP: lp, Gen: l.gen, End: 10 * chunk, RequestsEnd: 1, Jobs: map[string]struct{}{}}))
	if len(got) != 1 || got[0].From != maxUnasked || len(l.restored) != 0 {
		t.Errorf("it follows %v, with %d jobs", got, len(l.restored))
	}
	e.Step(now, manyEnd(lp, maxUnasked, chunk))
	if l.position != maxUnasked+chunk || len(l.restored) != 0 {
		t.Errorf("at %d with %d jobs", l.position, len(l.restored))
	}
}

// A call may take hours. Until it says something a restore need not look for it,
// so that what all others say meanwhile is not read again.
func TestACallThatHasSaidNothingHoldsNoBoundBack(t *testing.T) {
	e, lps, now := owned(t, 1, Config{})
	lp := lps[0]
	l := e.lanes[lp]
	e.Step(*now, asked(lp, 0, 3))
	read := func(seen ...Seen) {
		e.Step(*now, Tokens{Partition: lp.Partition, From: l.position, Next: seen[len(seen)-1].Offset + 1, Seen: seen})
	}
	bound := func(want int64) {
		t.Helper()
		if m := metadata(e.lanes[lp].commit()); m.Bound != want || m.Epoch != 1 {
			t.Errorf("%+v, want bound %d in epoch 1", m, want)
		}
	}
	read(outputSeen(lp, 100, []byte("j1"), 0, event.OutputStarted), outputSeen(lp, 101, []byte("j1"), 1, event.OutputDelta))
	bound(100)
	read(outputSeen(lp, 200, []byte("j1"), 2, event.OutputCompleted))
	finish(e, *now, lp, 1)
	bound(201) // with two calls that have said nothing
	read(outputSeen(lp, 300, []byte("j2"), 0, event.OutputDelta), outputSeen(lp, 301, []byte("j0"), 0, event.OutputCompleted))
	bound(300)
	finish(e, *now, lp, 2)
	bound(301) // its end was read, and its fact is owed
	finish(e, *now, lp, 0)
	bound(302)
}

// Of a long backlog nothing was begun, so it holds no bound back until it is
// delivered.
func TestABacklogOfWhichNothingWasSaidHoldsNoBoundBack(t *testing.T) {
	for _, said := range []bool{false, true} {
		e, now, lp := New(Config{Owner: "me", PulseLease: time.Hour}), time.UnixMilli(1_700_000_000_000), LP{event.Standard, 0}
		e.Step(now, LeaseRenewed{Sent: now, Member: "m"})
		e.Step(now, PulseSeen{LP: lp, Epoch: 1, Released: true})
		e.Step(now, Assigned{LP: lp, Life: 1, Member: "m"})
		l := e.lanes[lp]
		if said {
			e.Step(now, Tokens{Next: 1, Seen: []Seen{outputSeen(lp, 0, []byte("j5"), 0, event.OutputStarted)}})
		} else {
			e.Step(now, Tokens{Next: 1})
		}
		claim := only[AppendClaim](e.Step(now, Located{LP: lp, Gen: l.gen, End: 1, RequestsEnd: 1000}))
		if len(claim) != 1 {
			t.Fatalf("%d claims", len(claim))
		}
		e.Step(now, Tokens{From: 1, Next: 2, Seen: []Seen{claimSeen(lp, 1, claim[0].Epoch, "me")}})
		e.Step(now, asked(lp, 0, 3))
		e.Step(now, Tokens{From: 2, Next: 900})
		want := int64(900)
		if said { // by one of those that are still to come, for all that is known
			want = 0
		}
		if m := metadata(e.lanes[lp].commit()); l.epoch == 0 || m.Bound != want {
			t.Errorf("said %v: bound %d, want %d, in epoch %d", said, m.Bound, want, l.epoch)
		}
	}
}

// BenchmarkRestore is a record of a restore, of jobs that have ended.
func BenchmarkRestore(b *testing.B) {
	e, lp, now := restoring(b)
	l := e.lanes[lp]
	e.Step(now, Located{LP: lp, Gen: l.gen, End: 1 << 60, RequestsEnd: 1, Jobs: map[string]struct{}{}})
	const chunk = 10_000
	in := manyEnd(lp, 0, chunk)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%chunk == 0 {
			for i := range in.Seen {
				in.Seen[i].Offset += chunk
			}
			if n == 0 {
				continue
			}
			in.From, in.Next = in.From+chunk, in.Next+chunk
			l.position = in.From
			e.Step(now, in)
		}
	}
}
