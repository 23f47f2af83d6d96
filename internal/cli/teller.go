package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/cli/client"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// teller writes a job's events as they come: its text, or the records.
type teller struct {
	sys     *System
	out     format
	midLine bool   // stdout does not stand at the beginning of a line
	shown   bool   // some of the attempt's text is on stdout
	more    bool   // the answer has what is not shown
	ended   bool   // the job's end came
	failure string // how the job ended, if not well
}

// follow writes a job's events from a place up to its end. The error says that it did not
// complete.
func (t *teller) follow(ctx context.Context, cl *client.Client, id string, from client.Place) error {
	for e, err := range cl.Follow(ctx, id, from) {
		if err == nil {
			err = t.tell(&e)
		}
		if err != nil {
			t.endLine()
			return advise(err)
		}
	}
	t.endLine()
	if t.more {
		fmt.Fprintf(t.sys.Stderr, "penstock: the answer is more than a text: penstock job get %s shows it\n", id)
	}
	if !t.ended {
		if err := t.ask(ctx, cl, id); err != nil {
			return err
		}
	}
	if t.failure != "" {
		return errors.New("job " + id + " " + t.failure)
	}
	return nil
}

// ask finds out how a job ended of whose end the stream has not told: the log has
// lost it, or it lies before the cursor.
func (t *teller) ask(ctx context.Context, cl *client.Client, id string) error {
	j, err := cl.Get(ctx, id, 0)
	switch {
	case err != nil:
		return advise(err)
	case !j.Status.Ended():
		return fmt.Errorf("job %s is %s, and no more of it can be followed", id, j.Status)
	case j.Error != nil:
		t.failure = failed(j.Error)
	case j.Status != job.Completed:
		t.failure = "is " + string(j.Status)
	}
	return nil
}

func failed(f *event.Failed) string { return fmt.Sprintf("failed: %s (%s)", f.Message, f.Code) }

func (t *teller) tell(e *client.Event) error {
	if t.out != asTable {
		if err := writeJSON(t.sys.Stdout, t.out, jsontext.Value(e.Data)); err != nil {
			return err
		}
	}
	t.ended = e.View.Type.Output() && e.View.Type.Terminal()
	switch e.View.Type {
	case event.OutputDelta:
		var d event.Delta
		if err := event.DecodeData(e.View.Data, &d); err != nil {
			return fmt.Errorf("read what the job says: %w", err)
		}
		t.delta(&d)
	case event.OutputCompleted, event.OutputCancelled:
		var end event.Stopped
		if err := event.DecodeData(e.View.Data, &end); err != nil {
			return fmt.Errorf("read what the job says: %w", err)
		}
		for i := range end.Deltas {
			t.delta(&end.Deltas[i])
		}
		if e.View.Type == event.OutputCancelled {
			t.failure = "was cancelled"
		}
	case event.OutputSuperseded:
		var s event.Superseded
		_ = event.DecodeData(e.View.Data, &s) // a reason is a courtesy
		if t.shown {
			t.endLine()
			t.say(fmt.Sprintf("--- the text above is void (%s): the answer begins anew ---\n", s.Reason))
			t.shown, t.more = false, false
		}
	case event.OutputFailed:
		var f event.Failed
		if err := event.DecodeData(e.View.Data, &f); err != nil {
			return fmt.Errorf("read why the job failed: %w", err)
		}
		t.failure = failed(&f)
	case "stream.snapshot":
		var whole struct {
			Text string `json:"text"`
		}
		if err := event.DecodeData(e.View.Data, &whole); err != nil {
			return fmt.Errorf("read what the job says: %w", err)
		}
		t.snapshot(whole.Text)
	case "stream.gap":
		var gap struct {
			Reason string `json:"reason"`
		}
		_ = event.DecodeData(e.View.Data, &gap) // a reason is a courtesy
		if t.out == asTable {
			t.endLine()
			fmt.Fprintf(t.sys.Stderr, "penstock: events are missing here: %s\n", gap.Reason)
		}
	default: // what this build does not know, or does not show
	}
	return nil
}

// snapshot shows a text that stands in place of all that was shown.
func (t *teller) snapshot(text string) {
	if t.out != asTable {
		return
	}
	if t.shown {
		t.endLine()
		t.say("--- the text above has gaps: here it is whole ---\n")
	}
	t.show(text)
}

// delta shows what the first choice says.
func (t *teller) delta(d *event.Delta) {
	if t.out != asTable {
		return
	}
	if d.Index != 0 || d.ToolCalls != nil || d.Embedding != nil {
		t.more = true
	}
	if d.Index == 0 {
		t.show(d.Content + d.Refusal)
	}
}

// show says some of the answer.
func (t *teller) show(text string) {
	t.say(text)
	t.shown = t.shown || text != ""
}

func (t *teller) say(text string) {
	if text == "" {
		return
	}
	_, _ = io.WriteString(t.sys.Stdout, text)
	t.midLine = text[len(text)-1] != '\n'
}

func (t *teller) endLine() {
	if t.midLine {
		t.say("\n")
	}
}
