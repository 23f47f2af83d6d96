package projections

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

// world is a Kafka with topics of the test's own, and a database.
type world struct {
	cluster *kafka.Cluster
	prefix  string
	names   topics.Names
	out     *kafka.Producer
	pool    *pgxpool.Pool
	store   *Store
}

func newWorld(tb testing.TB, partitions int32) *world {
	tb.Helper()
	w := &world{prefix: testenv.Prefix(tb), pool: database(tb)}
	w.names = topics.Names{Prefix: w.prefix}
	var err error
	if w.cluster, err = kafka.Open(tb.Context(), kafka.Config{Brokers: []string{testenv.Kafka(tb)}}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.cluster.Close)
	want := topics.Catalogue(topics.Options{Prefix: w.prefix, Partitions: partitions})
	for i := range want {
		want[i].Configs["retention.ms"] = "-1" // the tests' records are of a day long ago, and Kafka looks every few minutes
	}
	if err := w.cluster.Apply(tb.Context(), topics.Plan(want, nil)); err != nil {
		tb.Fatal(err)
	}
	w.out = w.producer(tb)
	w.store = patient(NewStore(w.pool, w.cluster, Topics(w.names), nil))
	return w
}

func (w *world) producer(tb testing.TB) *kafka.Producer {
	tb.Helper()
	p, err := w.cluster.NewProducer(kafka.ProducerConfig{Linger: time.Millisecond, MaxBuffered: 50_000})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// ours puts a record onto this world's topics.
func (w *world) ours(rec event.Record) event.Record {
	rec.Topic = w.prefix + strings.TrimPrefix(rec.Topic, names.Prefix)
	return rec
}

func (w *world) produce(tb testing.TB, records ...event.Record) {
	tb.Helper()
	for i := range records {
		records[i] = w.ours(records[i])
	}
	if _, err := w.out.Append(tb.Context(), records...); err != nil {
		tb.Fatal(err)
	}
}

// project runs a projector until the test or stop ends it.
func (w *world) project(tb testing.TB, cfg Config) (p *Projector, stop func()) {
	tb.Helper()
	cfg.Cluster, cfg.Pool, cfg.Prefix = w.cluster, w.pool, w.prefix
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return p, run(tb, p)
}

func run(tb testing.TB, p *Projector) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	var g errgroup.Group
	g.Go(func() error { return p.Run(ctx) })
	var once atomic.Bool
	stop = func() {
		if once.Swap(true) {
			return
		}
		cancel()
		if err := g.Wait(); err != nil {
			tb.Error(err)
		}
	}
	tb.Cleanup(stop)
	return stop
}

// eventually waits until a condition holds, and fails after a minute.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			tb.Fatalf("not within a minute: %s", what)
		case <-tick.C:
		}
	}
}

func (w *world) caughtUp(t *testing.T) {
	t.Helper()
	eventually(t, "the projection catches up", func() bool {
		lag, err := w.store.Lag(t.Context())
		if err != nil {
			return false
		}
		for _, n := range lag {
			if n > 0 {
				return false
			}
		}
		return true
	})
}

func (w *world) count(t *testing.T, where string) (n int) {
	t.Helper()
	if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM penstock.jobs WHERE `+where).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// counts waits until a projector has counted so many records of one result: it
// counts them once their transaction, which others see, has told it that it took.
func counts(t *testing.T, p *Projector, result string, want float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v records are %s", want, result), func() bool { return counted(t, p, result) >= want })
	if got := counted(t, p, result); got != want {
		t.Errorf("%v records are %s, want %v", got, result, want)
	}
}

// counted is how many records of one result a projector has had.
func counted(tb testing.TB, p *Projector, result string) float64 {
	tb.Helper()
	return valueOf(tb, p.metrics.records.WithLabelValues(result))
}

func valueOf(tb testing.TB, c prometheus.Counter) float64 {
	tb.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		tb.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// lives makes the records of whole jobs, requests and facts.
func lives(n int, partitions int32) (requests, facts []event.Record) {
	for i := range n {
		h := event.Head{Job: fmt.Sprint("job-", i), Time: at(i), Lane: event.Lanes()[i%3]}
		p := job.Partition(h.Job, partitions)
		requests = append(requests, requestRecord(h.Lane, p, 0, h, event.Request{}))
		h.Attempt, h.Type = 1, event.JobStarted
		facts = append(facts, factRecord(p, 0, h, event.Started{Model: "sim", Provider: "simulated"}))
		h.Type = event.JobCompleted
		facts = append(facts, factRecord(p, 0, h, event.Fact{Model: "sim", Output: []event.OutputChoice{{Message: event.Message{Content: "hello"}}}}))
	}
	return requests, facts
}

// script is a group whose polls a test makes up. It assigns one partition.
type script struct {
	tp     kafka.TopicPartition
	cfg    kafka.GroupConfig
	first  bool
	polls  chan kafka.Poll
	sought chan int64
	held   atomic.Bool
}

func newScript(t *testing.T, tp kafka.TopicPartition) *script {
	t.Helper()
	return &script{tp: tp, first: true, polls: make(chan kafka.Poll, 100), sought: make(chan int64, 100)}
}

func (s *script) join(cfg kafka.GroupConfig) (group, error) {
	s.cfg = cfg
	return s, nil
}

func (s *script) say(p kafka.Poll) { s.polls <- p }

func (s *script) Poll(ctx context.Context) (kafka.Poll, error) {
	if s.first {
		starts, err := s.cfg.StartAt(ctx, []kafka.TopicPartition{s.tp})
		if err != nil {
			return kafka.Poll{}, err
		}
		s.first = false
		return kafka.Poll{Assigned: []kafka.Assignment{{TopicPartition: s.tp, Next: starts[s.tp]}}}, nil
	}
	select {
	case p := <-s.polls:
		return p, nil
	case <-ctx.Done():
		return kafka.Poll{}, ctx.Err()
	}
}

func (s *script) Pause(...kafka.TopicPartition)          { s.held.Store(true) }
func (s *script) Resume(...kafka.TopicPartition)         { s.held.Store(false) }
func (s *script) Seek(_ kafka.TopicPartition, off int64) { s.sought <- off }
func (*script) Close()                                   {}

// seek waits for the projector to seek, and tells where to.
func (s *script) seek(t *testing.T) int64 {
	t.Helper()
	select {
	case at := <-s.sought:
		return at
	case <-time.After(30 * time.Second):
		t.Fatal("not within 30 s: the projector seeks")
		return 0
	}
}
