package gateway

import (
	"log/slog"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/gateway/openai"
	"github.com/penstock-io/penstock/internal/job"
)

// chatFeed is a job's output as a client of the Chat Completions API gets it.
type chatFeed struct {
	jobStream
	out     *frames
	chunks  *openai.Chunks
	sent    bool         // some of the answer was sent
	failure *fault.Error // why there will be no more of it
}

// take implements taker.
func (f *chatFeed) take(e *entry) bool {
	if f.failure != nil { // of a gap in front of this event
		return false
	}
	v := &e.view
	switch v.Type {
	case event.OutputStarted:
		var s event.Started
		if !f.decode(v, &s) {
			return false
		}
		f.chunks.Begin(s.Model)
	case event.OutputDelta:
		buf, err := f.chunks.AppendDelta(f.out.buf, v.Data)
		if err != nil {
			f.unreadable(v, err)
			return false
		}
		f.out.buf = buf
		f.out.events++
	case event.OutputSuperseded:
		if f.sent {
			f.fail(fault.New(fault.AttemptSuperseded, "what was sent of this answer is void, since the model could not go on from there: "+
				"the job goes on with another attempt at %s", job.LinksOf(f.id).Self))
			return false
		}
		f.forget()
		f.chunks.Begin("")
	case event.OutputCompleted:
		var end event.Completed
		if !f.decode(v, &end) {
			return false
		}
		if !f.takeRest(v) {
			return false
		}
		f.out.buf = f.chunks.AppendEnd(f.out.buf, &end)
		f.out.events++
	case event.OutputFailed:
		var failed event.Failed
		if !f.decode(v, &failed) {
			return false
		}
		f.fail(failureOf(v.Type, &failed))
	case event.OutputCancelled:
		f.fail(failureOf(v.Type, nil))
	default: // a tool's result, or what a later version writes: no part of the answer
	}
	return !f.out.full()
}

// takeRest takes what stands in no delta of its own but in the end.
func (f *chatFeed) takeRest(v *event.View) bool {
	var rest struct {
		Deltas []jsontext.Value `json:"deltas"`
	}
	if !f.decode(v, &rest) {
		return false
	}
	for _, data := range rest.Deltas {
		buf, err := f.chunks.AppendDelta(f.out.buf, data)
		if err != nil {
			f.unreadable(v, err)
			return false
		}
		f.out.buf = buf
		f.out.events++
	}
	return true
}

// gap implements taker.
func (f *chatFeed) gap(reason, _ string) { f.fail(f.lost(reason)) }

// fail ends the stream: in-band if some of the answer was sent. If not, what
// waits to be sent is forgotten, and the failure is the whole answer.
func (f *chatFeed) fail(err *fault.Error) {
	if f.failure != nil {
		return
	}
	f.failure, f.over = err, true
	if !f.sent {
		f.forget()
		return
	}
	f.out.buf = openai.AppendError(f.out.buf, err)
	f.out.events++
}

// forget drops what waits to be sent.
func (f *chatFeed) forget() { f.out.buf, f.out.events = f.out.buf[:0], 0 }

func (f *chatFeed) decode(v *event.View, into any) bool {
	if err := event.DecodeData(v.Data, into); err != nil {
		f.unreadable(v, err)
		return false
	}
	return true
}

func (f *chatFeed) unreadable(v *event.View, err error) {
	f.g.cfg.Logger.Error("event not read", slog.String("job", f.id), slog.Int64("seq", v.Seq), slog.Any("error", err))
	f.fail(fault.Wrap(err, fault.Internal, "an event of the answer cannot be read"))
}
