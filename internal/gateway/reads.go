package gateway

import (
	"context"
	"sync"

	"github.com/penstock-io/penstock/internal/kafka"
)

// readsOfOne is the part of all reads from Kafka that may be of one partition.
const readsOfOne = 8

// reads bounds the reads from Kafka that go on at once, of all partitions and of each:
// those of a partition whose broker does not answer last as long as the patience, and
// are not to keep the others' waiting.
type reads struct {
	all chan struct{} // holds a token for each

	mu sync.Mutex
	of map[kafka.TopicPartition]chan struct{}
}

func newReads(most int) *reads {
	return &reads{all: make(chan struct{}, most), of: map[kafka.TopicPartition]chan struct{}{}}
}

// begin waits for a read's turn, or for ctx to end. Each success needs an end.
func (r *reads) begin(ctx context.Context, tp kafka.TopicPartition) error {
	select {
	case r.each(tp) <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
	select {
	case r.all <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-r.each(tp)
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
}

func (r *reads) end(tp kafka.TopicPartition) {
	<-r.all
	<-r.each(tp)
}

// each holds a token for each read of a partition that goes on, or is the next to.
func (r *reads) each(tp kafka.TopicPartition) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.of[tp]
	if c == nil {
		c = make(chan struct{}, max(cap(r.all)/readsOfOne, 1))
		r.of[tp] = c
	}
	return c
}
