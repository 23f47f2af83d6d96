package projections

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

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

// BenchmarkRows writes jobs that were asked for and are done, new ones, and tells
// what each costs the database's own process, on Linux: by COPY as a projector
// does, by the upsert that rows get which may be there, and by one that finds
// them there.
func BenchmarkRows(b *testing.B) {
	for _, size := range []int{500, 5000} {
		for _, way := range []string{"copy", "upsert", "update"} {
			b.Run(fmt.Sprintf("%s/%d", way, size), func(b *testing.B) { benchmarkRows(b, way, size) })
		}
	}
}

func benchmarkRows(b *testing.B, way string, size int) {
	b.Helper()
	conn, err := database(b).Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	var c copier
	write := func(rows []*row) {
		b.StartTimer()
		defer b.StopTimer()
		err := pgx.BeginFunc(b.Context(), conn, func(tx pgx.Tx) error {
			if way == "copy" {
				return c.write(b.Context(), tx, rows)
			}
			return upsertRows(b.Context(), tx, rows)
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	var cpu time.Duration
	n := 0
	for b.Loop() {
		b.StopTimer()
		asked, whole := manyRows(n, size)
		n += size
		if way == "update" {
			write(asked)
		}
		before := serverTime(b, conn)
		write(whole)
		cpu += serverTime(b, conn) - before
		b.StartTimer()
	}
	b.ReportMetric(float64(cpu.Nanoseconds())/1e3/float64(n), "pg-µs/row")
}

// manyRows are rows of requests alone, and of requests with their ends.
func manyRows(from, n int) (asked, whole []*row) {
	requests, facts := make([]event.Record, 0, n), make([]event.Record, 0, n)
	for i := from; i < from+n; i++ {
		h := event.Head{Type: event.JobCompleted, Job: fmt.Sprintf("job_%032d", i), Time: at(i / 10), Attempt: 1, Lane: event.Standard}
		requests = append(requests, requestRecord(event.Standard, 0, int64(i), h, event.Request{}))
		facts = append(facts, factRecord(0, int64(i), h, event.Fact{Model: "sim", Output: []event.OutputChoice{{
			Message: event.Message{Role: "assistant", Content: "hello"}, FinishReason: "stop",
		}}, Usage: &event.Usage{PromptTokens: 8, CompletionTokens: 1, TotalTokens: 9}}))
	}
	asked, _, _ = folder{names}.fold(requests)
	whole, _, _ = folder{names}.fold(append(requests, facts...))
	return asked, whole
}

// serverTime is the CPU that the server's process for a connection has used; 0
// where the server is elsewhere, or the system does not tell.
func serverTime(b *testing.B, conn *pgxpool.Conn) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", conn.Conn().PgConn().PID()))
	if err != nil {
		return 0
	}
	var ns int64
	if _, err := fmt.Sscan(string(text), &ns); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ns)
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
