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
