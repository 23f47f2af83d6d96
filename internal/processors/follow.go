package processors

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// tailTokens reads the token partitions that are followed: what a claim has to
// know, and our own writes coming back.
func (p *Processor) tailTokens(ctx context.Context) error {
	for {
		chunks, err := p.tail.Poll(ctx)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, kafka.ErrClosed) {
				return ctx.Err()
			}
			return fmt.Errorf("tail the token topic: %w", err)
		}
		for i := range chunks {
			in, err := p.tokensInput(&chunks[i])
			if err != nil {
				return fmt.Errorf("%s/%d: %w", p.tokens, chunks[i].Partition, err)
			}
			if !p.box.offer(ctx, in) {
				return ctx.Err()
			}
		}
	}
}

// tokensInput makes an input of a chunk. What is no event of ours is passed
// over, as every reader does.
func (p *Processor) tokensInput(c *kafka.Chunk) (engine.Input, error) {
	if c.Err != nil {
		if gone, ok := errors.AsType[*kafka.OutOfRangeError](c.Err); ok {
			return engine.TokensGone{Partition: c.Partition, Earliest: gone.Earliest}, nil
		}
		if errors.Is(c.Err, kafka.ErrTruncated) {
			p.log.Error("the token log has lost its end: its partition is read again from its beginning", "partition", c.Partition, "error", c.Err)
			return engine.TokensCut{Partition: c.Partition}, nil
		}
		return nil, c.Err
	}
	in := engine.Tokens{Partition: c.Partition, From: c.From, Next: c.Next, Seen: make([]engine.Seen, 0, len(c.Records))}
	for i := range c.Records {
		v, err := event.ScanHead(c.Records[i].Value)
		if err != nil {
			p.metrics.skipped.WithLabelValues(p.tokens).Inc()
			continue
		}
		s := engine.Seen{Offset: c.Records[i].Offset, View: v}
		if v.Type == event.LaneClaimed {
			var claim event.Claim
			if event.DecodeData(v.Data, &claim) == nil {
				s.Owner = claim.Owner
			}
		}
		in.Seen = append(in.Seen, s)
	}
	return in, nil
}

// pulsePartition is the only partition of the pulse topic.
const pulsePartition = 0

func (p *Processor) pulseRecord(pulse *engine.Pulse) event.Record {
	now := p.began.Round(0).Add(p.now().Sub(p.began)) // see sent
	h := event.Head{Type: event.LanePulse, V: event.Version, Time: now, Lane: pulse.Lane, Epoch: pulse.Epoch}
	return event.Record{
		Topic: p.cfg.Names.Pulse(), Partition: pulsePartition, Time: now,
		Key:   []byte(pulse.Lane.String() + "/" + strconv.Itoa(int(pulse.Partition))),
		Value: event.Append(nil, &h, event.Encode(pulse.Data)),
	}
}

// readPulses reads the pulse topic to its end, and returns where it ended: who
// joins knows who was there before.
func (p *Processor) readPulses(ctx context.Context) (next int64, err error) {
	tp := kafka.TopicPartition{Topic: p.cfg.Names.Pulse(), Partition: pulsePartition}
	from, err := p.cluster.Offset(ctx, tp, kafka.Start())
	if err != nil {
		return 0, fmt.Errorf("processors: %w", err)
	}
	to, err := p.cluster.Offset(ctx, tp, kafka.End())
	if err != nil {
		return 0, fmt.Errorf("processors: %w", err)
	}
	for from < to {
		var next int64
		if next, err = p.scanPulses(ctx, tp, from, to); err != nil {
			return 0, fmt.Errorf("processors: read the pulses: %w", err)
		}
		from = next
	}
	return to, nil
}

// scanPulses reads pulses up to an offset, or to a batch that cannot be decoded: it
// gives the offset behind. A later pulse makes good for an earlier one.
func (p *Processor) scanPulses(ctx context.Context, tp kafka.TopicPartition, from, to int64) (next int64, err error) {
	for recs, err := range p.cluster.Scan(ctx, tp, from, to) {
		if corrupt, ok := errors.AsType[*kafka.CorruptError](err); ok {
			return p.cluster.Behind(ctx, corrupt) //nolint:wrapcheck // by the one caller
		}
		if err != nil {
			return 0, err //nolint:wrapcheck // by the one caller
		}
		for i := range recs {
			if in, ok := p.pulseInput(&recs[i]); ok {
				p.step(in)
			}
		}
	}
	return to, nil
}

func (p *Processor) pulseInput(rec *event.Record) (engine.PulseSeen, bool) {
	lane, epoch, data, ok := event.DecodePulse(rec.Value)
	return engine.PulseSeen{
		LP: engine.LP{Lane: lane, Partition: data.Partition}, Epoch: epoch, Released: data.Released,
		Owner: data.Owner, Member: data.Member, Sent: p.sent(rec.Time),
	}, ok
}

// sent makes a time by the monotonic clock of what a pulse of ours says, which is
// counted by that clock from when the process began: leases are reckoned with it,
// and must not move with the clock on the wall.
func (p *Processor) sent(said time.Time) time.Time {
	return p.began.Add(said.Sub(p.began.Round(0)))
}

// pulsePace gathers the pulses of a process's lanes, which come together.
const pulsePace = 20 * time.Millisecond

// tailPulses follows the pulses of all processors.
func (p *Processor) tailPulses(ctx context.Context, from int64) error {
	cfg := kafka.TailConfig{Topic: p.cfg.Names.Pulse(), Pace: pulsePace}
	err := p.cluster.Feed(ctx, cfg, pulsePartition, from, func(c kafka.Chunk) error {
		for i := range c.Records {
			if in, ok := p.pulseInput(&c.Records[i]); ok && !p.box.offer(ctx, in) {
				return ctx.Err()
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("tail the pulses: %w", err)
	}
	return ctx.Err()
}

// heartbeatEvery is how often the lease is renewed: three tries within it.
const heartbeatEvery = 200 * time.Millisecond

// heartbeatPatience bounds the wait for a heartbeat's answer: one that takes
// longer than a lease is worth nothing.
const heartbeatPatience = time.Second

// heartbeats asks the group's coordinator whether we are a member, and tells
// the loop when it last said so. It does not wait for one answer before it asks
// again: a coordinator that takes half a lease to answer would let every lease
// lapse. So there are heartbeatPatience/heartbeatEvery under way at most.
func (p *Processor) heartbeats(ctx context.Context) error {
	ticker := time.NewTicker(heartbeatEvery)
	defer ticker.Stop()
	var under sync.WaitGroup
	defer under.Wait()
	for {
		sent := p.now()
		under.Go(func() { p.heartbeat(ctx, sent) })
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *Processor) heartbeat(ctx context.Context, sent time.Time) {
	beat, cancel := context.WithTimeout(ctx, heartbeatPatience)
	defer cancel()
	member, err := p.group.Heartbeat(beat)
	if err == nil {
		p.box.renew(engine.LeaseRenewed{Sent: sent, Member: member})
		return
	}
	if ctx.Err() != nil {
		return
	}
	p.metrics.noBeats.Inc()
	if !errors.Is(err, kafka.ErrNotMember) {
		p.log.WarnContext(ctx, "the group's coordinator did not answer a heartbeat", "error", err)
	}
}
