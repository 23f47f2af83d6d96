package event

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// TimeLayout is how times are written: RFC 3339, UTC, milliseconds.
const TimeLayout = "2006-01-02T15:04:05.000Z"

// Head is what every event begins with. Its fields stand here in the order in
// which they are written.
type Head struct {
	Type         Type
	V            int
	Time         time.Time
	Tenant       string
	Job          string
	Conversation string // "" is written as null
	Batch        string // "" is written as null
	Attempt      int    // of outputs and facts, from 1
	Seq          int64  // of outputs, from 0 without a gap within a job
	Lane         Lane   // of claims, outputs, facts and pulses
	Epoch        int64  // of claims, outputs and pulses: the writer's
}

// form says which fields a type's head has.
type form uint8

const (
	formRequest form = iota // tenant to batch
	formLane                // lane, epoch
	formOutput              // all
	formFact                // tenant to attempt, lane
)

func (t Type) form() form {
	switch {
	case t == LaneClaimed, t == LanePulse:
		return formLane
	case t.Output():
		return formOutput
	case t == JobRequested, t == JobCancelRequested:
		return formRequest
	default:
		return formFact
	}
}

// Append appends the event's JSON to dst: the head in its fixed order, then
// data, which must be one JSON object. The type must be one of this package's.
// What is not UTF-8 in a string is written as U+FFFD, byte by byte.
func Append(dst []byte, h *Head, data []byte) []byte {
	f := h.Type.form()
	dst = append(dst, `{"type":"`...)
	dst = append(dst, h.Type...)
	dst = append(dst, `","v":`...)
	dst = strconv.AppendInt(dst, int64(h.V), 10)
	dst = append(dst, `,"time":"`...)
	dst = appendTime(dst, h.Time)
	dst = append(dst, '"')
	if f != formLane {
		dst = appendString(dst, `,"tenant":`, h.Tenant)
		dst = appendString(dst, `,"job":`, h.Job)
		dst = appendNullable(dst, `,"conversation":`, h.Conversation)
		dst = appendNullable(dst, `,"batch":`, h.Batch)
	}
	if f == formOutput || f == formFact {
		dst = append(dst, `,"attempt":`...)
		dst = strconv.AppendInt(dst, int64(h.Attempt), 10)
	}
	if f == formOutput {
		dst = append(dst, `,"seq":`...)
		dst = strconv.AppendInt(dst, h.Seq, 10)
	}
	if f != formRequest {
		dst = append(dst, `,"lane":"`...)
		dst = append(dst, h.Lane.String()...)
		dst = append(dst, '"')
	}
	if f == formOutput || f == formLane {
		dst = append(dst, `,"epoch":`...)
		dst = strconv.AppendInt(dst, h.Epoch, 10)
	}
	dst = append(dst, `,"data":`...)
	dst = append(dst, data...)
	return append(dst, '}')
}

// appendTime writes TimeLayout a good deal faster than time.AppendFormat.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 1000 || year > 9999 {
		return t.AppendFormat(dst, TimeLayout)
	}
	hour, minute, sec := t.Clock()
	ms := t.Nanosecond() / 1e6
	const digits = "0123456789"
	two := func(n int, after byte) { dst = append(dst, digits[n/10], digits[n%10], after) }
	dst = strconv.AppendInt(dst, int64(year), 10)
	dst = append(dst, '-')
	two(int(month), '-')
	two(day, 'T')
	two(hour, ':')
	two(minute, ':')
	two(sec, '.')
	return append(dst, digits[ms/100], digits[ms/10%10], digits[ms%10], 'Z')
}

func appendString(dst []byte, name, s string) []byte {
	dst = append(dst, name...)
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			dst, _ = jsontext.AppendQuote(dst, s) // the error tells of U+FFFD in place of invalid UTF-8
			return dst
		}
	}
	dst = append(dst, '"') // the usual case: ids, and most tokens
	dst = append(dst, s...)
	return append(dst, '"')
}

func appendNullable(dst []byte, name, s string) []byte {
	if s == "" {
		dst = append(dst, name...)
		return append(dst, "null"...)
	}
	return appendString(dst, name, s)
}
