package gateway

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
)

// flushBytes is where one write to a client ends, and so about what a client
// that does not read costs.
const flushBytes = 64 << 10

// frames gathers what is to be written to an SSE client next.
type frames struct {
	buf    []byte
	events int
}

// sink is where a feed writes: an SSE client's frames, or those of a
// WebSocket's subscription.
type sink interface {
	// record appends a record as it stands. cursor is the place behind it.
	record(e *entry, cursor string)
	// notice appends an event of the stream's own.
	notice(cursor string, n notice, now time.Time)
	// full tells whether what is there should be written before more comes.
	full() bool
	// reset forgets what was appended and not written.
	reset()
}

// sharer is a sink whose bytes may serve others as well.
type sharer interface {
	// format is one of the wire formats.
	format() int
	// mark is the place at which the next event will begin.
	mark() int
	// share takes a copy of what was appended since a mark.
	share(from int, s *shared)
	// lend appends what another has made, and tells whether it will do here.
	lend(s *shared) bool
}

// format implements sharer.
func (*frames) format() int { return formatSSE }

// mark implements sharer.
func (f *frames) mark() int { return len(f.buf) }

// share implements sharer.
func (f *frames) share(from int, s *shared) { s.bytes = bytes.Clone(f.buf[from:]) }

// lend implements sharer.
func (f *frames) lend(s *shared) bool {
	f.buf = append(f.buf, s.bytes...)
	f.events += s.events
	return true
}

// full implements sink.
func (f *frames) full() bool { return len(f.buf) >= flushBytes }

// reset implements sink.
func (f *frames) reset() { f.buf, f.events = f.buf[:0], 0 }

// record implements sink.
func (f *frames) record(e *entry, cursor string) { f.event(cursor, e.raw) }

// event appends one event. id stays the client's last one where it is "".
func (f *frames) event(id string, data []byte) {
	if id != "" {
		f.buf = append(f.buf, "id: "...)
		f.buf = append(f.buf, id...)
		f.buf = append(f.buf, '\n')
	}
	f.buf = append(f.buf, "data: "...)
	for {
		i := bytes.IndexAny(data, "\r\n")
		if i < 0 {
			break
		}
		f.buf = append(f.buf, data[:i]...)
		f.buf = append(f.buf, "\ndata: "...)
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		data = data[i+1:]
	}
	f.buf = append(f.buf, data...)
	f.buf = append(f.buf, "\n\n"...)
	f.events++
}

// comment appends what a person may read who looks at the stream.
func (f *frames) comment(text string) {
	f.buf = fmt.Appendf(f.buf, ": %s\n", strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return ' '
		}
		return r
	}, text))
}

// heartbeat appends a comment.
func (f *frames) heartbeat() { f.buf = append(f.buf, ":\n\n"...) }

// retry appends how long a client that comes back by itself has to wait with that.
func (f *frames) retry(after time.Duration) {
	f.buf = fmt.Appendf(f.buf, "retry: %d\n\n", after.Milliseconds())
}

// notice is an event of the stream's own, which is in no log.
type notice struct {
	Type    string `json:"type"`
	V       int    `json:"v"`
	Time    string `json:"time"`
	Tenant  string `json:"tenant,omitzero"`
	Job     string `json:"job,omitzero"`
	Attempt int    `json:"attempt,omitzero"`
	Data    any    `json:"data"`
}

// The notices' types.
const (
	streamGap      = "stream.gap"
	streamSnapshot = "stream.snapshot"
)

// gapData says that events are missing in front of the next one, why, and from
// where the stream goes on.
type gapData struct {
	Reason string `json:"reason"`
	Cursor string `json:"cursor"`
}

// snapshotData is what a job has said up to and with the event of a seq, which
// is -1 before the first.
type snapshotData struct {
	Text       string `json:"text"`
	ThroughSeq int64  `json:"through_seq"`
}

// notice implements sink.
func (f *frames) notice(cursor string, n notice, now time.Time) { f.event(cursor, n.encode(now)) }

// encode writes the notice as an event.
func (n notice) encode(now time.Time) []byte {
	n.V, n.Time = event.Version, now.UTC().Format(event.TimeLayout)
	b, err := json.Marshal(n, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic("gateway: a notice has no JSON: " + err.Error())
	}
	return b
}
