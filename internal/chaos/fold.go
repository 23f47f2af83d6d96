package chaos

import (
	"fmt"
	"strings"
	"time"

	"github.com/penstock-io/penstock/internal/event"
)

// fold is what a reader has of one job: it takes the job's events as they come,
// and finds fault with an order that a reader must never see. It is written
// anew here, and not job.Transcript, for it is to judge that one's users too.
type fold struct {
	next       int64 // the seq that comes next
	attempt    int
	end        event.Type // of the terminal event; "" before
	endedAt    string     // that event's time
	failed     event.Failed
	superseded int
	open       bool // the attempt may change: the last one was superseded
	text       strings.Builder
}

// take takes one event, and returns what is wrong with it: the kind, and words
// for it; "" if nothing is.
func (f *fold) take(v *event.View) (kind Kind, what string) {
	name := fmt.Sprintf("%s (attempt %d, seq %d)", v.Type, v.Attempt, v.Seq)
	switch {
	case v.Seq < f.next:
		return Repeated, name + " came again, or another of its seq"
	case f.end != "":
		return Repeated, fmt.Sprintf("%s came after the end, %s", name, f.end)
	case v.Seq > f.next:
		kind, what = Lost, fmt.Sprintf("%s came, where seq %d was next", name, f.next)
	case f.next > 0 && v.Attempt != f.attempt && (!f.open || v.Attempt != f.attempt+1):
		kind, what = Repeated, fmt.Sprintf("%s came in attempt %d, which nothing had superseded", name, f.attempt)
	}
	f.next, f.attempt, f.open = v.Seq+1, v.Attempt, false
	if err := f.say(v); err != nil {
		return Lost, name + ": " + err.Error()
	}
	return kind, what
}

func (f *fold) say(v *event.View) error {
	switch v.Type {
	case event.OutputDelta:
		var d event.Delta
		if err := event.DecodeData(v.Data, &d); err != nil {
			return err //nolint:wrapcheck // it says what is wrong with the data
		}
		f.says(d)
	case event.OutputSuperseded:
		f.text.Reset()
		f.superseded++
		f.open = true
	case event.OutputFailed:
		f.end, f.endedAt = v.Type, string(v.Time)
		return event.DecodeData(v.Data, &f.failed) //nolint:wrapcheck // as above
	case event.OutputCompleted, event.OutputCancelled:
		f.end, f.endedAt = v.Type, string(v.Time)
		var end event.Stopped // what a completed one has beside is not checked here
		if err := event.DecodeData(v.Data, &end); err != nil {
			return err //nolint:wrapcheck // as above
		}
		f.says(end.Deltas...)
	default: // it says nothing that is checked here
	}
	return nil
}

func (f *fold) says(deltas ...event.Delta) {
	for _, d := range deltas {
		f.text.WriteString(d.Content)
	}
}

// moment reads a time as records write it; what is none is the zero time.
func moment(text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return at
}
