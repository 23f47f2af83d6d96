package processors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// errCancelled is the cause of a call's context when somebody cancelled its job.
var errCancelled = fault.New(fault.Cancelled, "the job was cancelled")

// tailControl reads the control partitions that are followed. It is never
// paused: a cancel overtakes what it cancels.
func (p *Processor) tailControl(ctx context.Context) error {
	for {
		chunks, err := p.ctl.Poll(ctx)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, kafka.ErrClosed) {
				return ctx.Err()
			}
			return fmt.Errorf("tail the control topic: %w", err)
		}
		for i := range chunks {
			in, err := p.controlInput(ctx, &chunks[i])
			if err != nil {
				return fmt.Errorf("%s/%d: %w", p.cfg.Names.Control(), chunks[i].Partition, err)
			}
			if !p.box.offer(ctx, in) {
				return ctx.Err()
			}
		}
	}
}

// controlInput makes an input of a chunk. A record that is no cancel changes
// nothing that it could be about, so it is told, counted and passed over, and
// not written to dead: every owner of the partition reads it, and reads it anew
// at each takeover.
func (p *Processor) controlInput(ctx context.Context, c *kafka.Chunk) (engine.Input, error) {
	if c.Err != nil {
		if gone, ok := errors.AsType[*kafka.OutOfRangeError](c.Err); ok {
			return engine.ControlGone{Partition: c.Partition, Earliest: gone.Earliest}, nil
		}
		return nil, c.Err
	}
	in := engine.Cancels{Partition: c.Partition, From: c.From, Next: c.Next, Cancels: make([]engine.Cancel, 0, len(c.Records))}
	for i := range c.Records {
		rec := &c.Records[i]
		h, err := event.DecodeCancel(rec)
		switch {
		case err == nil:
			in.Cancels = append(in.Cancels, engine.Cancel{Tenant: h.Tenant, Job: h.Job, Time: rec.Time})
			p.metrics.cancels.WithLabelValues("read").Inc()
		case errors.Is(err, event.ErrSkip):
			p.metrics.skipped.WithLabelValues(p.cfg.Names.Control()).Inc()
		default:
			p.metrics.cancels.WithLabelValues("malformed").Inc()
			p.log.WarnContext(ctx, "a cancel was refused", "topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "reason", err.Error())
		}
	}
	return in, nil
}

// controlSlack is how much earlier than a request its cancel is looked for at a
// takeover: it may have been written before it, and clocks differ.
const controlSlack = time.Hour

// controlFrom looks from where on cancels may be of requests that are not done;
// end is where the requests end.
func (p *Processor) controlFrom(ctx context.Context, f engine.FindEnd, end int64) (int64, error) {
	control := kafka.TopicPartition{Topic: p.cfg.Names.Control(), Partition: f.Partition}
	at := cancelsOf(p.now(), p.now())
	if f.Next < end {
		oldest, err := p.cluster.Fetch(ctx, p.requests(f.LP), f.Next, 1, 0) // a broker always gives one batch
		switch {
		case errors.Is(err, kafka.ErrOutOfRange), errors.Is(err, kafka.ErrCorrupt):
			at = kafka.Start() // requests are gone, and cancels are kept as long; or their time is not known
		case err != nil:
			return 0, err //nolint:wrapcheck // locate's caller logs it
		case len(oldest.Records) > 0:
			at = cancelsOf(oldest.Records[0].Time, p.now())
		}
	}
	return p.cluster.Offset(ctx, control, at) //nolint:wrapcheck // locate's caller logs it
}

// cancelsOf is where the cancels of requests of that time and later begin.
func cancelsOf(request, now time.Time) kafka.At {
	if request.After(now) { // by a clock that is ahead
		request = now
	}
	since := request.Add(-controlSlack)
	if since.UnixMilli() < 0 { // which the protocol has other meanings for
		return kafka.Start()
	}
	return kafka.AtTime(since)
}
