package processors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// intake polls the group, and decodes requests before the loop sees them. Its
// goroutine alone seeks, between two polls, so that it knows which records were
// read before a seek and which after.
type intake struct {
	p      *Processor
	group  *kafka.Group
	joined atomic.Bool // the group has given us something, or said that there is nothing
	lives  uint64
	seeks  map[engine.LP]*assignment // this goroutine's alone

	mu      sync.Mutex
	wanted  []engine.Seek
	wake    context.CancelFunc // ends the poll under way
	revoked map[engine.LP]*revocation
}

// assignment is one LP as the group gave it.
type assignment struct {
	life  uint64
	seeks uint64 // carried out
}

// revocation waits for the release of its LPs.
type revocation struct {
	left int
	done func()
}

func newIntake(p *Processor, g *kafka.Group) *intake {
	return &intake{p: p, group: g, seeks: map[engine.LP]*assignment{}, revoked: map[engine.LP]*revocation{}}
}

func (in *intake) run(ctx context.Context) error {
	for ctx.Err() == nil {
		pollCtx, cancel := context.WithCancel(ctx)
		in.carryOut(cancel)
		poll, err := in.group.Poll(pollCtx)
		cancelled := pollCtx.Err() != nil
		cancel()
		switch {
		case err == nil:
			if err := in.hand(ctx, poll); err != nil {
				return err
			}
		case cancelled && ctx.Err() == nil: // woken to seek
		case errors.Is(err, kafka.ErrClosed):
			return nil
		case ctx.Err() == nil:
			const again = 100e6
			in.p.log.WarnContext(ctx, "the group could not be polled", "error", err)
			sleep(ctx, again)
		}
	}
	return ctx.Err()
}

// seek asks for a LP's requests to be read from another offset.
func (in *intake) seek(f engine.Seek) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.wanted = append(in.wanted, f)
	if in.wake != nil {
		in.wake()
	}
}

func (in *intake) carryOut(wake context.CancelFunc) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.wake = wake
	for _, f := range in.wanted {
		if a := in.seeks[f.LP]; a != nil && a.life == f.Life {
			in.group.Seek(in.p.requests(f.LP), f.Next)
			a.seeks++
		}
	}
	in.wanted = nil
}

// hand gives the loop what a poll brought.
func (in *intake) hand(ctx context.Context, poll kafka.Poll) error {
	for _, a := range poll.Assigned {
		lp, ok := in.lp(a.TopicPartition)
		if !ok {
			continue
		}
		in.lives++
		in.seeks[lp] = &assignment{life: in.lives}
		in.p.box.post(engine.Assigned{LP: lp, Life: in.lives, Member: a.Member, Next: a.Next, Metadata: a.Metadata})
	}
	in.joined.Store(true)
	for _, tp := range poll.Lost {
		if lp, ok := in.lp(tp); ok {
			in.p.box.post(engine.Lost{LP: lp})
		}
	}
	if poll.Revoked != nil {
		in.revoke(poll.Revoked)
	}
	// A partition's fault stands behind what was read of it.
	if err := in.records(ctx, poll.Records); err != nil {
		return err
	}
	for _, f := range poll.Faults {
		if err := in.fault(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func (in *intake) lp(tp kafka.TopicPartition) (engine.LP, bool) {
	lane, ok := in.p.cfg.Names.LaneOf(tp.Topic)
	return engine.LP{Lane: lane, Partition: tp.Partition}, ok
}

// revoke tells the loop; the group goes on when every LP was released.
func (in *intake) revoke(r *kafka.Revocation) {
	lps := make([]engine.LP, 0, len(r.Partitions))
	for _, tp := range r.Partitions {
		if lp, ok := in.lp(tp); ok {
			lps = append(lps, lp)
		}
	}
	if len(lps) == 0 {
		r.Done()
		return
	}
	in.mu.Lock()
	rev := &revocation{left: len(lps), done: r.Done}
	for _, lp := range lps {
		in.revoked[lp] = rev
	}
	in.mu.Unlock()
	for _, lp := range lps {
		in.p.box.post(engine.Revoked{LP: lp})
	}
}

// released tells that a LP was let go.
func (in *intake) released(lp engine.LP) {
	in.mu.Lock()
	defer in.mu.Unlock()
	rev := in.revoked[lp]
	if rev == nil {
		return // not a revocation, but our own leaving
	}
	delete(in.revoked, lp)
	rev.left--
	if rev.left == 0 {
		rev.done()
	}
}

// fault takes a partition that stopped. What retention took is gone, and is
// told; of a log that lost its end all is taken in again; a topic that is another
// ends the process.
func (in *intake) fault(ctx context.Context, f kafka.PartitionFault) error {
	lp, ok := in.lp(f.TopicPartition)
	if !ok {
		return nil
	}
	if gone, ok := errors.AsType[*kafka.OutOfRangeError](f.Err); ok {
		in.p.log.ErrorContext(ctx, "requests expired before anybody ran them: their retention is too short for the backlog",
			"topic", f.Topic, "partition", f.Partition, "from", gone.Offset, "to", gone.Earliest)
		in.p.metrics.expired.WithLabelValues(lp.Lane.String()).Add(float64(gone.Earliest - gone.Offset))
		in.p.box.post(engine.RequestsGone{LP: lp, Earliest: gone.Earliest})
		return nil
	}
	if errors.Is(f.Err, kafka.ErrTruncated) {
		earliest, err := in.p.cluster.Offset(ctx, f.TopicPartition, kafka.Start())
		if err != nil {
			return fmt.Errorf("%s: %w; and where it begins: %w", f.TopicPartition, f.Err, err)
		}
		in.p.log.ErrorContext(ctx, "requests have lost their end: all that there are are taken in again, and what has ended does not run",
			"topic", f.Topic, "partition", f.Partition, "from", earliest, "error", f.Err)
		in.p.box.post(engine.RequestsCut{LP: lp, Earliest: earliest})
		return nil
	}
	return fmt.Errorf("%s: %w", f.TopicPartition, f.Err)
}

// records decodes a poll's records and offers them, one input a LP.
func (in *intake) records(ctx context.Context, recs []event.Record) error {
	for len(recs) > 0 {
		n := 1
		for n < len(recs) && recs[n].Partition == recs[0].Partition && recs[n].Topic == recs[0].Topic {
			n++
		}
		if lp, ok := in.lp(kafka.TopicPartition{Topic: recs[0].Topic, Partition: recs[0].Partition}); ok {
			input := engine.Requests{LP: lp, Requests: make([]*engine.Request, n)}
			if a := in.seeks[lp]; a != nil {
				input.Seeks = a.seeks
			}
			for i := range n {
				input.Requests[i] = decode(&recs[i])
				if input.Requests[i].Skip {
					in.p.metrics.skipped.WithLabelValues(recs[i].Topic).Inc()
				}
			}
			if !in.p.box.offer(ctx, input) {
				return ctx.Err()
			}
		}
		recs = recs[n:]
	}
	return nil
}

// decode makes a Request of a record; one that cannot be run says why.
func decode(rec *event.Record) *engine.Request {
	r := &engine.Request{Offset: rec.Offset, Time: rec.Time, Bytes: len(rec.Key) + len(rec.Value), Record: *rec}
	for i := range rec.Headers {
		r.Bytes += len(rec.Headers[i].Key) + len(rec.Headers[i].Value)
	}
	head, data, err := event.DecodeRequest(rec)
	switch {
	case err == nil:
		r.Head, r.Data = head, data
	case errors.Is(err, event.ErrSkip):
		r.Skip = true
	default:
		r.Poison = err.Error()
		r.PoisonPart = event.InvalidPart(err)
	}
	return r
}
