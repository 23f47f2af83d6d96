package gateway

import (
	"context"
	"sync"

	"github.com/penstock-io/penstock/internal/kafka"
)

// questions asks Kafka where partitions begin and end, and where a time is in
// them. Of many who want to know the same at a time, as clients that come with
// bad cursors, one asks for all: one question is under way for each thing that
// is asked, and whoever comes meanwhile shares the one that is asked behind it.
// It does not share the one under way, which may have been answered before the
// caller came: an end of then would make a cursor bad that is good by now.
type questions struct {
	ask   func(context.Context, kafka.TopicPartition, kafka.At) (int64, error)
	start func(context.Context, func(context.Context)) // runs f in a goroutine

	mu    sync.Mutex
	under map[asked]*inquiry // the one that is asked next; nil where nobody waits for it
}

// asked is what is asked.
type asked struct {
	kafka.TopicPartition
	at kafka.At
}

// inquiry is a question as it is asked, and what all get who share it.
type inquiry struct {
	come   chan struct{} // closed when there is
	offset int64
	err    error
}

// offset gives the answer to a question that was asked after the call began, or
// ctx's error where that ends first. The question goes on without its asker.
func (q *questions) offset(ctx context.Context, tp kafka.TopicPartition, at kafka.At) (int64, error) {
	what := asked{tp, at}
	q.mu.Lock()
	r, under := q.under[what]
	if r == nil {
		r = &inquiry{come: make(chan struct{})}
		if q.under[what] = r; !under {
			q.under[what] = nil
			q.start(context.WithoutCancel(ctx), func(ctx context.Context) { q.run(ctx, what, r) })
		}
	}
	q.mu.Unlock()
	select {
	case <-r.come:
		return r.offset, r.err
	case <-ctx.Done():
		return 0, ctx.Err() //nolint:wrapcheck // the caller's own
	}
}

// run asks, and asks again for those who came meanwhile, until nobody did.
func (q *questions) run(ctx context.Context, what asked, r *inquiry) {
	for r != nil {
		r.offset, r.err = q.ask(ctx, what.TopicPartition, what.at)
		close(r.come)
		q.mu.Lock()
		r = q.under[what]
		if q.under[what] = nil; r == nil {
			delete(q.under, what)
		}
		q.mu.Unlock()
	}
}
