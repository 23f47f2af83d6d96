package job

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
)

// Progress is how far a job's output has come in the log, and nothing of what
// it says. The zero Progress is a job without output.
type Progress struct {
	Attempt int        // the newest attempt, from 1; 0 without output
	NextSeq int64      // the seq that comes next
	End     event.Type // the terminal event's type; "" while there is none
}

// Apply takes one unfenced event of the job, in log order. It tells whether the
// event is news: one whose seq was there already is a repetition.
func (p *Progress) Apply(v *event.View) (fresh bool) {
	if v.Seq < p.NextSeq || p.End != "" {
		return false
	}
	p.NextSeq = v.Seq + 1
	p.Attempt = v.Attempt
	if v.Type.Terminal() {
		p.End = v.Type
	}
	return true
}

// Transcript folds a job's output events into what was said: the whole answer
// so far, and how it ended. What a superseded attempt said is dropped.
type Transcript struct {
	Progress
	Started   event.Started // of the newest attempt
	StartedAt time.Time     // of the first event
	EndedAt   time.Time
	Completed event.Completed // where End is output.completed
	Failed    event.Failed    // where End is output.failed
	Deltas    int             // of the newest attempt
	choices   []*choice       // by index; a builder must not be moved
	bytes     int
}

// choice gathers one choice's deltas.
type choice struct {
	seen                        bool
	content, reasoning, refusal strings.Builder
	tools                       []toolCall
	logprobs                    logprobs
	embedding                   jsontext.Value
}

// logprobs gathers what the deltas tell of their tokens. Of each kind there are
// as many as were told.
type logprobs struct {
	Content []jsontext.Value `json:"content"`
	Refusal []jsontext.Value `json:"refusal"`
}

// toolCall gathers the deltas of one tool call: id, type and name come once,
// the arguments in pieces.
type toolCall struct {
	ID       string `json:"id,omitzero"`
	Type     string `json:"type,omitzero"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

const (
	// maxChoices bounds the index that a delta of a choice may name.
	maxChoices = 128
	// maxInputs bounds the index that a delta with an embedding may name.
	maxInputs = 2048
)

// Apply takes one unfenced event of the job, in log order. Repetitions are
// passed over. The error says that the event's data is not what its type has.
func (t *Transcript) Apply(v *event.View) error {
	if !t.Progress.Apply(v) {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, string(v.Time))
	if err != nil {
		at = time.Time{}
	}
	switch v.Type {
	case event.OutputStarted:
		return applied[event.Started](t, v.Data, at)
	case event.OutputDelta:
		return applied[event.Delta](t, v.Data, at)
	case event.OutputSuperseded:
		return t.take(event.Superseded{}, at)
	case event.OutputCompleted:
		return applied[event.Completed](t, v.Data, at)
	case event.OutputFailed:
		return applied[event.Failed](t, v.Data, at)
	case event.OutputCancelled:
		return applied[event.Stopped](t, v.Data, at)
	default: // it says nothing that is a part of the answer
		return t.take(nil, at)
	}
}

func applied[P any](t *Transcript, data []byte, at time.Time) error {
	var payload P
	if err := event.DecodeData(data, &payload); err != nil {
		_ = t.take(nil, at) // that it happened is true all the same
		return err
	}
	return t.take(payload, at)
}

// Write is Apply for who writes the event, and has its payload: one of package
// event's, by value.
func (t *Transcript) Write(h *event.Head, payload any) error {
	if !t.Progress.Apply(&event.View{Type: h.Type, Seq: h.Seq, Attempt: h.Attempt}) {
		return nil
	}
	return t.take(payload, h.Time.UTC().Truncate(time.Millisecond)) // as it stands in the log
}

// take adds what a payload says. It is of an event that is news, from the time at.
func (t *Transcript) take(payload any, at time.Time) error {
	if t.StartedAt.IsZero() {
		t.StartedAt = at
	}
	if t.End != "" {
		t.EndedAt = at
	}
	var deltas []event.Delta
	switch p := payload.(type) {
	case event.Started:
		t.Started = p
	case event.Delta:
		return t.Say(&p)
	case event.Superseded:
		t.choices, t.bytes, t.Deltas = nil, 0, 0
	case event.Completed:
		deltas, p.Deltas = p.Deltas, nil
		t.Completed = p
	case event.Failed:
		t.Failed = p
	case event.Stopped:
		deltas = p.Deltas
	}
	for i := range deltas {
		if err := t.Say(&deltas[i]); err != nil {
			return fmt.Errorf("deltas: %w", err)
		}
	}
	return nil
}

// Say adds what a delta says.
func (t *Transcript) Say(d *event.Delta) error {
	if d.Embedding != nil {
		return t.embed(d)
	}
	if d.Index < 0 || d.Index >= maxChoices {
		return fmt.Errorf("index: %d is no choice: it must be 0 to %d", d.Index, maxChoices-1)
	}
	c := t.choice(d.Index)
	c.content.WriteString(d.Content)
	c.reasoning.WriteString(d.Reasoning)
	c.refusal.WriteString(d.Refusal)
	t.Deltas++
	t.bytes += len(d.Content) + len(d.Reasoning) + len(d.Refusal) + len(d.ToolCalls) + len(d.Logprobs)
	if d.Logprobs != nil {
		if err := c.logprobs.add(d.Logprobs); err != nil {
			return err
		}
	}
	if d.ToolCalls == nil {
		return nil
	}
	return c.callTools(d.ToolCalls)
}

// choice gives the choice of an index, which is in its bounds.
func (t *Transcript) choice(index int) *choice {
	for len(t.choices) <= index {
		t.choices = append(t.choices, &choice{})
	}
	c := t.choices[index]
	c.seen = true
	return c
}

// embed takes the vector of one input.
func (t *Transcript) embed(d *event.Delta) error {
	if d.Index < 0 || d.Index >= maxInputs {
		return fmt.Errorf("index: %d is no input: it must be 0 to %d", d.Index, maxInputs-1)
	}
	if k := d.Embedding.Kind(); k != jsontext.KindBeginArray && k != jsontext.KindString {
		return errors.New("embedding: a vector must be an array of numbers, or base64 text")
	}
	t.choice(d.Index).embedding = d.Embedding.Clone()
	t.Deltas++
	t.bytes += len(d.Embedding)
	return nil
}

func (l *logprobs) add(raw jsontext.Value) error {
	var more logprobs
	if err := json.Unmarshal(raw, &more); err != nil {
		return fmt.Errorf("logprobs: %w", err)
	}
	l.Content = append(l.Content, more.Content...)
	l.Refusal = append(l.Refusal, more.Refusal...)
	return nil
}

func (c *choice) callTools(raw jsontext.Value) error {
	var deltas []struct {
		Index int `json:"index"`
		toolCall
	}
	if err := json.Unmarshal(raw, &deltas); err != nil {
		return fmt.Errorf("tool_calls: %w", err)
	}
	for i := range deltas {
		d := &deltas[i]
		if d.Index < 0 || d.Index >= maxChoices {
			return fmt.Errorf("tool_calls: %d is no index: it must be 0 to %d", d.Index, maxChoices-1)
		}
		for len(c.tools) <= d.Index {
			c.tools = append(c.tools, toolCall{})
		}
		tool := &c.tools[d.Index]
		if d.ID != "" {
			tool.ID = d.ID
		}
		if d.Type != "" {
			tool.Type = d.Type
		}
		tool.Function.Name += d.Function.Name
		tool.Function.Arguments += d.Function.Arguments
	}
	return nil
}

// Bytes is about how much memory the text takes, for whoever bounds it.
func (t *Transcript) Bytes() int { return t.bytes }

// Text is what choice 0 has said so far.
func (t *Transcript) Text() string {
	if len(t.choices) == 0 {
		return ""
	}
	return t.choices[0].content.String()
}

// Reasoning is what choice 0 has thought so far.
func (t *Transcript) Reasoning() string {
	if len(t.choices) == 0 {
		return ""
	}
	return t.choices[0].reasoning.String()
}

// PlainText tells whether text and reasoning of one choice are all that was
// said, so that they are a prefix that a model can continue from.
func (t *Transcript) PlainText() bool {
	return len(t.choices) <= 1 && (len(t.choices) == 0 || t.choices[0].plain())
}

func (c *choice) plain() bool {
	return len(c.tools) == 0 && c.refusal.Len() == 0 && c.embedding == nil
}

// Output is the whole answer, choice by choice or vector by vector, in the order
// of their indexes.
func (t *Transcript) Output() []event.OutputChoice {
	out := make([]event.OutputChoice, 0, len(t.choices))
	for i, c := range t.choices {
		if !c.seen {
			continue
		}
		out = append(out, c.output(i))
	}
	for _, ended := range t.Completed.Choices {
		found := false
		for i := range out {
			if out[i].Index == ended.Index {
				out[i].FinishReason, found = ended.FinishReason, true
			}
		}
		if !found { // a choice that ended without a word
			out = append(out, event.OutputChoice{
				Index: ended.Index, Message: event.Message{Role: "assistant"}, FinishReason: ended.FinishReason,
			})
		}
	}
	slices.SortFunc(out, func(a, b event.OutputChoice) int { return cmp.Compare(a.Index, b.Index) })
	return out
}

func (c *choice) output(index int) event.OutputChoice {
	if c.embedding != nil {
		return event.OutputChoice{Index: index, Embedding: c.embedding}
	}
	o := event.OutputChoice{Index: index, Message: event.Message{
		Role: "assistant", Content: c.content.String(), Reasoning: c.reasoning.String(), Refusal: c.refusal.String(),
	}}
	if len(c.tools) > 0 {
		o.Message.ToolCalls = event.Encode(c.tools)
	}
	if len(c.logprobs.Content)+len(c.logprobs.Refusal) > 0 {
		o.Logprobs = event.Encode(&c.logprobs)
	}
	return o
}

// Fact makes the fact that follows from a transcript that has ended: its type
// and its data. It is the same whoever makes it from the same log.
func (t *Transcript) Fact() (event.Type, jsontext.Value) {
	switch t.End {
	case event.OutputCompleted:
		return event.JobCompleted, event.Encode(event.Fact{Model: t.Completed.Model, Output: t.Output(), Usage: t.Completed.Usage})
	case event.OutputCancelled:
		return event.JobCancelled, event.Encode(event.Cancelled{Model: t.Started.Model, Output: t.Output()})
	default:
		return FailureFact(&t.Failed), event.Encode(t.Failed)
	}
}

// expired is the code of a failure that is its own fact.
const expired = "expired"

// FailureFact is the type of the fact that a failure becomes.
func FailureFact(f *event.Failed) event.Type {
	if f.Code == expired {
		return event.JobExpired
	}
	return event.JobFailed
}
