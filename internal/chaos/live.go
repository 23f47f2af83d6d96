package chaos

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// live reads the token topic while it grows, with a reader's own fence, as any
// Kafka client may.
type live struct {
	tail *kafka.Tail

	mu    sync.Mutex
	log   *Log
	at    map[int32]int64
	err   error // why it reads no more
	heard func(v *event.View, owner string, now time.Time)
}

// startLive begins at the topic's start. heard, if any, is told of every output
// that counts.
func startLive(c *kafka.Cluster, topic string, partitions int32, heard func(v *event.View, owner string, now time.Time)) (*live, error) {
	tail, err := c.NewTail(kafka.TailConfig{Topic: topic})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	for p := range partitions {
		tail.Follow(p, 0)
	}
	return &live{tail: tail, log: NewLog(), at: map[int32]int64{}, heard: heard}, nil
}

// run reads until ctx ends.
func (l *live) run(ctx context.Context) {
	defer l.tail.Close() //nolint:contextcheck // a tail has a life of its own
	for {
		chunks, err := l.tail.Poll(ctx)
		if err != nil {
			return
		}
		l.mu.Lock()
		for i := range chunks {
			c := &chunks[i]
			if c.Err != nil && l.err == nil {
				l.err = fmt.Errorf("partition %d at offset %d: %w", c.Partition, c.Next, c.Err)
			}
			for j := range c.Records {
				v, owner, counts := l.log.admit(c.Partition, c.Records[j].Value)
				if counts && l.heard != nil {
					l.heard(&v, owner, time.Now())
				}
			}
			l.at[c.Partition] = c.Next
		}
		l.mu.Unlock()
	}
}

// through waits until it has read to these offsets.
func (l *live) through(ctx context.Context, ends map[int32]int64) error {
	for {
		behind := int32(-1)
		l.mu.Lock()
		err := l.err
		for p, end := range ends {
			if l.at[p] < end {
				behind = p
			}
		}
		l.mu.Unlock()
		switch {
		case err != nil:
			return err
		case behind < 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("partition %d was not read to its end: %w", behind, ctx.Err())
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// scan reads a topic from its start to these offsets, and hands over its records.
func scan(ctx context.Context, c *kafka.Cluster, topic string, ends map[int32]int64, take func(rec *event.Record)) error {
	for p, end := range ends {
		tp := kafka.TopicPartition{Topic: topic, Partition: p}
		for recs, err := range c.Scan(ctx, tp, 0, end) {
			if err != nil {
				return fmt.Errorf("read %s: %w", tp, err)
			}
			for i := range recs {
				take(&recs[i])
			}
		}
	}
	return nil
}
