package engine

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
)

// owned makes an engine that owns so many LPs.
func owned(tb testing.TB, lps int, cfg Config) (*Engine, []LP, *time.Time) {
	tb.Helper()
	cfg.Owner = "me"
	if cfg.PulseLease == 0 {
		cfg.PulseLease = time.Hour // no pulses come back here
	}
	e, now := New(cfg), time.UnixMilli(1_700_000_000_000)
	e.Step(now, LeaseRenewed{Sent: now, Member: "m"})
	list := make([]LP, lps)
	for i := range list {
		list[i] = LP{event.Lanes()[i%3], int32(i / 3)}
		e.Step(now, PulseSeen{LP: list[i], Epoch: 0, Released: true})
		e.Step(now, Assigned{LP: list[i], Life: uint64(i + 1), Member: "m"})
		e.Step(now, Located{LP: list[i], Gen: e.lanes[list[i]].gen})
	}
	for i, lp := range list {
		// One claim a lane, in the order of the partition's lanes.
		at := int64(i % 3)
		e.Step(now, Tokens{Partition: lp.Partition, From: at, Next: at + 1, Seen: []Seen{claimSeen(lp, at, 1, "me")}})
	}
	if s := e.Stats(); s.Owned != lps {
		tb.Fatalf("%d of %d are owned", s.Owned, lps)
	}
	return e, list, &now
}

func claimSeen(lp LP, offset, epoch int64, owner string) Seen {
	return Seen{Offset: offset, Owner: owner, View: event.View{Type: event.LaneClaimed, Lane: lp.Lane, Epoch: epoch}}
}

func outputSeen(lp LP, offset int64, id []byte, seq int64, t event.Type) Seen {
	return Seen{Offset: offset, View: event.View{
		Type: t, V: 1, Time: []byte("2026-01-01T00:00:00.000Z"), Tenant: []byte("t"), Job: id, Attempt: 1, Seq: seq, Lane: lp.Lane, Epoch: 1, Data: []byte("{}"),
	}}
}

// BenchmarkTask is one task: requested, started, ended, read back, its fact
// written, now and then committed.
func BenchmarkTask(b *testing.B) {
	for _, lps := range []int{1, 36} {
		for _, others := range []int{0, 500} {
			if lps == 1 && others > 0 {
				continue // they would pin the one watermark, and the span is bounded
			}
			b.Run(fmt.Sprintf("lps=%d/inflight=%d", lps, others), func(b *testing.B) {
				e, list, now := owned(b, lps, Config{})
				next := map[LP]int64{}
				position := map[int32]int64{}
				for p := range int32(len(list)+2) / 3 {
					position[p] = 3
				}
				for i := range others { // jobs that take long
					lp := list[i%len(list)]
					e.Step(*now, Requests{LP: lp, Requests: []*Request{{Offset: next[lp], Head: event.Head{Tenant: "t", Job: "long-" + strconv.Itoa(i)}, Bytes: 300}}})
					next[lp]++
				}
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					lp := list[i%len(list)]
					i++
					if i%64 == 0 {
						*now = now.Add(5 * time.Millisecond)
						e.Step(*now, LeaseRenewed{Sent: *now, Member: "m"})
					}
					id := "job-" + strconv.Itoa(i)
					offset := next[lp]
					next[lp]++
					e.Step(*now, Requests{LP: lp, Requests: []*Request{{Offset: offset, Head: event.Head{Tenant: "t", Job: id}, Bytes: 300}}})
					gen := e.lanes[lp].gen
					at := position[lp.Partition]
					position[lp.Partition] += 3
					raw := []byte(id)
					e.Step(*now, Ended{LP: lp, Gen: gen, Offset: offset, Tenant: "t", Type: event.JobCompleted, Data: raw, Attempt: 1, At: *now})
					e.Step(*now, Tokens{Partition: lp.Partition, From: at, Next: at + 3, Seen: []Seen{
						outputSeen(lp, at, raw, 0, event.OutputStarted), outputSeen(lp, at+1, raw, 1, event.OutputDelta), outputSeen(lp, at+2, raw, 2, event.OutputCompleted),
					}})
					e.Step(*now, FactWritten{LP: lp, Gen: gen, Offset: offset})
				}
				if e.inFlight != others || e.lanes[list[0]].delivered == 0 {
					b.Fatalf("%d in flight", e.inFlight)
				}
			})
		}
	}
}

// BenchmarkTick is Step at an idle engine of 36 LPs: what every input costs.
func BenchmarkTick(b *testing.B) {
	e, _, now := owned(b, 36, Config{})
	b.ReportAllocs()
	for b.Loop() {
		e.Step(*now, Tick{})
	}
}
