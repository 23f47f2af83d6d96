package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// attend polls a job's events until done says that enough was seen, or nothing
// will come any more. The error is one to answer with: a log that cannot be read
// is waited for a bounded time, and so is the job.
func (s *jobStream) attend(ctx context.Context, done func() bool) error {
	limit := time.NewTimer(s.g.cfg.AnswerPatience)
	defer limit.Stop()
	var away time.Time // since when the log could not be read
	s.reader.narrow()
	for {
		wait, err := s.poll(ctx)
		var retry <-chan time.Time
		switch {
		case done() || errors.Is(err, errNoMore):
			return nil
		case err == nil:
			away = time.Time{}
			if wait == nil {
				wait = ready
			}
		case away.IsZero():
			away = s.g.cfg.Now()
			retry = time.After(retryPause)
		case s.g.cfg.Now().Sub(away) > s.g.cfg.Patience:
			return unavailable(ctx, err)
		default:
			retry = time.After(retryPause)
		}
		select {
		case <-s.g.draining:
			return errDraining()
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the caller's own
		default:
		}
		select {
		case <-wait:
		case <-retry:
		case <-limit.C:
			return s.late()
		case <-s.g.draining:
			return errDraining()
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the caller's own
		}
	}
}

func (s *jobStream) late() error {
	return fault.New(fault.DeadlineExceeded, "the answer did not come within %s; its job goes on: ask for %s, or send less",
		s.g.cfg.AnswerPatience, job.LinksOf(s.id).Self)
}

// lost is what becomes of an answer of which the log has not got all.
func (s *jobStream) lost(reason string) *fault.Error {
	return fault.New(fault.Unavailable, "a part of the answer is not in the log any more (%s): ask for %s, or send the request again",
		reason, job.LinksOf(s.id).Self)
}

// failureOf is the fault of a job that ended without an answer; nil for one that
// ended with one, or goes on.
func failureOf(end event.Type, f *event.Failed) *fault.Error {
	switch end {
	case event.OutputFailed:
		return fault.New(fault.Code(f.Code), "%s", f.Message)
	case event.OutputCancelled:
		return fault.New(fault.Cancelled, "the job was cancelled")
	default:
		return nil
	}
}

// wholeAnswer waits for a job's end and gives the JSON of what is made of all that
// it said. The text is in memory after the end alone, a bounded number of times,
// and is let go of before anything is written: however slowly that is read, it
// holds up nobody.
func (g *Gateway) wholeAnswer(ctx context.Context, tenant string, res *job.Resource, of func(*job.Transcript) any) ([]byte, error) {
	f := &whole{}
	s := &jobStream{tenant: tenant, id: res.ID, to: f}
	f.stream = s
	if err := g.openTaken(ctx, s, res); err != nil {
		return nil, err
	}
	defer s.close()
	over := func() bool { return s.progress.End != "" || f.err != nil }
	if err := s.attend(ctx, over); err != nil {
		return nil, err
	}
	if f.err != nil {
		return nil, f.err
	}
	free, err := g.fold(ctx, g.cfg.AnswerPatience) // it stands in nobody's way, and asking again would make a second job
	if err != nil {
		return nil, err
	}
	defer free()
	f.text = &job.Transcript{}
	s.restart(s.start)
	err = s.attend(ctx, over)
	switch {
	case f.err != nil:
		return nil, f.err
	case err != nil:
		return nil, err
	case s.progress.End == "":
		return nil, s.lost(gapRetention)
	}
	if failed := failureOf(f.text.End, &f.text.Failed); failed != nil {
		return nil, failed
	}
	body, err := api.EncodeJSON(of(f.text))
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "the answer has no JSON")
	}
	return body, nil
}

// whole takes a job's events for an answer that must be whole.
type whole struct {
	stream *jobStream
	text   *job.Transcript // nil while only the end is waited for
	err    error
}

// take implements taker.
func (f *whole) take(e *entry) bool {
	if f.text == nil || f.err != nil {
		return f.err == nil
	}
	if err := f.text.Apply(&e.view); err != nil {
		f.err = fault.Wrap(err, fault.Internal, "an event of the answer cannot be read")
	}
	return f.err == nil
}

// gap implements taker.
func (f *whole) gap(reason, _ string) { f.err = f.stream.lost(reason) }
