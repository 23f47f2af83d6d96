package gateway

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// The server's frames, but for events, which envelope writes.
type (
	welcomeFrame struct {
		Op         string       `json:"op"` // "welcome"
		Version    int          `json:"version"`
		Connection string       `json:"connection"`
		Limits     socketLimits `json:"limits"`
		PingMS     int64        `json:"ping_ms"`
	}
	socketLimits struct {
		Subscriptions int `json:"subscriptions"`
		FrameBytes    int `json:"frame_bytes"`
	}
	// answerFrame is subscribed, end, or pong.
	answerFrame struct {
		Op     string `json:"op"`
		Ref    string `json:"ref,omitzero"`
		Sub    string `json:"sub,omitzero"`
		Cursor string `json:"cursor,omitzero"`
		Status string `json:"status,omitzero"`
	}
	acceptedFrame struct {
		Op  string        `json:"op"` // "accepted"
		Ref string        `json:"ref,omitzero"`
		ID  string        `json:"id"`
		Job *job.Resource `json:"job,omitzero"` // of a submit: what POST /v1/jobs answers
	}
	errorFrame struct {
		Op           string     `json:"op"` // "error"
		Ref          string     `json:"ref,omitzero"`
		Sub          string     `json:"sub,omitzero"` // a subscription that is not there, or not any more
		Code         fault.Code `json:"code"`
		Message      string     `json:"message"`
		Param        string     `json:"param,omitzero"`
		RetryAfterMS int64      `json:"retry_after_ms,omitzero"`
	}
	goawayFrame struct {
		Op          string `json:"op"` // "goaway"
		ReconnectMS int64  `json:"reconnect_ms"`
	}
)

// encodeFrame writes one of the frames above.
func encodeFrame(v any) []byte {
	b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic("gateway: a frame has no JSON: " + err.Error())
	}
	return b
}

// envelope gathers a subscription's next events frames. It holds a buffer only
// from the first event to the write.
type envelope struct {
	buffers *sync.Pool // of *[]byte
	now     func() time.Time
	sub     []byte             // the subscription's name, as JSON
	gaps    prometheus.Counter // of records that are no JSON

	box     outbox // frames, the last of which is open where at is above 0
	at      int    // where its payload begins in the box's buffer
	frames  int    // that are whole
	events  int    // of all frames
	records int    // of the events, those that stand in the log
	cursor  string // the place behind the last event
	credit  int64  // how many records it may have; -1: any number
}

// headRoom is what is left for a frame's head until its size is known.
const headRoom = 4

func (f *envelope) begin() []byte {
	f.events++
	b := f.box.buffer(f.buffers)
	if f.at > 0 {
		return append(*b, ',')
	}
	*b = append(*b, "\x00\x00\x00\x00"...)
	f.at = len(*b)
	*b = append(*b, `{"op":"events","sub":`...)
	*b = append(*b, f.sub...)
	return append(*b, `,"events":[`...)
}

// record implements sink.
func (f *envelope) record(e *entry, cursor string) {
	f.records++
	if !e.embeddable() {
		f.gaps.Inc()
		f.notice(cursor, notice{
			Type: streamGap, Tenant: string(e.view.Tenant), Job: string(e.view.Job), Data: gapData{gapUnreadable, cursor},
		}, f.now())
		return
	}
	b := append(f.begin(), e.raw...)
	*f.box.own, f.cursor = b, cursor
}

// notice implements sink.
func (f *envelope) notice(cursor string, n notice, now time.Time) {
	b := append(f.begin(), n.encode(now)...)
	*f.box.own, f.cursor = b, cursor
}

// full implements sink. What is not of the log costs no credit.
func (f *envelope) full() bool {
	return len(f.box.bytes()) >= flushBytes || f.credit >= 0 && int64(f.records) >= f.credit
}

// finish ends the frame that is open.
func (f *envelope) finish() {
	if f.at == 0 {
		return
	}
	b := append(*f.box.own, `],"cursor":"`...)
	b = append(b, f.cursor...) // it needs no escape
	b = append(b, `"}`...)
	*f.box.own = closeFrame(b, f.at)
	f.at = 0
	f.frames++
}

// reset implements sink.
func (f *envelope) reset() {
	f.box.reset(f.buffers)
	f.at, f.frames, f.events, f.records, f.cursor = 0, 0, 0, 0, ""
}

// format implements sharer.
func (*envelope) format() int { return formatSocket }

// mark implements sharer.
func (f *envelope) mark() int {
	f.finish()
	return len(f.box.bytes())
}

// share implements sharer.
func (f *envelope) share(from int, s *shared) {
	f.finish()
	s.name, s.cursor, s.bytes = string(f.sub), f.cursor, bytes.Clone(f.box.bytes()[from:])
}

// lend implements sharer.
func (f *envelope) lend(s *shared) bool {
	if s.name != string(f.sub) || f.credit >= 0 && int64(f.records+s.events) > f.credit {
		return false
	}
	f.finish()
	f.box.lend(f.buffers, s.bytes)
	f.frames++
	f.events += s.events
	f.records += s.events
	f.cursor = s.cursor
	return true
}

// The first byte of a server's frames: whole ones, of text, and of control.
const (
	frameText  = 0x81
	frameClose = 0x88
	framePing  = 0x89
	framePong  = 0x8a
)

// closeFrame writes the head of a text frame whose payload begins at a place in b,
// behind headRoom bytes, and ends with b (RFC 6455, section 5.2): the server's
// frames are not masked.
func closeFrame(b []byte, at int) []byte {
	const short, two, eight = 125, 126, 127
	size, start := len(b)-at, at-headRoom
	switch {
	case size <= short:
		b[start], b[start+1] = frameText, byte(size) //nolint:gosec // 125 at the most
		return append(b[:start+2], b[at:]...)
	case size <= math.MaxUint16:
		b[start], b[start+1] = frameText, two
		binary.BigEndian.PutUint16(b[start+2:], uint16(size))
		return b
	default:
		const more = 8 - 2
		b = append(b, make([]byte, more)...)
		copy(b[at+more:], b[at:at+size])
		b[start], b[start+1] = frameText, eight
		binary.BigEndian.PutUint64(b[start+2:], uint64(size))
		return b
	}
}

// appendFrame appends a text frame.
func appendFrame(b, payload []byte) []byte {
	b = append(b, make([]byte, headRoom)...)
	at := len(b)
	return closeFrame(append(b, payload...), at)
}

// appendControl appends a control frame, of 125 bytes of payload at the most.
func appendControl(b []byte, kind byte, payload []byte) []byte {
	return append(append(b, kind, byte(len(payload))), payload...) //nolint:gosec // 125 at the most
}
