// Package tally counts the events of streams as they come to watchers, and how
// late they are, without decoding them: whoever watches has the cores that the
// server wants. It is used by `penstock bench streams` and by the bench beside
// other hubs, a module of its own, so it imports nothing of ours.
package tally

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Tally counts what comes to all watchers of a run, while Counted is set. Server and
// watcher must have one clock.
type Tally struct {
	Counted atomic.Bool
	Events  atomic.Int64 // deltas
	Pieces  atomic.Int64 // in which they came
	Tokens  atomic.Int64 // that they had
	// Delays are from what a record says of when it was appended, in milliseconds,
	// to when it had been read.
	Delays Delays
	// Ages are from when the model was to say the oldest token of a record to when
	// it had been read: with the time in which tokens were gathered, and that by
	// which the model itself was late.
	Ages Delays
}

// Stream is how far a watcher is in its stream.
type Stream struct {
	Gap time.Duration // from token to token, as the model has them; 0: it is not known

	seq    int64     // that comes next
	tokens int64     // that came
	began  time.Time // the first of them, by its record
}

// Delays counts durations by Step.
type Delays struct {
	by    [20_000]atomic.Int64
	total atomic.Int64
}

// Step is what delays are counted by.
const Step = 500 * time.Microsecond

// What of an event's text is looked for.
const (
	timeField = `"v":1,"time":"`
	textField = `"content":"`
	seqField  = `"seq":`
	usedField = `"completion_tokens":`
	layout    = "2006-01-02T15:04:05.000Z"
)

// Take counts the events of a piece: a frame, or a line. It tells whether the
// answer's end was among them, and fails where an event is not the stream's next, or
// the end tells of other tokens than came.
func (t *Tally) Take(piece []byte, s *Stream) (completed bool, err error) {
	now, counted := time.Now(), t.Counted.Load()
	if counted {
		t.Pieces.Add(1)
	}
	for {
		i := bytes.Index(piece, []byte(timeField))
		if i < 0 {
			return completed, nil
		}
		delta := bytes.HasSuffix(piece[:i], []byte(`{"type":"output.delta",`))
		ends := bytes.HasSuffix(piece[:i], []byte(`{"type":"output.completed",`))
		if piece = piece[i+len(timeField):]; len(piece) < len(layout) {
			return completed, errors.New("an event without a time")
		}
		if got := number(piece, seqField); got != s.seq {
			return completed, fmt.Errorf("seq %d, where %d should be", got, s.seq)
		}
		s.seq++
		switch {
		case ends:
			if said := number(piece, usedField); said != s.tokens {
				return completed, fmt.Errorf("%d tokens came, and the end says %d", s.tokens, said)
			}
			completed = true
		case delta:
			at, err := time.Parse(layout, string(piece[:len(layout)]))
			if err != nil {
				return completed, fmt.Errorf("the time of an event: %w", err)
			}
			t.delta(s, at, now, words(piece), counted)
		}
	}
}

// delta counts a record of so many tokens.
func (t *Tally) delta(s *Stream, at, now time.Time, tokens int64, counted bool) {
	if s.began.IsZero() {
		s.began = at
	}
	said := s.began.Add(time.Duration(s.tokens) * s.Gap)
	s.tokens += tokens
	if !counted {
		return
	}
	t.Events.Add(1)
	t.Tokens.Add(tokens)
	t.Delays.add(now.Sub(at))
	if s.Gap > 0 {
		t.Ages.add(now.Sub(said))
	}
}

// words is how many the next text has: a token of the simulated model is one.
func words(piece []byte) (n int64) {
	_, text, _ := bytes.Cut(piece, []byte(textField))
	within := false
	for i := 0; i < len(text) && text[i] != '"'; i++ {
		space := text[i] == ' '
		if text[i] == '\\' && i+1 < len(text) {
			i++
			space = text[i] == 'n'
		}
		if !space && !within {
			n++
		}
		within = !space
	}
	return n
}

func (d *Delays) add(took time.Duration) {
	d.by[min(max(int(took/Step), 0), len(d.by)-1)].Add(1)
	d.total.Add(1)
}

// Percentile is the delay below which p (0 to 1) of them stayed, within a Step; 0
// where there were none.
func (d *Delays) Percentile(p float64) time.Duration {
	want, seen := int64(float64(d.total.Load()-1)*p), int64(0)
	for i := range d.by {
		if seen += d.by[i].Load(); seen > want {
			return time.Duration(i+1) * Step
		}
	}
	return 0
}

// number is that behind a field's name, of this event or a later one; -1 where
// there is none.
func number(text []byte, field string) int64 {
	_, text, ok := bytes.Cut(text, []byte(field))
	if !ok {
		return -1
	}
	n := int64(0)
	for _, c := range text {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
