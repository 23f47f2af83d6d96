package kafka_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
)

func TestAPaceGathersRecords(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		const n, pace = 200, 100 * time.Millisecond
		topic := g.topic("tokens", 2)
		tail, ear := g.listeningTail(kafka.TailConfig{Topic: topic, Pace: pace})
		r, p := g.reading(tail), g.producer(kafka.ProducerConfig{})
		r.follow(0, 0)
		r.follow(1, 0)
		r.until("the ends", r.allTold)
		_, at := ear.heardSince(0)
		began := time.Now()
		for i := range n {
			_, err := p.Append(g.ctx, record(topic, int32(i%2), "x"))
			g.no(err)
		}
		r.until("all records", func() bool { return r.next[0]+r.next[1] == n })
		got, _ := ear.heardSince(at)
		// Two lanes, and the fetches that were parked at the beginning.
		if most := 2*int(time.Since(began)/pace) + 6; len(got) > most {
			g.Fatalf("%d fetches in %v, want %d at the most", len(got), time.Since(began), most)
		}
	})
}

func TestAPaceDelaysNothingThatWasNewlyFollowed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		const parts = 4
		topic := g.topic("tokens", parts)
		for part := range int32(parts) {
			g.fill(topic, part, 1)
		}
		tail := g.tail(kafka.TailConfig{Topic: topic, Pace: time.Hour})
		r := g.reading(tail)
		for part := range int32(parts) {
			r.follow(part, 0)
			r.until("the record of partition "+strconv.Itoa(int(part)), func() bool { return r.next[part] == 1 })
		}
	})
}

func TestReadingGoesOnAfterTheBrokerStartedAnew(t *testing.T) {
	t.Parallel()
	read := func(g *ground, restart func()) {
		topic := g.topic("tokens", 3)
		r := g.reading(g.tail(kafka.TailConfig{Topic: topic, FetchMaxWait: 5 * time.Second}))
		for part := range int32(3) {
			r.follow(part, 0)
		}
		began := time.Now()
		for i := range int64(2) {
			for part := range int32(3) {
				g.fill(topic, part, 5)
				r.until("five records", func() bool { return r.next[part] == 5*(i+1) })
			}
			if i == 0 {
				restart()
				began = time.Now()
			}
		}
		g.Logf("read on %v after the broker was back", time.Since(began))
	}
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		cfg := devstack.BrokerConfig{Dir: t.TempDir()}
		b, err := devstack.StartBroker(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		cfg.Listen = b.Addr()
		g := newGround(t, b.Addr(), false)
		read(g, func() {
			g.no(b.Close())
			b, err = devstack.StartBroker(context.WithoutCancel(g.ctx), cfg)
			g.no(err)
		})
	})
	t.Run("apache", func(t *testing.T) {
		t.Parallel()
		k, err := testenv.StartKafka(t.Context(), testenv.KafkaOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = k.Stop() })
		g := newGround(t, k.Addr(), true)
		read(g, func() {
			began := time.Now()
			g.no(k.Kill())
			g.no(k.Restart(g.ctx))
			g.Logf("the broker was away for %v", time.Since(began))
		})
	})
}
