package gateway

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/internal/kafka"
)

// silent is a Kafka that does not answer.
type silent struct{ Log }

func (silent) Fetch(ctx context.Context, _ kafka.TopicPartition, _ int64, _ int32, _ time.Duration) (kafka.Fetched, error) {
	<-ctx.Done()
	return kafka.Fetched{}, ctx.Err()
}

func (silent) Offset(ctx context.Context, _ kafka.TopicPartition, _ kafka.At) (int64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func (silent) TopicID(ctx context.Context, _ string) ([16]byte, error) {
	<-ctx.Done()
	return [16]byte{}, ctx.Err()
}

func TestWhileKafkaIsSilentNobodyWaitsForLongerThanPatience(t *testing.T) {
	const callers, patience = 100, 5 * time.Second
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(Config{Partitions: testPartitions, Patience: patience, CatchUpReads: 1}, silent{}, nil)
		for name, call := range map[string]func() error{
			"to follow a partition": func() error {
				_, err := g.hub.acquire(t.Context(), 0)
				return err
			},
			"to read a piece": func() error { return g.hub.read(t.Context(), g.hub.of(0), 0, func(kafka.Fetched) {}) },
		} {
			began := time.Now()
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					if err := call(); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			all.Wait()
			if took := time.Since(began); took != patience {
				t.Errorf("%d callers wait %v %s, want %v", callers, took, name, patience)
			}
		}
		g.hub.close()
	})
}

// mute is a Kafka of which one partition does not answer.
type mute struct {
	Log
	partition int32
	asked     chan struct{}
}

func (m *mute) Fetch(ctx context.Context, tp kafka.TopicPartition, _ int64, _ int32, _ time.Duration) (kafka.Fetched, error) {
	if tp.Partition == m.partition {
		m.asked <- struct{}{}
		<-ctx.Done()
		return kafka.Fetched{}, ctx.Err()
	}
	return kafka.Fetched{}, nil
}

func TestAPartitionThatDoesNotAnswerKeepsNoOtherFromBeingRead(t *testing.T) {
	const callers = 100
	synctest.Test(t, func(t *testing.T) {
		m := &mute{asked: make(chan struct{}, callers)}
		g := newGateway(Config{Partitions: testPartitions}, m, nil)
		read := func(partition int32) error {
			return g.hub.read(t.Context(), g.hub.of(partition), 0, func(kafka.Fetched) {})
		}
		var all sync.WaitGroup
		for range callers {
			all.Go(func() { _ = read(m.partition) })
		}
		synctest.Wait()
		if n := len(m.asked); n < 2 {
			t.Errorf("%d reads go on of one partition, want some at once", n)
		}
		began := time.Now()
		if err := read(m.partition + 1); err != nil || time.Since(began) > 0 {
			t.Errorf("another partition is read after %v: %v", time.Since(began), err)
		}
		all.Wait()
		g.hub.close()
	})
}
