package gateway

import (
	"strconv"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// benchJob is a job on a log that holds nothing else.
type benchJob struct {
	socket *socket
	head   event.Head
}

// benchSocket makes a gateway without a Kafka, and a socket without a client.
func benchSocket(b *testing.B) (*Gateway, *benchJob) {
	b.Helper()
	gw := newGateway(Config{Partitions: 1}, still{}, func(kafka.TailConfig) (Tail, error) { return still{}, nil })
	s := newSocket(gw.sockets, &websocket.Conn{}, nil)
	s.tenant, s.ctx = "default", b.Context()
	return gw, &benchJob{s, event.Head{
		Type: event.OutputDelta, V: 1, Time: time.Now(), Tenant: "default", Job: "bench", Attempt: 1, Lane: event.Standard, Epoch: 1,
	}}
}

func (j *benchJob) subscribe(b *testing.B, _ *Gateway, name string) *subscription {
	b.Helper()
	sub, err := j.socket.reserve(name)
	if err != nil {
		b.Fatal(err)
	}
	if err := j.socket.open(sub, &clientFrame{job: "bench"}); err != nil {
		b.Fatal(err)
	}
	sub.reader.near = true
	sub.reader.answer(sub)
	return sub
}

func (j *benchJob) produce(b *testing.B, gw *Gateway, n int) {
	b.Helper()
	c := kafka.Chunk{From: j.head.Seq}
	for range n {
		c.Records = append(c.Records, event.Record{Offset: j.head.Seq, Value: event.Append(nil, &j.head, []byte(`{"index":0,"content":" word"}`))})
		j.head.Seq++
	}
	c.Next = j.head.Seq
	gw.hub.take(b.Context(), gw.hub.tail, &c)
}

// BenchmarkEventsFrame writes an events frame of 64 deltas from a segment.
func BenchmarkEventsFrame(b *testing.B) {
	gw, bench := benchSocket(b)
	const perFrame = 64
	sub := bench.subscribe(b, gw, "a")
	bench.produce(b, gw, perFrame)
	start := sub.reader.next
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		sub.reader.seek(start)
		sub.job.progress.NextSeq, sub.job.anySeq = 0, false
		if _, err := sub.feed.poll(b.Context()); err != nil {
			b.Fatal(err)
		}
		sub.frame.finish()
		size = len(sub.frame.box.bytes())
		sub.frame.reset()
	}
	b.SetBytes(int64(size))
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/perFrame, "ns/event")
}

// BenchmarkSocketFanOut delivers one job's events, ten a chunk, to a thousand
// subscriptions: from the tail's chunk to the frames that clients would get.
func BenchmarkSocketFanOut(b *testing.B) {
	gw, bench := benchSocket(b)
	const subscribers, perChunk = 1000, 10
	subs := make([]*subscription, subscribers)
	for i := range subs {
		subs[i] = bench.subscribe(b, gw, strconv.Itoa(i))
	}
	delivered := 0
	b.ReportAllocs()
	for b.Loop() {
		bench.produce(b, gw, perChunk)
		for _, sub := range subs {
			if _, err := sub.feed.poll(b.Context()); err != nil {
				b.Fatal(err)
			}
			sub.frame.finish()
			delivered += sub.frame.events
			sub.frame.reset()
		}
	}
	if delivered != b.N*subscribers*perChunk {
		b.Fatalf("%d events were delivered, want %d", delivered, b.N*subscribers*perChunk)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(delivered), "ns/event")
}
