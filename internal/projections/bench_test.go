package projections

import (
	"fmt"
	"testing"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// benchFacts is how many facts an iteration folds.
const benchFacts = 200_000

// BenchmarkProjectorFoldsFacts folds completed jobs from Kafka into an empty
// table, as a projector does that has fallen behind, and two that share.
func BenchmarkProjectorFoldsFacts(b *testing.B) {
	for _, members := range []int{1, 2} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) { benchmarkFacts(b, members) })
	}
}

func benchmarkFacts(b *testing.B, members int) {
	b.Helper()
	const partitions = 12
	w := newWorld(b, partitions)
	for i := 0; i < benchFacts; i += 5000 {
		records := make([]event.Record, 0, 5000)
		for k := range 5000 {
			h := event.Head{Type: event.JobCompleted, Job: fmt.Sprintf("job-%026d", i+k), Time: at(i), Attempt: 1, Lane: event.Standard}
			records = append(records, factRecord(job.Partition(h.Job, partitions), 0, h, event.Fact{Model: "sim", Output: []event.OutputChoice{{
				Message: event.Message{Role: "assistant", Content: "hello"}, FinishReason: "stop",
			}}}))
		}
		w.produce(b, records...)
	}
	for b.Loop() {
		b.StopTimer()
		if _, err := w.pool.Exec(b.Context(), `TRUNCATE penstock.jobs, penstock.checkpoints`); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		ps := make([]*Projector, members)
		stops := make([]func(), members)
		for i := range ps {
			ps[i], stops[i] = w.project(b, Config{})
		}
		eventually(b, "all is folded", func() bool {
			total := 0.0
			for _, p := range ps {
				total += counted(b, p, folded.String())
			}
			return total == benchFacts
		})
		for _, stop := range stops {
			stop()
		}
	}
	b.ReportMetric(float64(benchFacts)*float64(b.N)/b.Elapsed().Seconds(), "facts/s")
}

// BenchmarkFold folds facts without any server.
func BenchmarkFold(b *testing.B) {
	records := make([]event.Record, 5000)
	for i := range records {
		h := event.Head{Type: event.JobCompleted, Job: fmt.Sprintf("job-%026d", i), Time: at(i), Attempt: 1, Lane: event.Standard}
		records[i] = factRecord(0, int64(i), h, event.Fact{Model: "sim", Output: []event.OutputChoice{{
			Message: event.Message{Role: "assistant", Content: "hello"}, FinishReason: "stop",
		}}})
	}
	b.ReportAllocs()
	for b.Loop() {
		rows, _, _ := folder{names}.fold(records)
		columnsOf(rows).args()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(records)), "ns/fact")
}
