package processors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// do carries out one effect. It never waits.
func (p *Processor) do(f engine.Effect) {
	switch f := f.(type) {
	case engine.Follow:
		p.tail.Follow(f.Partition, f.From)
	case engine.Unfollow:
		p.tail.Unfollow(f.Partition)
	case engine.FollowControl:
		p.ctl.Follow(f.Partition, f.From)
	case engine.UnfollowControl:
		p.ctl.Unfollow(f.Partition)
	case engine.FindEnd:
		p.workers.Go(func() { p.findEnd(f) })
	case engine.AppendClaim:
		p.claim(f)
	case engine.Open:
		p.gate(f.LP, f.Gen).let(f.Epoch)
		p.metrics.claims.WithLabelValues(f.Lane.String()).Inc()
		p.log.Info("lane claimed", "lane", f.Lane.String(), "partition", f.Partition, "epoch", f.Epoch)
	case engine.Shut:
		if g := p.gates[f.LP]; g != nil && g.gen == f.Gen {
			g.shut()
			delete(p.gates, f.LP)
		}
	case engine.Start:
		p.start(f)
	case engine.Stop:
		if c := p.running[callKey{f.LP, f.Gen, f.Offset}]; c != nil {
			c.cancel(errCancelled)
		}
	case engine.AppendFact:
		p.fact(f)
	case engine.Bury:
		p.bury(f)
	case engine.Commit:
		p.commit.put(f)
	case engine.Release:
		p.release(f)
	case engine.Pause:
		p.group.Pause(p.requests(f.LP))
	case engine.Resumed:
		p.group.Resume(p.requests(f.LP))
	case engine.Seek:
		p.intake.seek(f)
	case engine.Evict:
		p.workers.Go(func() { p.evict(f) })
	case engine.Pulses:
		p.lags.put(f.Pulses)
		for i := range f.Pulses {
			// A pulse that finds no room is not missed: the next one says more.
			_ = p.pulses.Go(p.pulseRecord(&f.Pulses[i]), nil)
		}
	}
}

// callKey names a call of this process.
type callKey struct {
	engine.LP
	gen    uint64
	offset int64
}

// start has a call made.
func (p *Processor) start(f engine.Start) {
	c := p.newCall(p.gate(f.LP, f.Gen), f)
	p.running[callKey{f.LP, f.Gen, f.Request.Offset}] = c
	if !f.Cancelled {
		p.metrics.started.WithLabelValues(f.Lane.String()).Inc()
	}
	if !f.Cancelled && f.Try == 1 {
		p.metrics.wait.WithLabelValues(f.Lane.String()).Observe(since(f.Request.Time, p.now()))
	}
	p.workers.take(c)
}

// requests is the partition of a lane's request topic.
func (p *Processor) requests(lp engine.LP) kafka.TopicPartition {
	return kafka.TopicPartition{Topic: p.cfg.Names.Requests(lp.Lane), Partition: lp.Partition}
}

// gate returns the gate of a lane's incarnation.
func (p *Processor) gate(lp engine.LP, gen uint64) *gate {
	g := p.gates[lp]
	if g == nil || g.gen != gen {
		g = newGate(p.alive, lp, gen)
		g.known, g.repeats = p.newRecaller(lp.Partition), p.newRecaller(lp.Partition)
		p.gates[lp] = g
	}
	return g
}

// claim appends a claim behind everything that the incarnation has written.
func (p *Processor) claim(f engine.AppendClaim) {
	now := p.now()
	h := event.Head{Type: event.LaneClaimed, V: event.Version, Time: now, Lane: f.Lane, Epoch: f.Epoch}
	rec := event.Record{
		Topic: p.tokens, Partition: f.Partition, Time: now,
		Value: event.Append(nil, &h, event.Encode(f.Claim)),
	}
	failed := engine.ClaimFailed{LP: f.LP, Gen: f.Gen}
	p.gate(f.LP, f.Gen).hold(func() {
		err := p.out.Go(rec, func(_ kafka.Ack, err error) {
			if err != nil {
				p.metrics.claimFailures.Inc()
				p.log.Warn("a claim was not written", "lane", f.Lane.String(), "partition", f.Partition, "error", err)
				p.box.post(failed)
			}
		})
		if err != nil { // no room, or closed: it is claimed again
			p.box.post(failed)
		}
	})
}

// fact appends a fact to the jobs topic.
func (p *Processor) fact(f engine.AppendFact) {
	rec := event.Record{
		Topic: p.jobs, Partition: f.Partition, Key: keyOf(&f.Head), Time: f.Head.Time,
		Value:   event.Append(make([]byte, 0, 320+len(f.Data)), &f.Head, f.Data),
		Headers: event.CloudEvents(&f.Head, event.FactID(&f.Head), string(f.Traceparent)),
	}
	p.settle(rec, engine.FactWritten{LP: f.LP, Gen: f.Gen, Offset: f.Offset})
}

// keyOf is the key of a job's records: its conversation, else itself.
func keyOf(h *event.Head) []byte {
	if h.Conversation != "" {
		return []byte(h.Conversation)
	}
	return []byte(h.Job)
}

// lesser makes of a terminal fact that its topic does not take for its size one
// that it takes: it says how the job ended, and nothing of what was said, which
// stands on the token topic. An answer of which nothing is kept is a failed job's.
// Our bounds are there for it never to be needed; without it every owner would
// come to the same fact anew, and its partition would stand still.
func lesser(rec *event.Record, limit int) (event.Record, bool) {
	v, err := event.ScanHead(rec.Value)
	if err != nil || !v.Type.Terminal() {
		return event.Record{}, false
	}
	h, data := v.Head(), event.Encode(event.Cancelled{})
	if h.Type != event.JobCancelled {
		h.Type = event.JobFailed
		data = event.Encode(event.Failed{Code: string(fault.Internal), Message: fmt.Sprintf(
			"the job ended as %s, but what is to be kept of it takes %d bytes, and %d are kept at most: its output stands on the token topic alone",
			v.Type, len(rec.Value), limit)})
	}
	less := event.Record{
		Topic: rec.Topic, Partition: rec.Partition, Key: rec.Key, Time: rec.Time, Value: event.Append(nil, &h, data),
		Headers: event.CloudEvents(&h, event.FactID(&h), string(rec.Traceparent())),
	}
	return less, len(less.Value) < len(rec.Value)
}

// settle writes a record, and tells the engine when Kafka has it. A settlement
// of offset -1 is told nobody.
func (p *Processor) settle(rec event.Record, written engine.FactWritten) {
	if len(p.again) > 0 || p.write(&rec, written) != nil {
		again := rec                                                                // else every record would have to outlive this call
		p.again = append(p.again, func() error { return p.write(&again, written) }) // at most a window's worth a lane
	}
}

// write is settle, or an error where there is no room.
func (p *Processor) write(rec *event.Record, written engine.FactWritten) error {
	topic, partition := rec.Topic, rec.Partition
	done := func(_ kafka.Ack, err error) {
		if err != nil {
			p.log.Error("kafka did not take a record", "topic", topic, "partition", partition, "error", err)
		}
		if written.Offset >= 0 {
			settled := written
			settled.Failed = err != nil
			p.box.post(settled)
		}
	}
	err := p.out.Later(*rec, done) // nobody waits for it by the millisecond
	if errors.Is(err, kafka.ErrTooLarge) && topic == p.jobs {
		if less, ok := lesser(rec, p.cfg.limits().fact); ok {
			p.log.Error("a job's fact is larger than its topic takes: it is written without what was said", "partition", partition, "error", err)
			return p.write(&less, written)
		}
	}
	if err != nil && !errors.Is(err, kafka.ErrFull) {
		done(kafka.Ack{}, err)
		return nil
	}
	return err //nolint:wrapcheck // it is not told
}

// retry writes what found the producer full.
func (p *Processor) retry() {
	for len(p.again) > 0 {
		if p.again[0]() != nil {
			return
		}
		p.again[0] = nil
		p.again = p.again[1:]
	}
	p.again = nil
}

// bury writes a poisonous record to the dead topic, its bytes as they came.
func (p *Processor) bury(f engine.Bury) {
	orig := &f.Request.Record
	letter := event.Bury(orig, stage, f.Request.Poison, p.cfg.limits().dead)
	p.metrics.dead.WithLabelValues(f.Lane.String(), f.Request.PoisonPart).Inc()
	p.log.Warn("a request was refused", "topic", orig.Topic, "partition", orig.Partition, "offset", orig.Offset,
		"reason", letter.Reason, "redrives", letter.Redrives(), "bytes_left_out", letter.Omitted)
	p.settle(letter.Record(p.cfg.Names.Dead(), p.now()), engine.FactWritten{LP: f.LP, Gen: f.Gen, Offset: f.Request.Offset})
}

// findEnd asks where a lane's logs end, until it knows or the process ends.
func (p *Processor) findEnd(f engine.FindEnd) {
	const again = 100 * time.Millisecond
	for {
		in, err := p.locate(p.alive, f)
		if err == nil {
			p.box.post(in)
			return
		}
		if p.alive.Err() != nil {
			return
		}
		p.log.Warn("the end of a lane's logs could not be found", "lane", f.Lane.String(), "partition", f.Partition, "error", err)
		if !sleep(p.alive, again) {
			return
		}
	}
}

// locate asks side by side: a takeover waits for it, and each question is a round
// trip to a broker that has just got the work of another. But where the requests
// end is asked behind where the tokens do: so whatever stands before the one was
// requested before the other.
func (p *Processor) locate(ctx context.Context, f engine.FindEnd) (engine.Located, error) {
	in := engine.Located{LP: f.LP, Gen: f.Gen}
	tokens := kafka.TopicPartition{Topic: p.tokens, Partition: f.Partition}
	control := kafka.TopicPartition{Topic: p.cfg.Names.Control(), Partition: f.Partition}
	ask, asking := errgroup.WithContext(ctx)
	ask.Go(func() (err error) {
		in.LogStart, in.Oldest, err = p.cluster.OldestTime(asking, tokens)
		return err
	})
	ask.Go(func() (err error) {
		in.ControlEnd, err = p.cluster.Offset(asking, control, kafka.End())
		return err
	})
	ask.Go(func() (err error) {
		if in.End, err = p.cluster.Offset(asking, tokens, kafka.End()); err != nil {
			return err
		}
		if in.RequestsEnd, err = p.cluster.Offset(asking, p.requests(f.LP), kafka.End()); err != nil {
			return err
		}
		in.ControlFrom, err = p.controlFrom(asking, f, in.RequestsEnd)
		return err
	})
	err := ask.Wait()
	if err == nil && in.End < f.From {
		p.log.ErrorContext(ctx, "the token log ends before what was read of it: it has lost its end", "lane", f.Lane.String(), "partition", f.Partition, "end", in.End, "read_to", f.From)
	}
	if err == nil && in.End-f.From > shortRestore {
		in.Jobs, err = p.undone(ctx, f, in.RequestsEnd)
	}
	return in, err //nolint:wrapcheck // the one caller logs it
}

// shortRestore is how many records a restore folds without being told which jobs
// are asked for: so it is nearly always, and a long backlog of requests is not
// read for it.
const shortRestore = 50_000

// maxUndone bounds the requests whose jobs a restore is told; of more it keeps
// what it reads of any job.
const maxUndone = 1_000_000

// undone gives the jobs of a lane's requests from Next up to end; nil where they
// are too many, or not to be had.
func (p *Processor) undone(ctx context.Context, f engine.FindEnd, end int64) (map[string]struct{}, error) {
	if end-f.Next > maxUndone {
		return nil, nil
	}
	jobs := map[string]struct{}{}
	for recs, err := range p.cluster.Scan(ctx, p.requests(f.LP), f.Next, end) {
		switch {
		case errors.Is(err, kafka.ErrOutOfRange), errors.Is(err, kafka.ErrCorrupt):
			return nil, nil // retention takes them just now, or they cannot be told
		case err != nil:
			return nil, err //nolint:wrapcheck // the one caller logs it
		}
		for i := range recs {
			if v, err := event.ScanHead(recs[i].Value); err == nil && v.Type == event.JobRequested && len(v.Tenant) > 0 {
				jobs[engine.JobKey(string(v.Tenant), string(v.Job))] = struct{}{}
			} else if h, _, err := event.DecodeRequest(&recs[i]); err == nil { // else it has no output
				jobs[engine.JobKey(h.Tenant, h.Job)] = struct{}{}
			}
		}
	}
	return jobs, nil
}
