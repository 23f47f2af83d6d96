// Package bare makes the trip that every design of request topic, worker and
// token topic has to pay, with the Kafka client alone: a produce to a request
// topic, a group consumer that produces to a token topic, a consumer that tails
// it. It is what Penstock's own time is measured against, on the same broker in
// the same run.
package bare

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The sizes of a trip's records, in bytes: a small request, as Penstock's.
const (
	requestBytes = 300
	partitions   = 12
)

// Trips is a bare worker and its clients, on topics of its own.
type Trips struct {
	admin                  *kadm.Client
	topics                 []string
	producer, worker, tail *kgo.Client
	stop                   context.CancelFunc
	done                   sync.WaitGroup

	mu      sync.Mutex
	waiting map[string]chan time.Time
}

// Start makes the topics and the clients. name must be unique to the run.
func Start(ctx context.Context, brokers []string, name string) (_ *Trips, err error) {
	t := &Trips{topics: []string{name + ".requests", name + ".tokens"}, waiting: map[string]chan time.Time{}}
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	t.stop = stop
	defer func() {
		if err != nil {
			t.Close(ctx)
		}
	}()
	// acks=all and idempotence are the client's defaults; linger 0 since
	// somebody waits for every record.
	t.producer, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerLinger(0))
	if err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	t.admin = kadm.NewClient(t.producer)
	if _, err := t.admin.CreateTopics(ctx, partitions, 1, nil, t.topics...); err != nil {
		return nil, fmt.Errorf("bare: create topics: %w", err)
	}
	t.worker, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerLinger(0),
		kgo.ConsumerGroup(name), kgo.ConsumeTopics(t.topics[0]), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	t.tail, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(t.topics[1]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	t.done.Go(func() { t.work(live) })
	t.done.Go(func() { t.follow(live) })
	return t, nil
}

// work is the group consumer: it answers every request with one token.
func (t *Trips) work(ctx context.Context) {
	for ctx.Err() == nil {
		t.worker.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			t.worker.Produce(ctx, &kgo.Record{Topic: t.topics[1], Key: r.Key, Value: r.Value}, nil)
		})
	}
}

// follow is the tail: it tells whoever waits for a token when it came.
func (t *Trips) follow(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := t.tail.PollFetches(ctx)
		now := time.Now()
		fetches.EachRecord(func(r *kgo.Record) {
			t.mu.Lock()
			ch := t.waiting[string(r.Key)]
			delete(t.waiting, string(r.Key))
			t.mu.Unlock()
			if ch != nil {
				ch <- now
			}
		})
	}
}

// Trip makes one trip and returns how long it took.
func (t *Trips) Trip(ctx context.Context, n int) (time.Duration, error) {
	key := strconv.Itoa(n)
	ch := make(chan time.Time, 1)
	t.mu.Lock()
	t.waiting[key] = ch
	t.mu.Unlock()
	begun := time.Now()
	t.producer.Produce(ctx, &kgo.Record{Topic: t.topics[0], Key: []byte(key), Value: make([]byte, requestBytes)}, nil)
	select {
	case at := <-ch:
		return at.Sub(begun), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("bare: trip %d did not come back: %w", n, ctx.Err())
	}
}

// Close ends the clients and deletes the topics.
func (t *Trips) Close(ctx context.Context) {
	t.stop()
	t.done.Wait()
	const goodbye = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if t.worker != nil {
		t.worker.Close()
	}
	if t.tail != nil {
		t.tail.Close()
	}
	if t.admin != nil {
		_, _ = t.admin.DeleteTopics(ctx, t.topics...) // left behind, they hold a few records
	}
	if t.producer != nil {
		t.producer.Close()
	}
}
