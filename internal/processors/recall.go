package processors

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// recaller folds what the log holds of a lane's jobs from before this owner.
// Whoever takes over begins hundreds of them at once, so those that ask within
// recallGather of each other share one reading: one each would read the same
// records as often as there are jobs. A reading is carried out by the call that
// asked first. There is one a lane's incarnation and kind, and it holds no more
// asks than there are calls.
type recaller struct {
	scan func(ctx context.Context, lane event.Lane, batch *recallBatch) error

	mu        sync.Mutex
	gathering *recallBatch // nil while nobody asks
}

// recallGather is how long the first who asks waits for others.
const recallGather = 2 * time.Millisecond

// recallBatch is a reading of [from, to) of a token partition.
type recallBatch struct {
	from, to int64
	epoch    int64 // of the lane, in force at from
	asks     map[recallKey]*recallAsk
	err      error
	done     chan struct{} // closed when the asks are answered
}

type recallKey struct{ tenant, job string }

type recallAsk struct {
	from       int64
	transcript job.Transcript
	err        error // an event of this job is not what it should be
}

// ask reads the job's output from an offset on, at which epoch was in force.
func (r *recaller) ask(ctx context.Context, s *engine.Start, from, epoch int64) (job.Transcript, error) {
	key, mine := recallKey{s.Request.Head.Tenant, s.Request.Head.Job}, &recallAsk{from: from}
	r.mu.Lock()
	b := r.gathering
	first := b == nil
	if first {
		b = &recallBatch{from: from, epoch: epoch, asks: map[recallKey]*recallAsk{}, done: make(chan struct{})}
		r.gathering = b
	}
	if from < b.from {
		b.from, b.epoch = from, epoch
	}
	b.to = max(b.to, s.Resume.To)
	b.asks[key] = mine
	r.mu.Unlock()
	if first {
		r.lead(ctx, s.Lane, b)
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return job.Transcript{}, fmt.Errorf("read a job's output: %w", ctx.Err())
	}
	return mine.transcript, cmp.Or(b.err, mine.err)
}

func (r *recaller) lead(ctx context.Context, lane event.Lane, b *recallBatch) {
	sleep(ctx, recallGather)
	r.mu.Lock()
	r.gathering = nil
	r.mu.Unlock()
	b.err = r.scan(ctx, lane, b)
	close(b.done)
}

// apply folds records of the lane that count into those who asked.
func (b *recallBatch) apply(lane event.Lane, filter *fence.Filter, recs []event.Record) {
	for i := range recs {
		v, err := event.ScanHead(recs[i].Value)
		if err != nil || v.Lane != lane || !filter.Admit(&v) {
			continue
		}
		a := b.asks[recallKey{string(v.Tenant), string(v.Job)}]
		if a == nil || a.err != nil || recs[i].Offset < a.from {
			continue
		}
		if err := a.transcript.Apply(&v); err != nil {
			a.err = fmt.Errorf("partition %d at offset %d: %w", recs[i].Partition, recs[i].Offset, err)
		}
	}
}

// newRecaller reads a token partition.
func (p *Processor) newRecaller(partition int32) *recaller {
	tp := kafka.TopicPartition{Topic: p.tokens, Partition: partition}
	return &recaller{scan: func(ctx context.Context, lane event.Lane, b *recallBatch) error {
		var filter fence.Filter
		filter.Epochs[lane] = b.epoch
		for recs, err := range p.cluster.Scan(ctx, tp, b.from, b.to) {
			if err != nil {
				return fmt.Errorf("read %s from offset %d: %w", tp, b.from, err)
			}
			b.apply(lane, &filter, recs)
		}
		return nil
	}}
}

// lookBack is how much earlier than a job's id its output is looked for: clocks
// of processes differ.
const lookBack = 10 * time.Second

// recall folds what the log holds of a job from before this owner.
func (p *Processor) recall(g *gate, s *engine.Start) (job.Transcript, error) {
	r := s.Resume
	switch {
	case s.Again != nil: // nothing was said since, and it is ours
		return job.Transcript{Progress: s.Again.Progress}, nil
	case r == nil:
		return job.Transcript{}, nil
	case r.Whole:
		return g.known.ask(g.ctx, s, r.From, r.Epoch)
	}
	at := kafka.Start()
	if id, minted := job.ParseID(s.Request.Head.Job); minted {
		at = kafka.AtTime(id.Time.Add(-lookBack))
	}
	tp := kafka.TopicPartition{Topic: p.tokens, Partition: s.Partition}
	from, err := p.cluster.Offset(g.ctx, tp, at)
	if err != nil {
		return job.Transcript{}, err //nolint:wrapcheck // the one caller logs it
	}
	return g.repeats.ask(g.ctx, s, from, 0) // what retention has taken is gone
}
