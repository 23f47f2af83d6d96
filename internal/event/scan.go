package event

import (
	"bytes"
	"encoding/binary"
	"time"
)

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

// ScanHead reads an event's head. Where it is written as Append writes it,
// nothing is decoded or allocated, and of data only the end is looked for, so
// that garbage within it goes unseen; any other order or spacing is decoded the
// slow way, with the same result. The error says why the value is no event.
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

// nameOf is a field as it is written.
func nameOf(field int) string {
	switch field {
	case fieldType:
		return `"type":`
	case fieldV:
		return `"v":`
	case fieldTime:
		return `"time":`
	case fieldTenant:
		return `"tenant":`
	case fieldJob:
		return `"job":`
	case fieldConversation:
		return `"conversation":`
	case fieldBatch:
		return `"batch":`
	case fieldAttempt:
		return `"attempt":`
	case fieldSeq:
		return `"seq":`
	case fieldLane:
		return `"lane":`
	case fieldEpoch:
		return `"epoch":`
	default:
		return `"data":`
	}
}

// fieldAt tells which of the fields after last b begins with, and how long the
// name is with its colon; mostly it is the very next.
func fieldAt(b []byte, last int) (field, length int) {
	for field := last + 1; field <= fieldData; field++ {
		if name := nameOf(field); len(b) >= len(name) && string(b[:len(name)]) == name {
			return field, len(name)
		}
	}
	return fieldNone, 0
}

// scan walks the fixed order and gives up at the first byte that is not as
// Append writes it.
func (v *View) scan(b []byte) bool {
	n := len(b)
	if n < 2 || b[0] != '{' || b[n-1] != '}' {
		return false
	}
	for pos, last := 1, fieldNone; ; {
		field, length := fieldAt(b[pos:], last)
		pos += length
		if field == fieldNone || pos >= n {
			return false
		}
		last = field
		if field == fieldData {
			v.Data = b[pos : n-1]
			return v.Type != "" && objectEnd(b, pos) == n-1
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
	i := pos + 1
	for i+8 <= len(b) && plain(binary.LittleEndian.Uint64(b[i:])) {
		i += 8
	}
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return b[pos+1 : i], i + 1, true
		case c == '\\' || c < 0x20 || c >= 0x7f:
			return nil, 0, false
		}
	}
	return nil, 0, false
}

// plain tells whether eight bytes are all such as a string holds as they are:
// ASCII, no control character, no quote, no backslash. It may say no for a byte
// that would do, never yes for one that would not.
func plain(w uint64) bool {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	quote, escape := w^(ones*'"'), w^(ones*'\\')
	special := w | (w - ones*0x20) | (quote - ones) | (escape - ones) | (w + ones) // the last for 0x7f
	return special&high == 0
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

// objectEnd returns where the JSON object that begins at pos ends, and -1 if
// it does not. A later field after data, which a newer writer may add, must
// not be taken for a part of data.
func objectEnd(b []byte, pos int) int {
	if b[pos] != '{' {
		return -1
	}
	for i, depth := pos, 0; i < len(b); i++ {
		switch b[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"':
			if i = stringEnd(b, i); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// stringEnd returns the place of the quote that closes the string at pos.
func stringEnd(b []byte, pos int) int {
	for i := pos + 1; ; i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		escapes := 0
		for b[i-1-escapes] == '\\' { // stops at the opening quote
			escapes++
		}
		if escapes%2 == 0 {
			return i
		}
	}
}
