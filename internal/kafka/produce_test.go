package kafka_test

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

func TestAppendKeepsOrderAndEverythingOfARecord(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("order", 3)
		p := g.producer(kafka.ProducerConfig{})
		at := time.UnixMilli(1_700_000_000_123)
		var want [3][]event.Record
		for round := range 20 {
			var recs []event.Record
			for part := range int32(3) {
				for i := range 5 {
					recs = append(recs, event.Record{
						Topic: topic, Partition: part, Key: []byte("k"), Value: []byte(strconv.Itoa(round*5 + i)),
						Headers: []event.Header{{Key: "traceparent", Value: []byte("00-1")}}, Time: at,
					})
				}
			}
			acks, err := p.Append(g.ctx, recs...)
			g.no(err)
			for i, a := range acks {
				recs[i].Offset = a.Offset
				if a.Partition != recs[i].Partition {
					g.Fatalf("acknowledged on partition %d, was for %d", a.Partition, recs[i].Partition)
				}
				want[a.Partition] = append(want[a.Partition], recs[i])
			}
		}
		for part := range int32(3) {
			var got []event.Record
			for recs, err := range g.c.Scan(g.ctx, kafka.TopicPartition{Topic: topic, Partition: part}, 0, 100) {
				g.no(err)
				got = append(got, recs...)
			}
			for i := range got {
				if got[i].Offset != int64(i) {
					g.Fatalf("offset %d at place %d", got[i].Offset, i)
				}
				got[i].LeaderEpoch = 0
			}
			if diff := cmp.Diff(want[part], got); diff != "" {
				g.Fatalf("partition %d (-appended +read):\n%s", part, diff)
			}
		}
	})
}

func TestARecordThatNobodyTakesIsRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("small", 1, "max.message.bytes", "2000")
		p := g.producer(kafka.ProducerConfig{TopicBytes: map[string]int{topic: 1 << 20}})
		// The broker's word: this producer was told of a larger limit.
		_, err := p.Append(g.ctx, record(topic, 0, strings.Repeat("x", 3000)))
		g.is(err, kafka.ErrRefused)
		// Our own, before anything is sent: neither of the two is appended.
		tight := g.producer(kafka.ProducerConfig{TopicBytes: map[string]int{topic: 2000}})
		_, err = tight.Append(g.ctx, record(topic, 0, "y"), record(topic, 0, strings.Repeat("x", 2000)))
		g.is(err, kafka.ErrRefused)
		g.is(tight.Go(record(topic, 0, strings.Repeat("x", 2000)), nil), kafka.ErrRefused)
		g.is(tight.Go(record("", 0, "x"), nil), kafka.ErrRefused)
		// Another topic is nobody's.
		ctx, cancel := context.WithTimeout(g.ctx, 20*time.Second)
		defer cancel()
		_, err = p.Append(ctx, record(g.prefix+"absent", 0, "x"))
		g.is(err, kafka.ErrRefused)
		if got := g.values(kafka.TopicPartition{Topic: topic}); len(got) != 0 {
			g.Fatalf("the log holds %d refused records", len(got))
		}
	})
}

func TestAnAnswerThatDoesNotArriveIsAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("unknown", 1)
		p := g.producer(kafka.ProducerConfig{})
		_, err := p.Append(g.ctx, record(topic, 0, "before"))
		g.no(err)
		g.link.freeze()
		ctx, cancel := context.WithCancel(g.ctx)
		defer cancel()
		type result struct {
			acks []kafka.Ack
			err  error
		}
		appended := make(chan result, 1)
		go func() {
			acks, err := p.Append(ctx, record(topic, 0, "swallowed"))
			appended <- result{acks, err}
		}()
		other := g.open(newLink()) // whose link is not frozen
		g.eventually("the record is sent", func() bool {
			end, err := other.Offset(g.ctx, kafka.TopicPartition{Topic: topic}, kafka.End())
			g.no(err)
			return end == 2
		})
		cancelled := time.Now()
		cancel()
		got := <-appended
		g.is(got.err, kafka.ErrUnknownOutcome)
		if took := time.Since(cancelled); took > 20*time.Second {
			g.Fatalf("the end of its context was heeded after %v", took)
		}
		acks := got.acks
		if acks[0].Offset != -1 {
			g.Fatalf("an unknown outcome has offset %d", acks[0].Offset)
		}
		g.link.thaw()
		_, err = p.Append(g.ctx, record(topic, 0, "after"))
		g.no(err)
		if diff := cmp.Diff([]string{"before", "swallowed", "after"}, g.values(kafka.TopicPartition{Topic: topic})); diff != "" {
			g.Fatalf("(-want +log):\n%s", diff)
		}
	})
}

func TestADeliveryTimeoutTellsWhatWasNeverSent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("timeout", 1)
		cfg := kafka.ProducerConfig{DeliveryTimeout: 5 * time.Second} // in which it is sent
		outcome := func(p *kafka.Producer) error {
			g.Helper()
			done := make(chan error, 2)
			g.no(p.Go(record(topic, 0, "lost"), func(_ kafka.Ack, err error) { done <- err }))
			select {
			case err := <-done:
				return err
			case <-g.ctx.Done():
				g.Fatal("done was never called")
				return nil
			}
		}
		p := g.producer(cfg)
		_, err := p.Append(g.ctx, record(topic, 0, "before"))
		g.no(err)
		g.link.freeze()
		g.is(outcome(p), kafka.ErrUnknownOutcome)
		g.link.thaw()
		g.no(p.Flush(g.ctx))
		// A producer that never gets through.
		cfg.DeliveryTimeout = time.Millisecond
		g.link.cut(true)
		g.is(outcome(g.producer(cfg)), kafka.ErrRefused)
		g.link.cut(false)
	})
}

func TestGoNeverWaits(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("full", 1)
		p := g.producer(kafka.ProducerConfig{MaxBuffered: 3})
		_, err := p.Append(g.ctx, record(topic, 0, "before"))
		g.no(err)
		g.link.freeze()
		var calls atomic.Int64
		for range 3 {
			g.no(p.Go(record(topic, 0, "x"), func(kafka.Ack, error) { calls.Add(1) }))
		}
		began := time.Now()
		g.is(p.Go(record(topic, 0, "y"), nil), kafka.ErrFull)
		if took := time.Since(began); took > 10*time.Second { // one who waits does so until the link thaws
			g.Fatalf("a full producer took %v to say so", took)
		}
		ctx, cancel := context.WithTimeout(g.ctx, 50*time.Millisecond)
		defer cancel()
		_, err = p.Append(ctx, record(topic, 0, "z"))
		g.is(err, kafka.ErrRefused)
		g.link.thaw()
		g.no(p.Flush(g.ctx))
		if n := calls.Load(); n != 3 {
			g.Fatalf("done was called %d times for 3 records", n)
		}
		if n := len(g.values(kafka.TopicPartition{Topic: topic})); n != 4 {
			g.Fatalf("the log holds %d records, want 4", n)
		}
	})
}

func TestAClosedProducerRefuses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		p := g.producer(kafka.ProducerConfig{Compression: kafka.Zstd, Linger: time.Millisecond})
		topic := g.topic("closed", 1)
		_, err := p.Append(g.ctx, record(topic, 0, "x"))
		g.no(err)
		p.Close()
		g.is(p.Go(record(topic, 0, "x"), nil), kafka.ErrClosed)
		_, err = p.Append(g.ctx, record(topic, 0, "x"))
		g.is(err, kafka.ErrRefused)
	})
}
