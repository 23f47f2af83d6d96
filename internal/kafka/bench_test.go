package kafka_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

// onEach runs a benchmark on both brokers, with a topic of 12 partitions.
func onEach(b *testing.B, bench func(b *testing.B, c *kafka.Cluster, topic string)) {
	b.Helper()
	for _, g := range []struct {
		name string
		addr func(testing.TB) string
	}{{"embedded", startEmbedded}, {"apache", testenv.Kafka}} {
		b.Run(g.name, func(b *testing.B) {
			c, err := kafka.Open(b.Context(), kafka.Config{Brokers: []string{g.addr(b)}})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			topic := testenv.Prefix(b) + "bench"
			t := topics.Topic{Name: topic, Partitions: 12, Replication: 1}
			if err := c.Apply(b.Context(), []topics.Change{{Kind: topics.Create, Topic: t}}); err != nil {
				b.Fatal(err)
			}
			bench(b, c, topic)
		})
	}
}

func produce(b *testing.B, c *kafka.Cluster) *kafka.Producer {
	b.Helper()
	p, err := c.NewProducer(kafka.ProducerConfig{MaxBuffered: 100_000})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func appendOne(b *testing.B, p *kafka.Producer, recs ...event.Record) {
	b.Helper()
	if _, err := p.Append(b.Context(), recs...); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkAppend(b *testing.B) {
	onEach(b, func(b *testing.B, c *kafka.Cluster, topic string) {
		b.Helper()
		p := produce(b, c)
		defer p.Close()
		rec := record(topic, 0, "two hundred bytes, near enough")
		appendOne(b, p, rec)
		for b.Loop() {
			appendOne(b, p, rec)
		}
	})
}

func BenchmarkFetchOfAWarmRecord(b *testing.B) {
	onEach(b, func(b *testing.B, c *kafka.Cluster, topic string) {
		b.Helper()
		p := produce(b, c)
		defer p.Close()
		appendOne(b, p, record(topic, 0, "x"))
		for b.Loop() {
			got, err := c.Fetch(b.Context(), kafka.TopicPartition{Topic: topic}, 0, 1<<20, 0)
			if err != nil || len(got.Records) == 0 {
				b.Fatal(got, err)
			}
		}
	})
}

// BenchmarkAppendToTail is one hop: from an append to its record out of a tail
// that follows all partitions.
func BenchmarkAppendToTail(b *testing.B) {
	onEach(b, func(b *testing.B, c *kafka.Cluster, topic string) {
		b.Helper()
		p := produce(b, c)
		defer p.Close()
		tail, err := c.NewTail(kafka.TailConfig{Topic: topic})
		if err != nil {
			b.Fatal(err)
		}
		defer tail.Close()
		for part := range int32(12) {
			tail.Follow(part, 0)
		}
		n := 0
		next := func() {
			for {
				chunks, err := tail.Poll(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				for _, ch := range chunks {
					if len(ch.Records) > 0 {
						return
					}
				}
			}
		}
		for b.Loop() {
			n++
			if err := p.Go(record(topic, int32(n%12), "x"), nil); err != nil {
				b.Fatal(err)
			}
			next()
		}
	})
}

// BenchmarkFollowWhileParked is from Follow to the first record, while a poll of
// other partitions is parked for 5 s; the last partition in finds both lanes
// parked.
func BenchmarkFollowWhileParked(b *testing.B) {
	for _, lanes := range []int{1, 2} {
		b.Run(strconv.Itoa(lanes), func(b *testing.B) {
			onEach(b, func(b *testing.B, c *kafka.Cluster, topic string) {
				b.Helper()
				p := produce(b, c)
				defer p.Close()
				tail, err := c.NewTail(kafka.TailConfig{Topic: topic, FetchMaxWait: 5 * time.Second})
				if err != nil {
					b.Fatal(err)
				}
				defer tail.Close()
				end := func(part int32) {
					for {
						chunks, err := tail.Poll(b.Context())
						if err != nil {
							b.Fatal(err)
						}
						for _, ch := range chunks {
							if ch.Partition == part {
								return
							}
						}
					}
				}
				for part := range int32(lanes) {
					tail.Follow(part, 0)
					end(part)
				}
				appendOne(b, p, record(topic, 11, "x"))
				for b.Loop() {
					tail.Follow(11, 0)
					end(11)
				}
			})
		})
	}
}

func BenchmarkScan(b *testing.B) {
	onEach(b, func(b *testing.B, c *kafka.Cluster, topic string) {
		b.Helper()
		p := produce(b, c)
		defer p.Close()
		const n = 100_000
		rec := record(topic, 0, string(make([]byte, 200)))
		for range n / 100 {
			for range 100 {
				if err := p.Go(rec, nil); err != nil {
					b.Fatal(err)
				}
			}
			if err := p.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		for b.Loop() {
			got := 0
			for recs, err := range c.Scan(b.Context(), kafka.TopicPartition{Topic: topic}, 0, n) {
				if err != nil {
					b.Fatal(err)
				}
				got += len(recs)
			}
			if got != n {
				b.Fatal(got)
			}
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
}

func BenchmarkTail(b *testing.B) {
	onEach(b, func(b *testing.B, c *kafka.Cluster, topic string) {
		b.Helper()
		p := produce(b, c)
		defer p.Close()
		const n = 120_000
		for i := range n {
			rec := record(topic, int32(i%12), string(make([]byte, 200)))
			if i%10_000 == 0 {
				if err := p.Flush(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			if err := p.Go(rec, nil); err != nil {
				b.Fatal(err)
			}
		}
		if err := p.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		tail, err := c.NewTail(kafka.TailConfig{Topic: topic})
		if err != nil {
			b.Fatal(err)
		}
		defer tail.Close()
		for b.Loop() {
			for part := range int32(12) {
				tail.Follow(part, 0)
			}
			for got := 0; got < n; {
				chunks, err := tail.Poll(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				for _, ch := range chunks {
					got += len(ch.Records)
				}
			}
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
}
