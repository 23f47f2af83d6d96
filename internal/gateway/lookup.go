package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// Lookup tells of jobs from the log alone, for those that were not projected yet.
type Lookup struct{ g *Gateway }

// Lookup makes a Lookup, which works while Run runs.
func (g *Gateway) Lookup() *Lookup { return &Lookup{g} }

// Job folds a job's request and its output as they are in the log now. A
// fault.NotFound says that neither the rows nor the log has anything of it.
// partition is that of a job whose id was not minted here, where the caller knows
// it.
func (l *Lookup) Job(ctx context.Context, tenant, id string, partition *int32) (*job.Resource, error) {
	return l.job(ctx, tenant, id, partition, false)
}

// job is Job. Where it is not certain that there is such a job, the rows and the
// requests are asked first: nobody has a partition read, or holds room for a
// transcript, for what is not.
func (l *Lookup) job(ctx context.Context, tenant, id string, partition *int32, certain bool) (*job.Resource, error) {
	pl, err := l.g.locate(ctx, tenant, id, partition)
	if err != nil {
		return nil, err
	}
	row, rowErr := l.g.row(ctx, tenant, id)
	res, _, err := l.g.request(ctx, tenant, id, pl) // behind the rows: a request that has just got its row is kept for days
	switch {
	case err != nil:
		return nil, unavailable(ctx, err)
	case certain || row != nil || res != nil || l.g.cfg.Rows == nil:
	case notFound(rowErr):
		return nil, noJob(id)
	default:
		return nil, unavailable(ctx, rowErr) // the rows might know it
	}
	pl.requested(res, l.g.cfg.Now())
	pl.requested(row, l.g.cfg.Now())
	t := &transcript{log: l.g.cfg.Logger}
	s := &jobStream{tenant: tenant, id: id, to: t}
	free, err := l.g.fold(ctx, l.g.cfg.Patience)
	if err != nil {
		return nil, err
	}
	defer free()
	if err := l.g.openAt(ctx, s, pl, ""); err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.readAll(ctx); err != nil {
		return nil, unavailable(ctx, err)
	}
	switch {
	case t.lost:
		return nil, s.lost(gapCorrupt)
	case res == nil && !s.seen:
		return nil, noJob(id)
	case res == nil: // the request was kept for less time than the output
		res = t.head(id)
	}
	res.Tell(&t.text)
	return res, nil
}

// Partition tells on which partition a job's records lie: by its id if it was
// minted here, else by its row, by the partition that the caller names, or by
// the id's hash.
func (l *Lookup) Partition(ctx context.Context, tenant, id string, named *int32) (int32, error) {
	pl, err := l.g.locate(ctx, tenant, id, named)
	if err != nil {
		return 0, unavailable(ctx, err)
	}
	return pl.partition, nil
}

// readAll polls until the stream is at the end of what is known of the log.
// Before it says that there is nothing, it asks Kafka where the log ends, and
// where the job would have to begin.
func (s *jobStream) readAll(ctx context.Context) error {
	until := int64(-1)
	for {
		wait, err := s.poll(ctx)
		switch {
		case errors.Is(err, errNoMore):
			return nil
		case err != nil:
			return err
		case wait == nil:
			continue
		case s.seen || until >= 0 && s.reader.next >= until:
			return nil
		case until >= 0:
			select {
			case <-wait:
			case <-ctx.Done():
				return ctx.Err() //nolint:wrapcheck // the caller's own
			}
			continue
		}
		if until, err = s.g.offset(ctx, s.g.hub.of(s.part.id), kafka.End()); err != nil {
			return err
		}
		if s.sure {
			continue
		}
		from, err := s.g.beginByTime(ctx, s.part, s.place.since)
		if err != nil {
			return err
		}
		if from < s.start {
			s.restart(from)
		}
	}
}

// Await returns a job when it has ended, or as it stands when ctx ends; that is
// no error. A fault.NotFound says at once that nobody knows the job.
func (l *Lookup) Await(ctx context.Context, tenant, id string, partition *int32) (*job.Resource, error) {
	err := l.ended(ctx, tenant, id, partition)
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	now, cancel := l.g.patience(context.WithoutCancel(ctx))
	defer cancel()
	return l.job(now, tenant, id, partition, err == nil)
}

// ended waits for a job's end, or for the server's.
func (l *Lookup) ended(ctx context.Context, tenant, id string, partition *int32) error {
	s := &jobStream{tenant: tenant, id: id, to: nobody{}}
	if err := l.g.openJob(ctx, s, partition, ""); err != nil {
		return err
	}
	defer s.close()
	err := s.settle(ctx)
	for err == nil {
		var wait <-chan struct{}
		if wait, err = s.poll(ctx); err != nil || wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-l.g.draining:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	if errors.Is(err, errNoMore) {
		return nil
	}
	return unavailable(ctx, err)
}

// nobody takes events and drops them.
type nobody struct{}

// take implements taker.
func (nobody) take(*entry) bool { return true }

// gap implements taker.
func (nobody) gap(string, string) {}

// transcript folds events.
type transcript struct {
	text  job.Transcript
	first event.Head
	log   *slog.Logger
	torn  bool // something behind what was taken cannot be decoded
	lost  bool // and something of the job's was in it
}

// take implements taker.
func (t *transcript) take(e *entry) bool {
	t.lost = t.lost || t.torn && e.view.Seq > t.text.NextSeq
	if t.text.NextSeq == 0 && t.first.Job == "" {
		t.first = e.view.Head()
	}
	if err := t.text.Apply(&e.view); err != nil {
		t.log.Warn("event not read", slog.String("job", t.first.Job), slog.Any("error", err))
	}
	return true
}

// gap implements taker.
func (t *transcript) gap(reason, _ string) { t.torn = t.torn || reason == gapCorrupt }

// head makes a resource of what an output tells, without the request.
func (t *transcript) head(id string) *job.Resource {
	created := t.first.Time
	if m, ok := job.ParseID(id); ok {
		created = m.Time
	}
	return &job.Resource{
		Object: "job", ID: id, Lane: t.first.Lane, Tenant: t.first.Tenant, Conversation: t.first.Conversation,
		Batch: t.first.Batch, Model: t.text.Started.Model, CreatedAt: job.Time{Time: created.Truncate(time.Millisecond)},
		Links: job.LinksOf(id),
	}
}
