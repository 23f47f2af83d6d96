package processors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/simulated"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

// BenchmarkTakeover is a new owner of one partition with many tokens behind it:
// of jobs that have ended, and of some that have not and are asked for again.
// First without a commit, so that everything is read; then with what the first
// owner has committed. PENSTOCK_RESTORE_TOKENS says how many tokens, and
// PENSTOCK_RESTORE_JOB how many a job.
func BenchmarkTakeover(b *testing.B) {
	tokens, perJob := numberOf(b, "PENSTOCK_RESTORE_TOKENS", 100_000), numberOf(b, "PENSTOCK_RESTORE_JOB", 100)
	w := takeoverWorld(b)
	w.history(tokens, perJob)
	for _, name := range []string{"everything is read", "with its commit"} {
		b.Run(name, func(b *testing.B) {
			var took time.Duration
			var peak uint64
			for b.Loop() {
				d, p := w.takeOver(name, nil)
				took, peak = took+d, max(peak, p)
			}
			b.ReportMetric(took.Seconds()/float64(b.N), "s/takeover")
			b.ReportMetric(float64(peak)/(1<<20), "MiB-heap")
		})
	}
}

// BenchmarkTakeoverBehindACall is the same where the first request of the
// partition is of a call that goes on while all the tokens were said by others:
// the watermark stays before it. An unwatched one has said nothing; a watched
// one has begun, so its successor needs the log from there.
func BenchmarkTakeoverBehindACall(b *testing.B) {
	for name, stream := range map[string]bool{"unwatched": false, "watched": true} {
		b.Run(name, func(b *testing.B) { takeoverBehind(b, stream) })
	}
}

func takeoverBehind(b *testing.B, stream bool) {
	b.Helper()
	tokens, perJob := numberOf(b, "PENSTOCK_RESTORE_TOKENS", 100_000), numberOf(b, "PENSTOCK_RESTORE_JOB", 100)
	w := takeoverWorld(b)
	h := event.Head{V: 1, Time: time.Now(), Type: event.JobRequested, Tenant: "default", Job: "slow"}
	w.write(event.Record{
		Topic: w.names.Requests(event.Standard), Key: []byte(h.Job),
		Value: event.Append(nil, &h, fmt.Appendf(nil, `{"body":{"model":"sim:tokens=1,ttft=1h","messages":[]},"stream":%t}`, stream)),
	})
	if err := w.producer.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	w.takeOver("the first", func() { w.history(tokens, perJob) })
	var took time.Duration
	var peak uint64
	for b.Loop() {
		d, p := w.takeOver("the second", nil)
		took, peak = took+d, max(peak, p)
	}
	b.ReportMetric(took.Seconds()/float64(b.N), "s/takeover")
	b.ReportMetric(float64(peak)/(1<<20), "MiB-heap")
}

func numberOf(b *testing.B, name string, otherwise int) int {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

type takeover struct {
	b        *testing.B
	cluster  *kafka.Cluster
	producer *kafka.Producer
	names    topics.Names
}

func takeoverWorld(b *testing.B) *takeover {
	b.Helper()
	c, err := kafka.Open(b.Context(), kafka.Config{Brokers: []string{testenv.Kafka(b)}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	w := &takeover{b: b, cluster: c, names: topics.Names{Prefix: testenv.Prefix(b)}}
	want := topics.Catalogue(topics.Options{Prefix: w.names.Prefix, Partitions: 1, Replication: 1, MinISR: 1})
	if err := c.Apply(b.Context(), topics.Plan(want, nil)); err != nil {
		b.Fatal(err)
	}
	w.producer, err = c.NewProducer(kafka.ProducerConfig{Linger: 5 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.producer.Close)
	return w
}

// write hands a record over, and waits for room.
func (w *takeover) write(rec event.Record) {
	for {
		err := w.producer.Go(rec, func(_ kafka.Ack, err error) {
			if err != nil {
				w.b.Error(err)
			}
		})
		if err == nil {
			return
		}
		if !errors.Is(err, kafka.ErrFull) || !sleep(w.b.Context(), time.Millisecond) {
			w.b.Fatal(err)
		}
	}
}

// history writes the tokens of jobs that have ended, and then a hundred that
// have not, with their requests.
func (w *takeover) history(tokens, perJob int) {
	const open = 100
	delta := event.AppendDelta(nil, &event.Delta{Content: " riverbank"})
	for job := range tokens/perJob + open {
		unfinished := job >= tokens/perJob
		h := event.Head{V: 1, Time: time.Now(), Tenant: "default", Job: fmt.Sprintf("job-%d", job), Attempt: 1, Lane: event.Standard, Epoch: 1}
		if unfinished {
			req := h
			req.Type = event.JobRequested
			w.write(event.Record{
				Topic: w.names.Requests(event.Standard), Key: []byte(h.Job),
				Value: event.Append(nil, &req, []byte(`{"body":{"model":"sim:tokens=1000000,ttft=1h","messages":[]}}`)),
			})
		}
		for seq := range perJob {
			h.Seq = int64(seq)
			data := delta
			switch {
			case seq == perJob-1 && !unfinished:
				h.Type, data = event.OutputCompleted, []byte(`{"model":"sim","choices":[{"index":0,"finish_reason":"stop"}]}`)
			case seq == 0:
				h.Type, data = event.OutputStarted, []byte(`{"model":"sim","provider":"sim"}`)
			default:
				h.Type = event.OutputDelta
			}
			w.write(event.Record{Topic: w.names.Tokens(), Key: []byte(h.Job), Time: h.Time, Value: event.Append(nil, &h, data)})
		}
	}
	if err := w.producer.Flush(w.b.Context()); err != nil {
		w.b.Fatal(err)
	}
}

// takeOver starts a processor, and returns how long it took until it owned the
// lane, and the heap at its largest. meanwhile, if any, is done while it owns it.
func (w *takeover) takeOver(owner string, meanwhile func()) (took time.Duration, peak uint64) {
	models, err := llm.NewRegistry(nil, simulated.New())
	if err != nil {
		w.b.Fatal(err)
	}
	cfg := Config{Names: w.names, Owner: owner, Lanes: []event.Lane{event.Standard}, Grace: time.Millisecond, FirstToken: time.Hour}
	p, err := New(cfg, w.cluster, models, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		w.b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.b.Context())
	done := make(chan error, 1)
	runtime.GC()
	begun := time.Now()
	go func() { done <- p.Run(ctx) }()
	for p.Ready() != nil {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
		if !sleep(ctx, 20*time.Millisecond) {
			w.b.Fatal(ctx.Err())
		}
	}
	took = time.Since(begun)
	w.b.StopTimer()
	if meanwhile != nil {
		meanwhile()
		sleep(ctx, 15*time.Second) // and it reads all that back
	}
	sleep(ctx, 2*time.Second) // and it commits
	cancel()
	if err := <-done; err != nil {
		w.b.Fatal(err)
	}
	w.b.StartTimer()
	return took, peak
}
