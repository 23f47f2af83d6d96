package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
)

// lay appends batches of a record each.
func (g *ground) lay(topic string, partition int32, values ...string) {
	g.Helper()
	p := g.producer(kafka.ProducerConfig{})
	for _, v := range values {
		_, err := p.Append(g.ctx, record(topic, partition, v))
		g.no(err)
	}
}

// next gives a partition's next chunk of a tail that has records or a fault. What else
// a poll has brought is kept for the next call.
func (g *ground) next(tail *kafka.Tail, partition int32) kafka.Chunk {
	g.Helper()
	for {
		for len(g.polled) > 0 {
			ch := g.polled[0]
			g.polled = g.polled[1:]
			if ch.Partition == partition && (ch.Err != nil || len(ch.Records) > 0) {
				return ch
			}
		}
		var err error
		g.polled, err = tail.Poll(g.ctx)
		g.no(err)
	}
}

// corrupt wants an error that tells of the second of three batches.
func (g *ground) corrupt(err error) {
	g.Helper()
	g.is(err, kafka.ErrCorrupt)
	if e, ok := errors.AsType[*kafka.CorruptError](err); !ok || e.Offset != 1 || e.Next != 2 || e.Why == "" {
		g.Fatalf("%v does not tell of the batch from 1 to 2", err)
	}
}

func TestABatchThatATransferHasDamagedIsReadAgain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("transfer", 1)
		g.lay(topic, 0, "first", damaged, "last")
		g.link.hurt(2)
		got, err := g.c.Fetch(g.ctx, kafka.TopicPartition{Topic: topic}, 1, 1<<20, 0)
		g.no(err)
		if len(got.Records) != 2 || string(got.Records[0].Value) != damaged {
			g.Fatalf("read %d records from offset 1 on, want 2", len(got.Records))
		}
		g.link.hurt(2)
		tail := g.tail(kafka.TailConfig{Topic: topic})
		tail.Follow(0, 0)
		for read := int64(0); read < 3; {
			ch := g.next(tail, 0)
			g.no(ch.Err)
			read = ch.Next
		}
	})
}

func TestABatchThatCannotBeDecodedIsToldWithWhatStandsBehindIt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("corrupt", 2)
		tp := kafka.TopicPartition{Topic: topic}
		g.lay(topic, 0, "first", damaged, "last")
		g.lay(topic, 1, "another partition's")
		g.link.hurt(math.MaxInt)
		tail := g.tail(kafka.TailConfig{Topic: topic})
		tail.Follow(0, 0)
		if ch := g.next(tail, 0); ch.Err != nil || len(ch.Records) != 1 || ch.Next != 1 {
			g.Fatalf("what stands before it is not handed over: %+v", ch)
		}
		ch := g.next(tail, 0)
		g.corrupt(ch.Err)
		tail.Follow(1, 0)
		g.no(g.next(tail, 1).Err)
		tail.Follow(0, 2)
		if ch := g.next(tail, 0); ch.Err != nil || string(ch.Records[0].Value) != "last" {
			g.Fatalf("followed behind it: %+v", ch)
		}
		_, err := g.c.Fetch(g.ctx, tp, 1, 1<<20, 0)
		g.corrupt(err)
		var scanned []event.Record
		for recs, err := range g.c.Scan(g.ctx, tp, 0, 3) {
			if err != nil {
				g.corrupt(err)
			}
			scanned = append(scanned, recs...)
		}
		if len(scanned) != 1 {
			g.Fatalf("a scan gave %d records before it, want 1", len(scanned))
		}
		var fed []string
		err = g.c.Feed(g.ctx, kafka.TailConfig{Topic: topic}, 0, 0, func(c kafka.Chunk) error {
			for i := range c.Records {
				fed = append(fed, string(c.Records[i].Value))
			}
			if c.Next == 3 {
				return errEnough
			}
			return nil
		})
		g.is(err, errEnough)
		if got := strings.Join(fed, " "); got != "first last" {
			g.Fatalf("fed %q", got)
		}
	})
}

var errEnough = errors.New("enough")

// counted counts a message of a log.
type counted struct {
	slog.Handler
	message string
	n       *atomic.Int64
}

func (counted) Enabled(context.Context, slog.Level) bool { return true }

func (c counted) Handle(_ context.Context, r slog.Record) error {
	if r.Message == c.message {
		c.n.Add(1)
	}
	return nil
}

func TestWhoMustNotPassABatchStandsAtItAndGoesOnWhenItIsWhole(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("stands", 2)
		g.lay(topic, 0, "first", damaged, "last")
		g.lay(topic, 1, "another partition's")
		reg := prometheus.NewRegistry()
		said := counted{slog.DiscardHandler, "a batch of records in Kafka cannot be decoded", new(atomic.Int64)}
		c, err := kafka.Open(g.ctx, kafka.Config{Brokers: []string{g.addr}, Dial: g.link.dial, Metrics: reg, Log: slog.New(said)})
		g.no(err)
		g.Cleanup(c.Close)
		gr, err := c.NewGroup(kafka.GroupConfig{Group: g.prefix + "group", Topics: []string{topic}, Stand: 20 * time.Millisecond})
		g.no(err)
		g.Cleanup(gr.Close)
		g.link.hurt(math.MaxInt)
		read := map[string]bool{}
		take := func(p kafka.Poll) {
			for _, f := range p.Faults {
				g.Errorf("a fault: %v", f.Err)
			}
			for i := range p.Records {
				read[string(p.Records[i].Value)] = true
			}
		}
		g.until(gr, "what can be read", func(p kafka.Poll) bool { take(p); return len(read) == 2 })
		if read["last"] {
			g.Fatal("it has passed over the batch")
		}
		for standing(g, reg, "standing_readers") != 1 || standing(g, reg, "corrupt_batches_total") < 3 {
			ctx, cancel := context.WithTimeout(g.ctx, 10*time.Millisecond)
			p, _ := gr.Poll(ctx)
			cancel()
			take(p)
		}
		if n := said.n.Load(); n != 1 {
			g.Errorf("it was logged %d times, want once", n)
		}
		g.link.hurt(0)
		g.until(gr, "the rest", func(p kafka.Poll) bool { take(p); return len(read) == 4 })
		if n := standing(g, reg, "standing_readers"); n != 0 {
			g.Errorf("%v readers stand there", n)
		}
	})
}

func standing(g *ground, reg *prometheus.Registry, name string) (n float64) {
	g.Helper()
	if g.ctx.Err() != nil {
		g.Fatal(g.ctx.Err())
	}
	all, err := reg.Gather()
	g.no(err)
	for _, f := range all {
		if f.GetName() == "penstock_kafka_"+name {
			for _, m := range f.GetMetric() {
				n += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// TestWhatADiskHasDamagedIsTold changes a byte of Kafka's own file.
func TestWhatADiskHasDamagedIsTold(t *testing.T) {
	t.Parallel()
	server, err := testenv.StartKafka(t.Context(), testenv.KafkaOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	g := newGround(t, server.Addr(), true)
	topic := g.topic("disk", 1)
	g.lay(topic, 0, "first", damaged, "last")
	cl := g.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 3 {
		g.no(cl.ProduceSync(g.ctx, &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "more %d", i)}).FirstErr())
	}
	file := filepath.Join(filepath.Dir(server.LogFile()), "data", topic+"-0", "00000000000000000000.log")
	log, err := os.ReadFile(file)
	g.no(err)
	at := strings.Index(string(log), damaged)
	if at < 0 {
		t.Fatal("the value is not in the log's file")
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	g.no(err)
	_, err = f.WriteAt([]byte{'X'}, int64(at))
	g.no(err)
	g.no(f.Close())
	tail := g.tail(kafka.TailConfig{Topic: topic})
	tail.Follow(0, 0)
	if ch := g.next(tail, 0); ch.Err != nil || ch.Next != 1 {
		t.Fatalf("before it: %+v", ch)
	}
	g.corrupt(g.next(tail, 0).Err)
	tail.Follow(0, 2)
	for read := int64(2); read < 6; {
		ch := g.next(tail, 0)
		g.no(ch.Err)
		read = ch.Next
	}
	_, err = g.c.Fetch(g.ctx, kafka.TopicPartition{Topic: topic}, 1, 1<<20, 0)
	g.corrupt(err)
}
