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

// Tally counts what comes to all watchers of a run. Deltas and delays are counted
// while Counted is set, the rest of all the time. Delays are from what a record
// says of when it was appended, in milliseconds, to when it had been read: server
// and watcher must have one clock.
type Tally struct {
	Counted atomic.Bool
	Events  atomic.Int64 // deltas that came while it was counted
	Pieces  atomic.Int64 // in which they came
	Text    atomic.Int64 // bytes of JSON that the deltas had
	All     atomic.Int64 // deltas of all the time
	AllText atomic.Int64 // bytes of JSON that they had
	Tokens  atomic.Int64 // as the answers' ends tell, of each watcher

	delays [20_000]atomic.Int64 // by Step
	total  atomic.Int64
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

// Take counts the events of a piece: a frame, or a line. seq is the next that there
// has to be, as next is then. completed tells whether the answer's end was among
// them.
func (t *Tally) Take(piece []byte, seq int64) (next int64, completed bool, err error) {
	now, counted := time.Now(), t.Counted.Load()
	if counted {
		t.Pieces.Add(1)
	}
	for {
		i := bytes.Index(piece, []byte(timeField))
		if i < 0 {
			return seq, completed, nil
		}
		delta := bytes.HasSuffix(piece[:i], []byte(`{"type":"output.delta",`))
		ends := bytes.HasSuffix(piece[:i], []byte(`{"type":"output.completed",`))
		if piece = piece[i+len(timeField):]; len(piece) < len(layout) {
			return seq, completed, errors.New("an event without a time")
		}
		if got := number(piece, seqField); got != seq {
			return seq, completed, fmt.Errorf("seq %d, where %d should be", got, seq)
		}
		seq++
		if ends {
			completed = true
			t.Tokens.Add(number(piece, usedField))
		}
		if !delta {
			continue
		}
		text := length(piece)
		t.All.Add(1)
		t.AllText.Add(text)
		if !counted {
			continue
		}
		at, err := time.Parse(layout, string(piece[:len(layout)]))
		if err != nil {
			return seq, completed, fmt.Errorf("the time of an event: %w", err)
		}
		t.Events.Add(1)
		t.Text.Add(text)
		t.delay(now.Sub(at))
	}
}

func (t *Tally) delay(d time.Duration) {
	t.delays[min(max(int(d/Step), 0), len(t.delays)-1)].Add(1)
	t.total.Add(1)
}

// Percentile is the delay below which p (0 to 1) of the events stayed, within a
// Step; 0 where there were none.
func (t *Tally) Percentile(p float64) time.Duration {
	want, seen := int64(float64(t.total.Load()-1)*p), int64(0)
	for i := range t.delays {
		if seen += t.delays[i].Load(); seen > want {
			return time.Duration(i+1) * Step
		}
	}
	return 0
}

// Delivered is how many tokens came while it was counted, by their part of all text:
// what lags comes as fewer and larger events.
func (t *Tally) Delivered() float64 {
	all := t.AllText.Load()
	if all == 0 {
		return 0
	}
	return float64(t.Text.Load()) * float64(t.Tokens.Load()) / float64(all)
}

// length is that of the next text, in bytes of JSON; 0 where there is none.
func length(piece []byte) int64 {
	_, text, _ := bytes.Cut(piece, []byte(textField))
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			return int64(i)
		case '\\':
			i++
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
