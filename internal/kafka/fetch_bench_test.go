package kafka_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

// manyPartitions is what a processor reads: three lanes of twelve.
const manyPartitions = 36

// traffic counts what a cluster's clients write and read. Each write is a
// request, but for the few that open a connection.
type traffic struct{ writes, written, read atomic.Int64 }

func (t *traffic) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return countedConn{conn, t}, err
}

type countedConn struct {
	net.Conn
	t *traffic
}

func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.t.writes.Add(1)
	c.t.written.Add(int64(n))
	return n, err
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.t.read.Add(int64(n))
	return n, err
}

// javaTime is the CPU time that this process' Java children have used; 0 where
// there is none, or no /proc.
func javaTime() time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var total time.Duration
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		name, rest, ok := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if !ok || !strings.HasSuffix(name, "(java") || len(fields) < 13 || fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		for _, f := range fields[11:13] { // user and system time
			n, _ := strconv.ParseInt(f, 10, 64)
			total += time.Duration(n) * tick
		}
	}
	return total
}

// onMany runs a benchmark of a tail of 36 partitions on both brokers, and
// reports what the reading of a record costs on the wire and at the broker. The
// producer has connections of its own, that are not counted.
func onMany(b *testing.B, cfg kafka.TailConfig, bench func(b *testing.B, p *kafka.Producer, tail *kafka.Tail, topic string)) {
	b.Helper()
	for _, g := range []struct {
		name string
		addr func(testing.TB) string
	}{{"embedded", startEmbedded}, {"apache", testenv.Kafka}} {
		b.Run(g.name, func(b *testing.B) {
			addr, wire := g.addr(b), &traffic{}
			c := openAt(b, kafka.Config{Brokers: []string{addr}})
			counted := openAt(b, kafka.Config{Brokers: []string{addr}, Dial: wire.dial})
			topic := testenv.Prefix(b) + "many"
			t := topics.Topic{Name: topic, Partitions: manyPartitions, Replication: 1}
			if err := c.Apply(b.Context(), []topics.Change{{Kind: topics.Create, Topic: t}}); err != nil {
				b.Fatal(err)
			}
			p := produce(b, c)
			defer p.Close()
			cfg.Topic = topic
			tail, err := counted.NewTail(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer tail.Close()
			for part := range int32(manyPartitions) {
				tail.Follow(part, 0)
			}
			appendOne(b, p, record(topic, 0, "the first opens the connections"))
			receive(b, tail, 1)
			writes, written, read, java := wire.writes.Load(), wire.written.Load(), wire.read.Load(), javaTime()
			b.ReportAllocs()
			b.ResetTimer()
			bench(b, p, tail, topic)
			b.StopTimer()
			n := float64(b.N)
			b.ReportMetric(float64(wire.writes.Load()-writes)/n, "requests/op")
			b.ReportMetric(float64(wire.written.Load()-written)/n, "sent-B/op")
			b.ReportMetric(float64(wire.read.Load()-read)/n, "got-B/op")
			if g.name == "apache" {
				b.ReportMetric(float64((javaTime()-java).Microseconds())/n, "broker-µs/op")
			}
		})
	}
}

func openAt(b *testing.B, cfg kafka.Config) *kafka.Cluster {
	b.Helper()
	c, err := kafka.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// receive polls until a number of records has come.
func receive(b *testing.B, tail *kafka.Tail, n int) {
	b.Helper()
	for n > 0 {
		chunks, err := tail.Poll(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for _, ch := range chunks {
			if ch.Err != nil {
				b.Fatal(ch.Err)
			}
			n -= len(ch.Records)
		}
	}
}

// BenchmarkOneOfMany is one hop to a tail of 36 partitions, one record at a time.
func BenchmarkOneOfMany(b *testing.B) {
	onMany(b, kafka.TailConfig{}, func(b *testing.B, p *kafka.Producer, tail *kafka.Tail, topic string) {
		b.Helper()
		for i := range b.N {
			if err := p.Go(record(topic, int32(i%manyPartitions), "x"), nil); err != nil {
				b.Fatal(err)
			}
			receive(b, tail, 1)
		}
	})
}

// BenchmarkStreamOfMany is records at 5,000 a second over 36 partitions, each
// produced by itself.
func BenchmarkStreamOfMany(b *testing.B) {
	const every = 200 * time.Microsecond
	stream := func(b *testing.B, p *kafka.Producer, tail *kafka.Tail, topic string) {
		b.Helper()
		begun, sent := time.Now(), make(chan error, 1)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		go func() {
			var err error
			for i := 0; i < b.N && err == nil; {
				if due := int(time.Since(begun) / every); i >= due {
					<-tick.C
					continue
				}
				err = p.Go(record(topic, int32(i%manyPartitions), "x"), nil)
				i++
			}
			sent <- err
		}()
		receive(b, tail, b.N)
		if err := <-sent; err != nil {
			b.Fatal(err)
		}
	}
	for _, pace := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond} {
		b.Run(fmt.Sprintf("pace=%v", pace), func(b *testing.B) { onMany(b, kafka.TailConfig{Pace: pace}, stream) })
	}
}
