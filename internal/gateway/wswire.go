package gateway

import (
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

// envelope gathers a subscription's next events frame. It holds a buffer only
// from the first event to the write.
type envelope struct {
	buffers *sync.Pool // of *[]byte
	now     func() time.Time
	sub     []byte             // the subscription's name, as JSON
	gaps    prometheus.Counter // of records that are no JSON

	buf     *[]byte
	events  int
	records int    // of the events, those that stand in the log
	cursor  string // the place behind the last event
	credit  int64  // how many records it may have; -1: any number
}

// maxKept is the capacity of the largest buffer that is kept for the next frame:
// one large record must not be paid for twice.
const maxKept = 2 * flushBytes

func (f *envelope) begin() []byte {
	f.events++
	if f.buf == nil {
		f.buf, _ = f.buffers.Get().(*[]byte)
		if f.buf == nil {
			f.buf = new([]byte)
		}
		b := append((*f.buf)[:0], `{"op":"events","sub":`...)
		b = append(b, f.sub...)
		return append(b, `,"events":[`...)
	}
	return append(*f.buf, ',')
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
	*f.buf, f.cursor = b, cursor
}

// notice implements sink.
func (f *envelope) notice(cursor string, n notice, now time.Time) {
	b := append(f.begin(), n.encode(now)...)
	*f.buf, f.cursor = b, cursor
}

// full implements sink. What is not of the log costs no credit.
func (f *envelope) full() bool {
	return f.buf != nil && len(*f.buf) >= flushBytes || f.credit >= 0 && int64(f.records) >= f.credit
}

// finish ends the frame, which is the caller's until reset.
func (f *envelope) finish() []byte {
	b := append(*f.buf, `],"cursor":"`...)
	b = append(b, f.cursor...) // it needs no escape
	b = append(b, `"}`...)
	*f.buf = b
	return b
}

// reset implements sink.
func (f *envelope) reset() {
	if f.buf != nil && cap(*f.buf) <= maxKept {
		f.buffers.Put(f.buf)
	}
	f.buf, f.events, f.records, f.cursor = nil, 0, 0, ""
}
