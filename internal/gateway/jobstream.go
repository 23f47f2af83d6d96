package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// lookBackBy is how far before its supposed beginning a job is looked for first.
const lookBackBy = 10 * time.Minute

// errNoMore is what a poll gives where nothing will come any more. It is not
// io.EOF, which a broken connection to a broker gives.
var errNoMore = errors.New("gateway: nothing will come any more")

// taker is who a job's events are for.
type taker interface {
	// take takes an event that counts. It tells whether there is room for more.
	take(e *entry) bool
	// gap says that events are missing, why, and where the stream goes on.
	gap(reason, cursor string)
}

// jobStream finds one job's events in its partition: those that the fence lets
// through, each seq once, in order.
type jobStream struct {
	g          *Gateway
	tenant, id string
	to         taker

	place  place
	part   *partition
	reader *reader
	start  int64 // where it began
	sure   bool  // nothing of the job lies before start
	later  bool  // it began at a cursor, so the job may lie before it

	progress job.Progress
	anySeq   bool // the next event may have any seq
	seen     bool // some event was taken
	back     bool // the job begins before start
	backs    int  // how often it was looked for further back
	over     bool // nothing will come any more
	visitor  func(*entry) bool
}

// openJob begins the stream of a job's events: at its beginning, or behind a
// cursor. The stream needs a close.
func (g *Gateway) openJob(ctx context.Context, s *jobStream, named *int32, at string) error {
	pl, err := g.locate(ctx, s.tenant, s.id, named)
	if err != nil {
		return err
	}
	return g.openAt(ctx, s, pl, at)
}

// openAt is openJob where it is known where the job's records lie.
func (g *Gateway) openAt(ctx context.Context, s *jobStream, pl place, at string) error {
	s.g, s.place, s.visitor = g, pl, s.visit
	var err error
	if s.part, err = g.hub.acquire(ctx, s.place.partition); err != nil {
		return unavailable(ctx, err)
	}
	if at != "" {
		err = s.resume(ctx, at)
	} else if s.start, s.sure, err = g.begin(ctx, s.part, s.place); err == nil {
		s.reader = newReader(g.hub, s.part, s.start, -1)
	}
	if s.reader != nil {
		s.reader.about = subject{ofJob, s.id}
	}
	if err != nil {
		s.close()
	}
	return err
}

func (s *jobStream) close() {
	if s.part != nil {
		if s.reader != nil {
			s.reader.leave()
		}
		s.g.hub.release(s.part)
		s.part = nil
	}
}

// resume begins behind a cursor. What stands in front of it tells how far the
// job had come, if it is one of the job's own events.
func (s *jobStream) resume(ctx context.Context, at string) error {
	c, err := s.g.checkCursor(ctx, s.part, at)
	if err != nil {
		return err
	}
	s.start, s.later, s.anySeq = c.Next, true, true
	s.reader = newReader(s.g.hub, s.part, c.Next, c.LeaderEpoch)
	s.reader.filter.Epochs = c.Epochs
	e, err := s.reader.before(ctx)
	if g, ok := errors.AsType[*gapError](err); ok {
		s.tell(g.reason)
		return nil
	}
	if err != nil {
		return unavailable(ctx, err)
	}
	if e != nil && s.mine(e) && e.view.Type.Output() && e.view.Epoch >= c.Epochs[e.view.Lane] {
		s.progress.NextSeq = e.view.Seq // all before it were had
		s.progress.Apply(&e.view)
		s.anySeq = false
	}
	return nil
}

// tell tells of a gap in front of the stream's position.
func (s *jobStream) tell(reason string) {
	s.g.metrics.gaps.WithLabelValues(reason).Inc()
	s.to.gap(reason, s.reader.here())
}

// mine tells whether a record is the job's.
func (s *jobStream) mine(e *entry) bool {
	return string(e.view.Job) == s.id && string(e.view.Tenant) == s.tenant
}

// checkCursor reads a cursor of a partition, which must be one that this topic
// may have given.
func (g *Gateway) checkCursor(ctx context.Context, p *partition, text string) (cursor.Cursor, error) {
	c, err := cursor.Parse(text)
	if err != nil {
		return c, g.badCursor(ctx, p, err.Error())
	}
	own, err := g.ownTopic(ctx, p, c.Topic)
	if err != nil {
		return c, unavailable(ctx, err)
	}
	switch end, _ := p.end(); {
	case !own:
		return c, g.badCursor(ctx, p, "the cursor is of another topic, or of one that was deleted since")
	case c.Partition != p.id:
		return c, g.badCursor(ctx, p, fmt.Sprintf("the cursor is of partition %d, and what was asked for lies in partition %d", c.Partition, p.id))
	case c.Next <= end:
		return c, nil
	}
	end, err := g.offset(ctx, g.hub.of(p.id), kafka.End())
	if err != nil {
		return c, err
	}
	if c.Next > end {
		return c, g.badCursor(ctx, p, fmt.Sprintf("the cursor stands at offset %d, and the log ends at %d", c.Next, end))
	}
	return c, nil
}

// ownTopic tells whether the topic is this one. Where it seems to be another, Kafka
// is asked: another gateway may know already that it was made anew.
func (g *Gateway) ownTopic(ctx context.Context, p *partition, id cursor.TopicID) (bool, error) {
	if topic, _ := g.hub.born(); topic == id {
		return true, nil
	}
	actx, cancel := g.patience(ctx)
	defer cancel()
	if _, err := g.renewals.offset(actx, kafka.TopicPartition{}, kafka.At{}); err != nil { // with all who ask
		return false, err
	}
	topic, _ := g.hub.born()
	return topic == id, g.hub.follow(actx, p)
}

// badCursor is the answer to a cursor that is of no use, with the earliest that is.
func (g *Gateway) badCursor(ctx context.Context, p *partition, why string) error {
	first, err := g.offset(ctx, g.hub.of(p.id), kafka.Start())
	if err != nil {
		return err
	}
	f := fault.New(fault.InvalidCursor, "%s: the earliest good one is %s", why, g.cursor(p.id, first, -1, fence.Epochs{}))
	f.Param = "cursor"
	return f
}

// visit takes the partition's next record.
func (s *jobStream) visit(e *entry) bool {
	v := &e.view
	if !s.reader.filter.Admit(v) || !v.Type.Output() || !s.mine(e) {
		return true
	}
	if v.Seq > s.progress.NextSeq && !s.anySeq && s.progress.End == "" {
		if !s.seen && s.progress.NextSeq == 0 {
			s.back = true
			return false
		}
		s.g.cfg.Logger.Warn("a seq is missing", slog.String("job", s.id),
			slog.Int64("seq", s.progress.NextSeq), slog.Int64("got", v.Seq), slog.Int64("offset", e.offset))
		s.g.metrics.gaps.WithLabelValues(gapMissing).Inc()
		s.to.gap(gapMissing, s.reader.place(e.offset, -1))
	}
	if !s.progress.Apply(v) {
		return true
	}
	s.anySeq, s.seen = false, true
	return s.to.take(e) && s.progress.End == ""
}

// poll hands over what is there. Its answers are reader.poll's, but that after
// the job's end the error is errNoMore; any other may pass.
func (s *jobStream) poll(ctx context.Context) (wait <-chan struct{}, err error) {
	if s.progress.End != "" || s.over {
		return nil, errNoMore
	}
	if !s.back {
		wait, err = s.reader.poll(ctx, s.visitor)
	}
	if s.back {
		if s.reader.near {
			return nil, errFar
		}
		s.back = false
		return nil, s.lookBack(ctx)
	}
	if s.seen {
		s.reader.narrow()
	}
	if g, ok := errors.AsType[*gapError](err); ok {
		s.anySeq = true
		s.over = g.reason == gapRecreated
		s.tell(g.reason)
		return nil, nil
	}
	return wait, err
}

// lookBack comes after a first seq above 0: once it looks some minutes before,
// then from the log's start. If that is of no help either, retention took the
// beginning.
func (s *jobStream) lookBack(ctx context.Context) error {
	tp := s.g.hub.of(s.part.id)
	at := kafka.Start()
	if s.backs++; s.backs == 1 && !s.place.since.IsZero() {
		at = kafka.AtTime(s.place.since.Add(-lookBackBy))
	}
	offset, err := s.g.offset(ctx, tp, at)
	switch {
	case err != nil:
		s.backs--
		s.restart(s.start)
		return err
	case offset < s.start:
		s.restart(offset)
	case s.backs == 1:
		s.restart(s.start) // and comes back for the log's start
	default:
		s.restart(offset)
		s.anySeq = true
		s.tell(gapRetention)
	}
	return nil
}

// restart begins again at an offset, with no event taken so far.
func (s *jobStream) restart(offset int64) {
	s.start = offset
	s.reader.seek(offset)
	s.reader.filter, s.progress = fence.Filter{}, job.Progress{}
}

// settling is what is known of a job of which a stream has seen nothing.
type settling struct {
	ended bool  // the job has ended
	until int64 // below this offset, if it has
	known bool  // there is such a job, and it goes on
}

// settled comes after a poll, and tells whether the stream has seen the job, or
// it is known that there is one. Where nothing will come any more, the next poll
// says so.
func (s *jobStream) settled(q *settling, wait <-chan struct{}) bool {
	switch {
	case s.seen:
		return true
	case wait == nil:
		return false
	case q.ended && s.reader.next >= q.until:
		if !s.later {
			s.tell(gapRetention) // it has ended, and its events are gone
		}
		s.over = true
		return true
	case q.known:
		s.reader.narrow() // its events may be a long time in coming
		return true
	default:
		return false
	}
}

// heed takes a verdict in. An error says that there is no such job, or that
// nobody can tell.
func (s *jobStream) heed(q *settling, v verdict) error {
	switch {
	case v.err != nil:
		return v.err
	case v.ended:
		q.ended, q.until = true, v.until
	case v.from >= 0 && !s.seen:
		s.restart(v.from)
	}
	q.known = !v.ended
	return nil
}

// settle polls until an event was taken or it is known that there is such a
// job. The error is errNoMore where nothing will come any more.
func (s *jobStream) settle(ctx context.Context) error {
	grace := time.NewTimer(s.g.cfg.Grace)
	defer grace.Stop()
	answer := make(chan verdict, 1)
	var q settling
	for {
		wait, err := s.poll(ctx)
		switch {
		case errors.Is(err, errNoMore):
			return err
		case err != nil:
			return unavailable(ctx, err)
		case s.settled(&q, wait):
			if s.over {
				return errNoMore
			}
			return nil
		case wait == nil:
			continue
		}
		select {
		case <-wait:
		case <-grace.C:
			question := s.question()
			s.g.start(ctx, func(ctx context.Context) { answer <- s.g.inspect(ctx, question) })
		case v := <-answer:
			if err := s.heed(&q, v); err != nil {
				return err
			}
		case <-s.g.draining:
			return errDraining()
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the caller's own
		}
	}
}
