package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// place is where a job's records lie.
type place struct {
	partition int32
	since     time.Time // nothing of the job is older; zero: not known
	minted    bool      // since is the id's own
	rowless   bool      // the rows say that they have no such job
}

const (
	// rowSlack is by how much the clock of an outside producer may be ahead of
	// ours before its job has to be looked for a second time.
	rowSlack = time.Minute
	// projectionLag is how far behind the rows may be: an outside job that is
	// not among them was requested since, or never.
	projectionLag = 15 * time.Minute
	// requestSlack is how long after a job's id was minted its request may have
	// been written.
	requestSlack = time.Hour
)

func noJob(id string) error {
	return fault.New(fault.NotFound, "there is no job %.140q: it may be misspelt, or another tenant's", id)
}

func notFound(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Code == fault.NotFound
}

// locate tells where a job's records lie: by its id if it was minted here, else
// by its row, by the partition that the reader names, or by the id's hash.
func (g *Gateway) locate(ctx context.Context, tenant, id string, named *int32) (place, error) {
	if !event.ValidID(id) {
		return place{}, noJob(id)
	}
	if named != nil && (*named < 0 || *named >= g.cfg.Partitions) {
		return place{}, fault.Param("partition", "there is no partition %d: they run from 0 to %d", *named, g.cfg.Partitions-1)
	}
	if m, ok := job.ParseID(id); ok {
		if m.Partition >= g.cfg.Partitions {
			return place{}, noJob(id)
		}
		return place{partition: m.Partition, since: m.Time, minted: true}, nil
	}
	pl := place{partition: job.Partition(id, g.cfg.Partitions)}
	row, err := g.row(ctx, tenant, id)
	switch {
	case err == nil && row != nil && row.Request != nil:
		pl.partition, pl.since = row.Request.Partition, row.CreatedAt.Time
		if !pl.since.IsZero() {
			pl.since = pl.since.Add(-rowSlack)
		}
	case notFound(err):
		pl.rowless = true
	case ctx.Err() != nil:
		return place{}, fmt.Errorf("find the row of job %s: %w", id, ctx.Err())
	}
	if named != nil && *named != pl.partition {
		pl = place{partition: *named} // the reader knows better
	}
	if pl.partition >= g.cfg.Partitions {
		return place{}, noJob(id)
	}
	return pl, nil
}

// requested narrows a place to what is known of a job's request, if it was not known
// before. The clock of whoever wrote it may be ahead of ours.
func (pl *place) requested(res *job.Resource, now time.Time) {
	if res == nil || res.Request == nil || res.CreatedAt.IsZero() || !pl.since.IsZero() {
		return
	}
	since := res.CreatedAt.Time
	if since.After(now) {
		since = now
	}
	pl.since = since.Add(-rowSlack)
}

// row asks for a job's row. Without rows it gives nothing.
func (g *Gateway) row(ctx context.Context, tenant, id string) (*job.Resource, error) {
	if g.cfg.Rows == nil {
		return nil, nil
	}
	ctx, cancel := g.patience(ctx)
	defer cancel()
	return g.cfg.Rows.Find(ctx, tenant, id) //nolint:wrapcheck // a fault, whose code the callers look at
}

// offset asks Kafka, for a bounded time, together with all who ask the same.
func (g *Gateway) offset(ctx context.Context, tp kafka.TopicPartition, at kafka.At) (int64, error) {
	actx, cancel := g.patience(ctx)
	defer cancel()
	n, err := g.questions.offset(actx, tp, at)
	if err != nil {
		return 0, unavailable(ctx, fmt.Errorf("ask for an offset of %s: %w", tp, err))
	}
	return n, nil
}

// begin tells at which offset a job's events begin, or some offset before. sure
// is false where that rests on this process's clock. end is an offset that was
// in the log, or its end, before this was asked.
func (g *Gateway) begin(ctx context.Context, p *partition, pl place) (offset int64, sure bool, err error) {
	if pl.since.IsZero() {
		offset, err = g.offset(ctx, g.hub.of(pl.partition), kafka.Start())
		return offset, true, err
	}
	if offset, ok := p.covers(pl.since.Add(-g.cfg.Skew)); ok {
		return offset, false, nil
	}
	offset, err = g.beginByTime(ctx, p, pl.since)
	return offset, true, err
}

func (g *Gateway) beginByTime(ctx context.Context, p *partition, since time.Time) (int64, error) {
	end, _ := p.end() // first, so that nothing can come between
	offset, err := g.offset(ctx, g.hub.of(p.id), kafka.AtTime(since))
	return min(offset, end), err
}

// request finds a job's request on the topics of the lanes, nil if it is not
// there. whole is false where it was looked for in a part of them only.
func (g *Gateway) request(ctx context.Context, tenant, id string, pl place) (res *job.Resource, whole bool, err error) {
	if pl.since.IsZero() && pl.rowless {
		pl.since = g.cfg.Now().Add(-projectionLag)
	}
	found := make([]*job.Resource, event.LaneCount)
	all := make([]bool, event.LaneCount)
	scans, sctx := errgroup.WithContext(ctx)
	for _, lane := range event.Lanes() {
		scans.Go(func() (err error) {
			found[lane], all[lane], err = g.requestOn(sctx, lane, tenant, id, pl)
			return err
		})
	}
	if err := scans.Wait(); err != nil {
		return nil, false, err
	}
	whole = true
	for _, lane := range event.Lanes() {
		if r := found[lane]; r != nil && (res == nil || r.CreatedAt.Before(res.CreatedAt.Time)) {
			res = r
		}
		whole = whole && all[lane]
	}
	return res, whole, nil
}

func (g *Gateway) requestOn(ctx context.Context, lane event.Lane, tenant, id string, pl place) (*job.Resource, bool, error) {
	tp := kafka.TopicPartition{Topic: g.cfg.Names.Requests(lane), Partition: pl.partition}
	at, last := kafka.Start(), time.Time{}
	if !pl.since.IsZero() {
		at = kafka.AtTime(pl.since.Add(-g.cfg.Skew))
		if pl.minted {
			last = pl.since.Add(requestSlack)
		}
	}
	from, err := g.offset(ctx, tp, at)
	if err != nil {
		return nil, false, err
	}
	torn := false // a part of them cannot be read
	var topic cursor.TopicID
	for {
		var (
			res         *job.Resource
			next        int64
			done, whole bool
			other       bool // the topic was made anew meanwhile: from is of the one before
		)
		err := g.hub.read(ctx, tp, from, func(got kafka.Fetched) {
			if topic == (cursor.TopicID{}) {
				topic = got.TopicID
			}
			if other = got.TopicID != topic; other {
				return
			}
			next = got.Next
			done = next >= got.HighWatermark || next == from
			whole = done
			for i := range got.Records {
				rec := &got.Records[i]
				if !last.IsZero() && rec.Time.After(last) {
					done, whole = true, false
					return
				}
				if res = requestOf(rec, lane, tenant, id); res != nil {
					done, whole = true, true
					return
				}
			}
		})
		if on, ok := readsOn(err, from); ok { // retention was quicker, or it cannot be decoded
			torn = torn || errors.Is(err, kafka.ErrCorrupt)
			from = on
			continue
		}
		if other {
			err = fmt.Errorf("read %s: %w", tp, kafka.ErrRecreated)
		}
		if err != nil {
			return nil, false, unavailable(ctx, err)
		}
		if done {
			return res, whole && (res != nil || !torn), nil
		}
		from = next
	}
}

// requestOf makes the resource of a record if it is the request of this job.
func requestOf(rec *event.Record, lane event.Lane, tenant, id string) *job.Resource {
	if !bytes.Contains(rec.Value, []byte(id)) && !bytes.Contains(rec.Value, []byte(`\u`)) {
		return nil // nearly all are another job's: decoding them would be dear
	}
	h, req, err := event.DecodeRequest(rec)
	if err != nil || h.Job != id || h.Tenant != tenant {
		return nil
	}
	return job.NewResource(&h, &req, lane, job.Position{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset})
}
