package processors

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/simulated"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testenv.Wrap(m))
}

// world is a set of topics on a broker, and what a test does with them.
type world struct {
	t          *testing.T
	cluster    *kafka.Cluster
	producer   *kafka.Producer
	names      topics.Names
	addr       string
	partitions int32
	extra      []llm.Provider // beside the simulated one
}

const testPartitions = 3

// onEmbedded makes a world on the embedded broker; onKafka on the real one.
func onEmbedded(t *testing.T) *world {
	t.Helper()
	b, err := devstack.StartBroker(t.Context(), devstack.BrokerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return newWorld(t, b.Addr(), "penstock.")
}

func onKafka(t *testing.T) *world {
	t.Helper()
	return newWorld(t, testenv.Kafka(t), testenv.Prefix(t))
}

func newWorld(t *testing.T, addr, prefix string) *world {
	t.Helper()
	ctx := t.Context()
	c, err := kafka.Open(ctx, kafka.Config{Brokers: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	w := &world{t: t, addr: addr, cluster: c, names: topics.Names{Prefix: prefix}, partitions: testPartitions}
	want := topics.Catalogue(topics.Options{Prefix: prefix, Partitions: testPartitions, Replication: 1, MinISR: 1})
	plan := topics.Plan(want, nil)
	if err := c.Apply(ctx, plan); err != nil {
		t.Fatal(err)
	}
	if w.producer, err = c.NewProducer(kafka.ProducerConfig{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.producer.Close)
	return w
}

// request writes a request, and returns its job's id.
func (w *world) request(lane event.Lane, model, conversation string) string {
	w.t.Helper()
	id, err := job.Mint(time.Now(), conversation, w.partitions, rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(lane, id, conversation, fmt.Sprintf(`{"body":{"model":%q,"messages":[{"role":"user","content":"tell me of rivers"}]}}`, model))
	return id
}

func (w *world) write(lane event.Lane, id, conversation, data string) {
	w.t.Helper()
	key := id
	if conversation != "" {
		key = conversation
	}
	h := event.Head{Type: event.JobRequested, V: 1, Time: time.Now(), Tenant: "default", Job: id, Conversation: conversation}
	w.raw(event.Record{
		Topic: w.names.Requests(lane), Partition: job.Partition(key, w.partitions), Key: []byte(key),
		Value: event.Append(nil, &h, []byte(data)),
	})
}

func (w *world) raw(rec event.Record) {
	w.t.Helper()
	if _, err := w.producer.Append(w.t.Context(), rec); err != nil {
		w.t.Fatal(err)
	}
}

// running is a Processor at work.
type running struct {
	*Processor
	stop context.CancelFunc
	done chan error
}

// start runs a processor until the test or stop ends it.
func (w *world) start(owner string, change func(*Config)) *running {
	w.t.Helper()
	cfg := Config{Names: w.names, Owner: owner, Grace: 5 * time.Second, SessionTimeout: 15 * time.Second}
	if change != nil {
		change(&cfg)
	}
	models, err := llm.NewRegistry(map[string]string{"nobody": "absent/model"}, append(w.extra, simulated.New(), deaf{simulated.New()})...)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := New(cfg, w.cluster, models, slog.New(slog.NewTextHandler(logWriter{w.t, owner}, &slog.HandlerOptions{Level: slog.LevelInfo})), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Processor: p, stop: cancel, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- p.Run(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

// end stops the processor and waits for it.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
}

// deaf is a provider that cannot continue from a prefix.
type deaf struct{ p llm.Provider }

func (deaf) Name() string { return "deaf" }

func (d deaf) Stream(ctx context.Context, req llm.Request) seq { return d.p.Stream(ctx, req) }

type logWriter struct {
	t     *testing.T
	owner string
}

func (l logWriter) Write(b []byte) (int, error) {
	l.t.Log(l.owner, strings.TrimSpace(string(b)))
	return len(b), nil
}

// told is what a reader of the token topic knows of a job.
type told struct {
	job.Transcript
	seqs []int64
	all  []event.Type
}

// outputs reads the token topic until every job has ended.
func (w *world) outputs(ids ...string) map[string]*told {
	return w.outputsUntil(func(t *told) bool { return t.End != "" }, ids...)
}

func (w *world) outputsUntil(enough func(*told) bool, ids ...string) map[string]*told {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	tail, err := w.cluster.NewTail(kafka.TailConfig{Topic: w.names.Tokens()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer tail.Close()
	filters := make([]fence.Filter, w.partitions)
	for p := range w.partitions {
		tail.Follow(p, 0)
	}
	got := map[string]*told{}
	for _, id := range ids {
		got[id] = &told{}
	}
	for waiting := len(ids); waiting > 0; {
		chunks, err := tail.Poll(ctx)
		if err != nil {
			w.t.Fatalf("%d of %d jobs did not get there: %v", waiting, len(ids), err)
		}
		for _, c := range chunks {
			for i := range c.Records {
				v, err := event.ScanHead(c.Records[i].Value)
				if err != nil {
					w.t.Fatal(err)
				}
				t := got[string(v.Job)]
				if !filters[c.Partition].Admit(&v) || t == nil {
					continue
				}
				was := enough(t)
				t.seqs, t.all = append(t.seqs, v.Seq), append(t.all, v.Type)
				if err := t.Apply(&v); err != nil {
					w.t.Fatal(err)
				}
				if !was && enough(t) {
					waiting--
				}
			}
		}
	}
	for id, t := range got {
		for i, seq := range t.seqs {
			if seq != int64(i) {
				w.t.Errorf("job %s: event %d has seq %d: %v", id, i, seq, t.seqs)
				break
			}
		}
	}
	return got
}

// records reads what stands on a partition.
func (w *world) records(topic string, partition int32) (all []event.Record) {
	w.t.Helper()
	tp := kafka.TopicPartition{Topic: topic, Partition: partition}
	end, err := w.cluster.Offset(w.t.Context(), tp, kafka.End())
	if err != nil {
		w.t.Fatal(err)
	}
	for recs, err := range w.cluster.Scan(w.t.Context(), tp, 0, end) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, recs...)
	}
	return all
}

// fact is one of the jobs topic.
type fact struct {
	event.Head
	data string
}

// facts reads the terminal facts of the jobs topic until every job has one.
func (w *world) facts(ids ...string) map[string][]fact {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	tail, err := w.cluster.NewTail(kafka.TailConfig{Topic: w.names.Jobs()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer tail.Close()
	for p := range w.partitions {
		tail.Follow(p, 0)
	}
	got := map[string][]fact{}
	for missing := true; missing; {
		missing = false
		for _, id := range ids {
			missing = missing || len(got[id]) == 0
		}
		if !missing {
			break
		}
		chunks, err := tail.Poll(ctx)
		if err != nil {
			w.t.Fatalf("facts of some jobs did not come: %v", err)
		}
		for _, c := range chunks {
			for i := range c.Records {
				v, err := event.ScanHead(c.Records[i].Value)
				if err != nil {
					w.t.Fatal(err)
				}
				if v.Type.Terminal() {
					got[string(v.Job)] = append(got[string(v.Job)], fact{v.Head(), string(v.Data)})
				}
			}
		}
	}
	return got
}

// committed waits until everything requested so far is committed.
func (w *world) committed() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	for {
		behind := 0
		commits, err := w.cluster.Committed(ctx, w.names.Prefix+"processors")
		if err != nil {
			w.t.Fatal(err)
		}
		for _, lane := range event.Lanes() {
			ends, err := w.cluster.Offsets(ctx, w.names.Requests(lane), kafka.End())
			if err != nil {
				w.t.Fatal(err)
			}
			for p, end := range ends {
				if commits[kafka.TopicPartition{Topic: w.names.Requests(lane), Partition: p}].Next != end && end > 0 {
					behind++
				}
			}
		}
		if behind == 0 {
			return
		}
		if !sleep(ctx, 20*time.Millisecond) {
			w.t.Fatalf("%d partitions were not committed", behind)
		}
	}
}
