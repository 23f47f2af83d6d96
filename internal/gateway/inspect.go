package gateway

import (
	"context"
	"errors"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// question asks about a job of which a stream has seen nothing.
type question struct {
	tenant, id  string
	place       place
	part        *partition
	topic       cursor.TopicID // that the stream reads
	start       int64
	sure, later bool
}

func (s *jobStream) question() question {
	return question{tenant: s.tenant, id: s.id, place: s.place, part: s.part, topic: s.reader.topic, start: s.start, sure: s.sure, later: s.later}
}

// verdict is what is known of such a job.
type verdict struct {
	err   error // a fault.NotFound where nobody knows it
	ended bool  // all its events are in the log, or were
	until int64 // where it has ended, the log's end since then
	from  int64 // where its events begin, if that is before where it was looked for; else -1
}

// inspect finds out whether there is such a job: in the log before the stream's
// start, among the rows, among the requests. One that was answered 202 is in
// the last of them.
func (g *Gateway) inspect(ctx context.Context, q question) verdict {
	v := g.findOut(ctx, q)
	if v.ended {
		v.until, v.err = g.offset(ctx, g.hub.of(q.place.partition), kafka.End())
	}
	return v
}

// findOut looks into the log first where that is little: its start rests on a
// clock. Behind a cursor it may be all there is, so there the job has to exist.
func (g *Gateway) findOut(ctx context.Context, q question) verdict {
	if !q.sure && !q.later {
		from, p, err := g.earlier(ctx, q)
		switch {
		case err != nil:
			return verdict{err: err}
		case p.NextSeq > 0:
			return verdict{from: from}
		}
	}
	row, rowErr := g.row(ctx, q.tenant, q.id)
	if row != nil && (row.Status.Ended() || !q.later) {
		return verdict{ended: row.Status.Ended(), from: -1}
	}
	if row == nil {
		req, whole, err := g.request(ctx, q.tenant, q.id, q.place)
		switch {
		case err != nil:
			return verdict{err: err}
		case req != nil:
			q.place.requested(req, g.cfg.Now())
		case !whole && rowErr != nil && !notFound(rowErr):
			return verdict{err: unavailable(ctx, rowErr)} // neither can tell
		default:
			return verdict{err: noJob(q.id)}
		}
	}
	if !q.later {
		return verdict{from: -1}
	}
	q.place.requested(row, g.cfg.Now())
	_, p, err := g.earlier(ctx, q)
	if err != nil {
		return verdict{err: err}
	}
	return verdict{ended: p.End != "", from: -1} // the row may be late
}

// readsOn tells where a search goes on that an error has met at an offset, if the log
// has it no more, or not so that it can be read.
func readsOn(err error, at int64) (next int64, ok bool) {
	if out, ok := errors.AsType[*kafka.OutOfRangeError](err); ok {
		return out.Earliest, out.Earliest > at
	}
	if corrupt, ok := errors.AsType[*kafka.CorruptError](err); ok {
		return corrupt.Next, corrupt.Next > at
	}
	return 0, false
}

// earlier looks for a job between where Kafka says that it begins and where it
// was looked for. It keeps nothing of what it reads.
func (g *Gateway) earlier(ctx context.Context, q question) (from int64, p job.Progress, err error) {
	if q.place.since.IsZero() {
		from, err = g.offset(ctx, g.hub.of(q.place.partition), kafka.Start())
	} else {
		from, err = g.beginByTime(ctx, q.part, q.place.since)
	}
	if err != nil {
		return 0, p, err
	}
	var filter fence.Filter
	for next := from; next < q.start; {
		was := next
		err = g.hub.readOf(ctx, q.topic, g.hub.of(q.place.partition), next, func(got kafka.Fetched) {
			entries, _ := scan(got.Records, next)
			for i := range entries {
				e := &entries[i]
				if e.offset >= q.start {
					break
				}
				if filter.Admit(&e.view) && e.view.Type.Output() && string(e.view.Job) == q.id && string(e.view.Tenant) == q.tenant {
					p.Apply(&e.view)
				}
			}
			next = got.Next
		})
		if on, ok := readsOn(err, next); ok {
			next, err = on, nil
		}
		if err != nil || next == was {
			break
		}
	}
	return from, p, unavailable(ctx, err)
}
