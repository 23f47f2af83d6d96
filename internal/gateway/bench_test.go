package gateway

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// still is a Kafka that holds nothing, and a tail that brings nothing.
type still struct{}

func (still) Fetch(_ context.Context, _ kafka.TopicPartition, from int64, _ int32, _ time.Duration) (kafka.Fetched, error) {
	return kafka.Fetched{Next: from, HighWatermark: from, TopicID: [16]byte{1}}, nil
}

func (still) Offset(context.Context, kafka.TopicPartition, kafka.At) (int64, error) { return 0, nil }

func (still) TopicID(context.Context, string) ([16]byte, error) { return [16]byte{1}, nil }
func (still) Follow(int32, int64)                               {}
func (still) Unfollow(int32)                                    {}
func (still) Close()                                            {}
func (still) Poll(ctx context.Context) ([]kafka.Chunk, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// BenchmarkFanOut delivers one job's events, ten a chunk, to a thousand
// watchers: from the tail's chunk to the bytes that a client would get.
func BenchmarkFanOut(b *testing.B) {
	const watchers, perChunk = 1000, 10
	gw := newGateway(Config{Partitions: 1}, still{}, func(kafka.TailConfig) (Tail, error) { return still{}, nil })
	feeds, outs := make([]*jobFeed, watchers), make([]frames, watchers)
	for i := range feeds {
		f := &jobFeed{out: &outs[i]}
		f.tenant, f.id = "default", "bench"
		if err := f.open(b.Context(), gw, nil, ""); err != nil {
			b.Fatal(err)
		}
		feeds[i] = f
	}
	h := event.Head{Type: event.OutputDelta, V: 1, Time: time.Now(), Tenant: "default", Job: "bench", Attempt: 1, Lane: event.Standard, Epoch: 1}
	delivered := 0
	b.ReportAllocs()
	for b.Loop() {
		c := kafka.Chunk{From: h.Seq}
		for range perChunk {
			c.Records = append(c.Records, event.Record{Offset: h.Seq, Value: event.Append(nil, &h, []byte(`{"index":0,"content":" word"}`))})
			h.Seq++
		}
		c.Next = h.Seq
		gw.hub.take(b.Context(), gw.hub.tail, &c)
		for i, f := range feeds {
			if _, err := f.poll(b.Context()); err != nil {
				b.Fatal(err)
			}
			delivered += outs[i].events
			f.out.reset()
		}
	}
	if delivered != b.N*watchers*perChunk {
		b.Fatalf("%d events were delivered, want %d", delivered, b.N*watchers*perChunk)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(delivered), "ns/event")
}

// BenchmarkFirstEvent is what the gateway adds for a client that subscribes to
// a job as soon as it is created: from its call to its first event, on a
// partition that is followed, where the event is written at the same time.
func BenchmarkFirstEvent(b *testing.B) {
	g := onOne(b, Config{})
	warm := g.author()
	for warm.part != 0 {
		warm = g.author()
	}
	warm.whole(1)
	g.open(events(warm)).rest()
	pause(b.Context(), 1500*time.Millisecond) // more than Config.Skew
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		a := g.author()
		for a.part != 0 {
			a = g.author()
		}
		b.StartTimer()
		a.started()
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, g.url+events(a), http.NoBody)
		g.no(err)
		resp, err := http.DefaultClient.Do(req)
		g.no(err)
		c := &client{g: g, resp: resp}
		c.first()
		b.StopTimer()
		if err := resp.Body.Close(); err != nil {
			b.Fatal(fmt.Errorf("close: %w", err))
		}
		b.StartTimer()
	}
}

// first waits for the first bytes.
func (c *client) first() {
	var buf [4096]byte
	if n, err := c.resp.Body.Read(buf[:]); n == 0 {
		c.g.Fatal(err)
	}
}
