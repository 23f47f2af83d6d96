package gateway

import (
	"context"
	"errors"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/kafka"
)

// partitionFeed is a whole partition as a client gets it.
type partitionFeed struct {
	g       *Gateway
	part    *partition
	reader  *reader
	out     sink
	over    bool
	visitor func(*entry) bool
}

// open finds where the client wants to begin: behind a cursor, or at an offset.
func (f *partitionFeed) open(ctx context.Context, at, from string) error {
	f.visitor = f.visit
	if at != "" {
		c, err := f.g.checkCursor(ctx, f.part, at)
		if err != nil {
			return err
		}
		f.reader = newReader(f.g.hub, f.part, c.Next, c.LeaderEpoch)
		f.reader.filter.Epochs = c.Epochs
		_, err = f.reader.before(ctx)
		if gap, ok := errors.AsType[*gapError](err); ok {
			f.gap(gap.reason)
			return nil
		}
		return unavailable(ctx, err)
	}
	offset, err := f.g.offsetParam(ctx, f.part, from)
	f.reader = newReader(f.g.hub, f.part, offset, -1)
	return err
}

// end lets go of what the feed holds.
func (f *partitionFeed) end() {
	if f.reader != nil {
		f.reader.leave()
	}
	f.g.hub.release(f.part)
}

// offsetParam reads where in a partition to begin: an offset, "earliest" (the
// default) or "latest".
func (g *Gateway) offsetParam(ctx context.Context, p *partition, text string) (int64, error) {
	tp := g.hub.of(p.id)
	switch text {
	case "", "earliest":
		return g.offset(ctx, tp, kafka.Start())
	case "latest":
		end, _ := p.end()
		return end, nil
	}
	offset, ok := api.Digits(text)
	if !ok {
		return 0, fault.Param("offset", "%.40q is no offset: it must be a number from 0, earliest or latest", text)
	}
	if v := p.at(offset); v.segment != nil {
		return offset, nil
	}
	first, err := g.offset(ctx, tp, kafka.Start())
	if err != nil {
		return 0, err
	}
	end, err := g.offset(ctx, tp, kafka.End())
	if err != nil {
		return 0, err
	}
	if offset < first || offset > end {
		return 0, fault.Param("offset", "%d is not in the log: the earliest offset is %d, the end is %d", offset, first, end)
	}
	return offset, nil
}

// poll implements feed.
func (f *partitionFeed) poll(ctx context.Context) (<-chan struct{}, error) {
	if f.over {
		return nil, errNoMore
	}
	wait, err := f.reader.poll(ctx, f.visitor)
	if gap, ok := errors.AsType[*gapError](err); ok {
		f.over = gap.reason == gapRecreated
		f.gap(gap.reason)
		return nil, nil
	}
	return wait, err
}

func (f *partitionFeed) visit(e *entry) bool {
	if !f.reader.filter.Admit(&e.view) {
		return true
	}
	f.out.record(e, f.reader.cursor(e))
	return !f.out.full()
}

func (f *partitionFeed) gap(reason string) {
	f.g.metrics.gaps.WithLabelValues(reason).Inc()
	at := f.reader.here()
	f.out.notice(at, notice{Type: streamGap, Data: gapData{reason, at}}, f.g.cfg.Now())
}
