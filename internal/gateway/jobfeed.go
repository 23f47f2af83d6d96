package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// jobFeed is a job's events as a client gets them.
type jobFeed struct {
	jobStream
	out  sink
	snap *snapshot // until it was sent
	asks bool      // a snapshot is to be begun

	hole    *hole      // a gap of which it is not known yet what can be had elsewhere
	mend    *mend      // that was, until it was sent
	outcome job.Status // by the row, where the log cannot tell
}

// snapshot gathers what a job has said so far.
type snapshot struct {
	until int64 // events from this offset on are sent as they are
	text  job.Transcript
	at    string // the cursor behind the last event in it
	free  func()
}

// open begins the feed, of which it sets what others must not.
func (f *jobFeed) open(ctx context.Context, g *Gateway, named *int32, at string) error {
	f.to = f
	if err := g.openJob(ctx, &f.jobStream, named, at); err != nil {
		return err
	}
	f.reader.whole = f.takeWhole
	return nil
}

// takeWhole takes a segment's run that several watchers have before them. The
// first makes what goes over the wire, for all.
func (f *jobFeed) takeWhole(s *segment, r *run) bool {
	out, ok := f.out.(sharer)
	if !ok || f.snap != nil || f.mend != nil || f.hole != nil || f.anySeq || f.progress.End != "" || f.out.full() {
		return f.reader.walkRun(s, r, f.visitor)
	}
	slot, from := &r.shared[out.format()], f.stand()
	if made := slot.Load(); made != nil && made.from == from && out.lend(made) {
		f.reader.filter.Epochs, f.progress, f.seen = made.to.epochs, made.to.progress, true
		f.reader.pass(&s.behind)
		return !f.out.full() && f.progress.End == ""
	}
	mark := out.mark()
	if !f.reader.walkRun(s, r, f.visitor) && f.progress.End == "" {
		return false
	}
	if last := &s.entries[r.last]; f.progress.NextSeq == from.progress.NextSeq+int64(r.count) && f.reader.next == last.offset+1 {
		made := &shared{from: from, to: f.stand(), events: r.count}
		out.share(mark, made)
		slot.Store(made)
	}
	return f.progress.End == ""
}

func (f *jobFeed) stand() stand { return stand{f.tenant, f.reader.filter.Epochs, f.progress} }

// poll implements feed.
func (f *jobFeed) poll(ctx context.Context) (<-chan struct{}, error) {
	if f.hole != nil || f.asks || f.mend != nil && f.mend.due != nil {
		switch {
		case f.reader.near:
			return nil, errFar
		case f.asks:
			return nil, f.beginSnapshot(ctx)
		case f.hole != nil:
			return nil, f.fill(ctx)
		default:
			return nil, f.sendMend(ctx)
		}
	}
	wait, err := f.jobStream.poll(ctx)
	if f.mend != nil {
		wait, err = f.found(wait, err)
	}
	switch {
	case f.snap == nil || f.hole != nil:
	case f.reader.next >= f.snap.until && (err == nil || errors.Is(err, errNoMore)):
		f.sendSnapshot()
	case err != nil && !errors.Is(err, errNoMore) && !errors.Is(err, errFar):
		f.endSnapshot() // others need the room while the log cannot be read
		f.asks = true
	}
	return wait, err
}

// take implements taker.
func (f *jobFeed) take(e *entry) bool {
	if f.hole != nil {
		return false
	}
	if f.mend != nil {
		switch {
		case !e.view.Type.Terminal():
			return true
		case e.view.Seq > 0:
			f.mend.due = f.dueAt(e)
			return false
		default: // the job's only event, with all that it said: nothing is missing
			f.tellGap("", f.mend.hole.gap)
			f.mend = nil
		}
	}
	if f.snap != nil {
		// The end is always sent as it is: a client has to learn of it.
		if e.offset < f.snap.until && !e.view.Type.Terminal() {
			if err := f.snap.text.Apply(&e.view); err != nil {
				f.g.cfg.Logger.Warn("event not in the snapshot", slog.String("job", f.id), slog.Any("error", err))
			}
			f.snap.at = f.reader.cursor(e)
			return true
		}
		f.sendSnapshot()
	}
	f.out.record(e, f.reader.cursor(e))
	return !f.out.full()
}

func (f *jobFeed) sendSnapshot() {
	s := f.snap
	f.out.notice(s.at, notice{
		Type: streamSnapshot, Tenant: f.tenant, Job: f.id, Attempt: s.text.Attempt,
		Data: snapshotData{Text: s.text.Text(), ThroughSeq: s.text.NextSeq - 1},
	}, f.g.cfg.Now())
	f.endSnapshot()
}

func (f *jobFeed) endSnapshot() {
	if f.snap != nil {
		f.snap.free()
		f.snap = nil
	}
}

// pending implements folder.
func (f *jobFeed) pending() bool { return f.asks }

// beginSnapshot makes the stream begin with what was said so far. A cursor is
// then no more than a hint where the job may begin.
func (f *jobFeed) beginSnapshot(ctx context.Context) error {
	free, err := f.g.fold(ctx, f.g.cfg.Patience)
	if err != nil {
		return err
	}
	f.out.reset()
	if f.later || f.asks {
		f.later, f.anySeq, f.hole = false, false, nil // a gap at the cursor is none from the beginning
		f.restart(f.start)
	}
	until, _ := f.part.end()
	f.snap, f.asks = &snapshot{until: until, at: f.reader.here(), free: free}, false
	return nil
}

// folds bounds the transcripts that are in memory at once.
const folds = 64

// fold waits for room for one more transcript, for a bounded time: whoever waits may
// stand in the way of those who have some.
func (g *Gateway) fold(ctx context.Context, patience time.Duration) (free func(), err error) {
	full := time.NewTimer(patience)
	defer full.Stop()
	select {
	case g.folding <- struct{}{}:
		return func() { <-g.folding }, nil
	case <-full.C:
		f := fault.New(fault.Unavailable, "this server is reading %d answers from the log, as many as it does at once: try again soon", folds)
		f.RetryAfter = time.Second
		return nil, f
	case <-ctx.Done():
		return nil, ctx.Err() //nolint:wrapcheck // the caller's own
	}
}

// end lets go of what the feed holds.
func (f *jobFeed) end() {
	f.endSnapshot()
	f.close()
}

// folding implements folder.
func (f *jobFeed) folding() bool { return f.snap != nil }
