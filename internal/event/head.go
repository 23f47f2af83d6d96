package event

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
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
// data, which must be one JSON value.
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
	two := func(n int, after byte) { dst = append(dst, byte('0'+n/10), byte('0'+n%10), after) }
	dst = strconv.AppendInt(dst, int64(year), 10)
	dst = append(dst, '-')
	two(int(month), '-')
	two(day, 'T')
	two(hour, ':')
	two(minute, ':')
	two(sec, '.')
	return append(dst, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

func appendString(dst []byte, name, s string) []byte {
	dst = append(dst, name...)
	quoted, err := jsontext.AppendQuote(dst, s)
	if err != nil { // invalid UTF-8: AppendQuote has written it with U+FFFD in its place
		return quoted
	}
	return quoted
}

func appendNullable(dst []byte, name, s string) []byte {
	if s == "" {
		dst = append(dst, name...)
		return append(dst, "null"...)
	}
	return appendString(dst, name, s)
}

// View is a head as ScanHead finds it: the byte slices point into the value.
type View struct {
	Type         Type
	V            int
	Time         []byte
	Tenant       []byte
	Job          []byte
	Conversation []byte // nil if null or absent
	Batch        []byte // nil if null or absent
	Attempt      int
	Seq          int64
	Lane         Lane // NoLane if absent or unknown
	Epoch        int64
	Data         []byte
}

// Head copies the view into a Head that outlives the value. A time that cannot
// be read is the zero time.
func (v *View) Head() Head {
	t, err := time.Parse(time.RFC3339Nano, string(v.Time))
	if err != nil {
		t = time.Time{}
	}
	return Head{
		Type: v.Type, V: v.V, Time: t, Tenant: string(v.Tenant), Job: string(v.Job),
		Conversation: string(v.Conversation), Batch: string(v.Batch),
		Attempt: v.Attempt, Seq: v.Seq, Lane: v.Lane, Epoch: v.Epoch,
	}
}

// ScanHead reads an event's head. Where it is written as Append writes it, no
// byte is decoded and nothing allocated, and data is taken as it stands,
// unread; any other order or spacing is decoded the slow way. The error says
// why the value is no event.
func ScanHead(value []byte) (View, error) {
	var v View
	if v.scan(value) {
		return v, nil
	}
	return decodeView(value)
}

// The head's fields, in their order.
const (
	fieldNone = iota
	fieldType
	fieldV
	fieldTime
	fieldTenant
	fieldJob
	fieldConversation
	fieldBatch
	fieldAttempt
	fieldSeq
	fieldLane
	fieldEpoch
	fieldData
)

func fieldOf(name []byte) int {
	switch string(name) {
	case "type":
		return fieldType
	case "v":
		return fieldV
	case "time":
		return fieldTime
	case "tenant":
		return fieldTenant
	case "job":
		return fieldJob
	case "conversation":
		return fieldConversation
	case "batch":
		return fieldBatch
	case "attempt":
		return fieldAttempt
	case "seq":
		return fieldSeq
	case "lane":
		return fieldLane
	case "epoch":
		return fieldEpoch
	case "data":
		return fieldData
	default:
		return fieldNone
	}
}

// scan walks the fixed order and gives up at the first byte that is not as
// Append writes it.
func (v *View) scan(b []byte) bool {
	n := len(b)
	if n < 2 || b[0] != '{' || b[n-1] != '}' {
		return false
	}
	for pos, last := 1, fieldNone; ; {
		if pos >= n || b[pos] != '"' {
			return false
		}
		end := bytes.IndexByte(b[pos+1:], '"')
		if end < 0 {
			return false
		}
		field := fieldOf(b[pos+1 : pos+1+end])
		pos += end + 2
		if field <= last || pos+1 >= n || b[pos] != ':' {
			return false
		}
		last, pos = field, pos+1
		if field == fieldData {
			v.Data = b[pos : n-1]
			return v.Type != ""
		}
		next, ok := v.value(field, b, pos)
		if !ok || next >= n || b[next] != ',' {
			return false
		}
		pos = next + 1
	}
}

// value reads one head field's value at pos and returns where it ends.
func (v *View) value(field int, b []byte, pos int) (next int, ok bool) {
	switch field {
	case fieldV, fieldAttempt, fieldSeq, fieldEpoch:
		n, next, ok := scanInt(b, pos)
		v.setInt(field, n)
		return next, ok
	default:
		s, next, ok := scanString(b, pos)
		if !ok {
			return 0, false
		}
		return next, v.setString(field, s)
	}
}

func (v *View) setInt(field int, n int64) {
	switch field {
	case fieldV:
		v.V = int(n)
	case fieldAttempt:
		v.Attempt = int(n)
	case fieldSeq:
		v.Seq = n
	case fieldEpoch:
		v.Epoch = n
	}
}

// setString takes nil as null, which only conversation and batch may be.
func (v *View) setString(field int, s []byte) bool {
	switch field {
	case fieldConversation:
		v.Conversation = s
		return true
	case fieldBatch:
		v.Batch = s
		return true
	}
	if s == nil {
		return false
	}
	switch field {
	case fieldType:
		v.Type = typeOf(s)
	case fieldTime:
		v.Time = s
	case fieldTenant:
		v.Tenant = s
	case fieldJob:
		v.Job = s
	case fieldLane:
		v.Lane = laneOf(s)
	}
	return true
}

// scanString reads a string without escapes, or null, which is nil.
func scanString(b []byte, pos int) (s []byte, next int, ok bool) {
	if b[pos] == 'n' && bytes.HasPrefix(b[pos:], []byte("null")) {
		return nil, pos + 4, true
	}
	if b[pos] != '"' {
		return nil, 0, false
	}
	for i := pos + 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return b[pos+1 : i], i + 1, true
		case c == '\\' || c < 0x20 || c >= 0x7f:
			return nil, 0, false
		}
	}
	return nil, 0, false
}

// scanInt reads a whole number of at most 18 digits as JSON writes it, so
// without a leading zero.
func scanInt(b []byte, pos int) (n int64, next int, ok bool) {
	start := pos
	for ; pos < len(b) && b[pos] >= '0' && b[pos] <= '9'; pos++ {
		n = n*10 + int64(b[pos]-'0')
	}
	digits := pos - start
	if digits == 0 || digits > 18 || (digits > 1 && b[start] == '0') {
		return 0, 0, false
	}
	return n, pos, true
}

// wire is an event as any JSON writer may put it.
type wire struct {
	Type         *string        `json:"type"`
	V            *int           `json:"v"`
	Time         *string        `json:"time"`
	Tenant       *string        `json:"tenant"`
	Job          *string        `json:"job"`
	Conversation *string        `json:"conversation"`
	Batch        *string        `json:"batch"`
	Attempt      int            `json:"attempt"`
	Seq          int64          `json:"seq"`
	Lane         string         `json:"lane"`
	Epoch        int64          `json:"epoch"`
	Data         jsontext.Value `json:"data"`
}

func decodeView(value []byte) (View, error) {
	var w wire
	if err := json.Unmarshal(value, &w); err != nil {
		return View{}, describe(err)
	}
	if w.Type == nil || *w.Type == "" {
		return View{}, errors.New("the value has no type")
	}
	v := View{
		Type: typeOf([]byte(*w.Type)), Time: bytesOf(w.Time), Tenant: bytesOf(w.Tenant), Job: bytesOf(w.Job),
		Conversation: bytesOf(w.Conversation), Batch: bytesOf(w.Batch),
		Attempt: w.Attempt, Seq: w.Seq, Lane: laneOf([]byte(w.Lane)), Epoch: w.Epoch, Data: w.Data,
	}
	if w.V != nil {
		v.V = *w.V
	}
	return v, nil
}

func bytesOf(s *string) []byte {
	if s == nil {
		return nil
	}
	return []byte(*s)
}

// describe turns a JSON library's error into a sentence for whoever wrote the value.
func describe(err error) error {
	if sem, ok := errors.AsType[*json.SemanticError](err); ok {
		return fmt.Errorf("field %s: a JSON %s does not fit there", sem.JSONPointer, kindName(sem.JSONKind))
	}
	if syn, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("not JSON at byte %d: %w", syn.ByteOffset, syn.Err)
	}
	return fmt.Errorf("not JSON: %w", err)
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '{':
		return "object"
	case '[':
		return "array"
	default:
		return "value"
	}
}
