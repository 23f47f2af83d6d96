package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/kafka"
)

// syncBuffer is a log that many goroutines write.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	if _, err := kafka.Open(t.Context(), kafka.Config{}); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("without brokers: %v", err)
	}
	if _, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{"not an address:x:y"}}); err == nil {
		t.Error("a malformed address was taken")
	}
	// An address on which nobody listens.
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var log syncBuffer
	began := time.Now()
	_, err = kafka.Open(t.Context(), kafka.Config{
		Brokers: []string{addr}, ConnectTimeout: 300 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if !errors.Is(err, kafka.ErrUnavailable) || !strings.Contains(err.Error(), addr) {
		t.Errorf("nobody listens: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a limit of 300 ms took %v", took)
	}
	if !strings.Contains(log.String(), "kafka client") {
		t.Errorf("the client's own words are not in the log: %q", log.String())
	}
}

func TestMetricsCountWhatHappened(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		reg := prometheus.NewRegistry()
		c, err := kafka.Open(g.ctx, kafka.Config{Brokers: []string{g.addr}, Metrics: reg})
		g.no(err)
		defer c.Close()
		if _, err := kafka.Open(g.ctx, kafka.Config{Brokers: []string{g.addr}, Metrics: reg}); err == nil {
			g.Fatal("one registry took two clusters")
		}
		topic := g.topic("counted", 1)
		p, err := c.NewProducer(kafka.ProducerConfig{MaxRecordBytes: 1000, Compression: kafka.LZ4})
		g.no(err)
		defer p.Close()
		_, err = p.Append(g.ctx, record(topic, 0, "a"), record(topic, 0, "b"))
		g.no(err)
		_, err = p.Append(g.ctx, record(topic, 0, strings.Repeat("x", 1000)))
		g.is(err, kafka.ErrRefused)
		_, err = c.Fetch(g.ctx, kafka.TopicPartition{Topic: topic}, 0, 1<<20, 0)
		g.no(err)
		families, err := reg.Gather()
		g.no(err)
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				got[f.GetName()] += m.GetCounter().GetValue()
			}
		}
		for name, want := range map[string]float64{
			"penstock_kafka_produced_records_total": 2, "penstock_kafka_refused_records_total": 1, "penstock_kafka_fetched_records_total": 2,
		} {
			if got[name] != want {
				g.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
	})
}

func TestWhatIsNotThereIsSaidSo(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		absent := kafka.TopicPartition{Topic: g.prefix + "absent"}
		ctx, cancel := context.WithTimeout(g.ctx, 20*time.Second)
		defer cancel()
		_, err := g.c.Fetch(ctx, absent, 0, 1, 0)
		g.is(err, kafka.ErrUnknownTopic)
		_, err = g.c.TopicID(ctx, absent.Topic)
		g.is(err, kafka.ErrUnknownTopic)
		topic := g.topic("one", 1)
		_, err = g.c.Fetch(ctx, kafka.TopicPartition{Topic: topic, Partition: 1}, 0, 1, 0)
		g.is(err, kafka.ErrUnknownTopic)
		if have, err := g.c.Describe(ctx, absent.Topic); err != nil || len(have) != 0 {
			g.Fatalf("described %v, %v", have, err)
		}
		if committed, err := g.c.Committed(ctx, g.prefix+"nobody"); err != nil || len(committed) != 0 {
			g.Fatalf("committed %v, %v", committed, err)
		}
		if _, err := g.c.NewGroup(kafka.GroupConfig{}); err == nil {
			g.Fatal("a group without a name was taken")
		}
	})
}
