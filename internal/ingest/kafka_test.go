package ingest

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

// onKafka makes a service on a cluster, with topics of its own.
func onKafka(t *testing.T, addr, prefix string, cfg Config) (*Service, *kafka.Cluster) {
	t.Helper()
	cluster, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	if err := cluster.Apply(t.Context(), topics.Plan(topics.Catalogue(topics.Options{Prefix: prefix, Partitions: 3}), nil)); err != nil {
		t.Fatal(err)
	}
	producer, err := cluster.NewProducer(kafka.ProducerConfig{MaxRecordBytes: topics.DefaultMaxRequestBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	cfg.Producer, cfg.Partitions, cfg.Names, cfg.Now = producer, 3, topics.Names{Prefix: prefix}, time.Now
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, cluster
}

// follow runs a loop for as long as the test.
func follow(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestReceiptSaysWhereTheRequestLiesOnKafka(t *testing.T) {
	prefix := testenv.Prefix(t)
	s, cluster := onKafka(t, testenv.Kafka(t), prefix, Config{Keys: database(t)})
	positions := NewPositions(cluster, s.cfg.Names.Tokens(), nil)
	s.cfg.Cursors = positions
	follow(t, positions.Run)
	until(t, "there is a cursor", func() bool { return positions.TokensCursor(2) != "" })
	w, _ := send(t, handler(s), `{"lane":"interactive","body":{"model":"sim"}}`, "Idempotency-Key", "k")
	res := receipt(t, w)
	found := 0
	for recs, err := range cluster.Scan(t.Context(), kafka.TopicPartition{Topic: res.Request.Topic, Partition: res.Request.Partition}, res.Request.Offset, res.Request.Offset+1) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range recs {
			found++
			h, r, err := event.DecodeRequest(&recs[i])
			if err != nil || h.Job != res.ID || !recs[i].Time.Equal(res.CreatedAt.Time) || string(recs[i].Header("ce_type")) != "io.penstock.job.requested" {
				t.Errorf("%+v %+v at %v: %v", h, r, recs[i].Time, err)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d records at the place that the receipt names", found)
	}
	id, err := cluster.TopicID(t.Context(), s.cfg.Names.Tokens())
	if err != nil {
		t.Fatal(err)
	}
	got, err := cursor.Parse(res.Cursor)
	want := cursor.Cursor{Topic: id, Partition: job.Partition(res.ID, 3), LeaderEpoch: -1}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestRequestAsLargeAsItMayBeIsTakenByKafka(t *testing.T) {
	prefix := testenv.Prefix(t)
	s, _ := onKafka(t, testenv.Kafka(t), prefix, Config{})
	pad := make([]byte, topics.DefaultMaxRequestBytes)
	for i := range pad {
		pad[i] = 'x'
	}
	for size, want := range map[int]fault.Code{len(pad) - 1500: "", len(pad) - 100: fault.TooLarge} {
		_, err := s.Submit(t.Context(), "default", job.Request{Body: []byte(`{"model":"sim","x":"` + string(pad[:size]) + `"}`)}, job.SubmitOptions{})
		if want == "" && err != nil || want != "" && fault.From(err).Code != want {
			t.Errorf("%d bytes: %v, want %q", size, err, want)
		}
	}
}

func TestFrozenKafkaIsA503InTimeAndIsFoundAgain(t *testing.T) {
	broker, err := testenv.StartKafka(t.Context(), testenv.KafkaOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Stop(); err != nil {
			t.Error(err)
		}
	})
	const patience = 5 * time.Second // in which the record is sent
	s, _ := onKafka(t, broker.Addr(), "p.", Config{Keys: database(t), AppendTimeout: patience})
	h := handler(s)
	if w, _ := send(t, h, hi); w.Code != http.StatusAccepted {
		t.Fatalf("before: %d %s", w.Code, w.Body)
	}
	if err := broker.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w, a := send(t, h, hi, "Idempotency-Key", "k")
	if took := time.Since(began); w.Code != http.StatusServiceUnavailable || a.Error.Code != fault.UnknownOutcome || took > patience+20*time.Second {
		t.Errorf("frozen: %d %+v after %v", w.Code, a, took)
	}
	if err := broker.Resume(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		w, _ = send(t, h, hi, "Idempotency-Key", "k")
		if w.Code == http.StatusAccepted {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a minute after it went on: %d %s", w.Code, w.Body)
		}
	}
	first := receipt(t, w)
	again, _ := send(t, h, hi, "Idempotency-Key", "k")
	if again.Body.String() != w.Body.String() {
		t.Errorf("job %s, then %s", first.ID, again.Body)
	}
}
