package event

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/integer"
)

// wire is an event as any JSON writer may put it.
type wire struct {
	Type         *string        `json:"type"`
	V            whole          `json:"v"`
	Time         *string        `json:"time"`
	Tenant       *string        `json:"tenant"`
	Job          *string        `json:"job"`
	Conversation *string        `json:"conversation"`
	Batch        *string        `json:"batch"`
	Attempt      whole          `json:"attempt"`
	Seq          whole          `json:"seq"`
	Lane         string         `json:"lane"`
	Epoch        whole          `json:"epoch"`
	Data         jsontext.Value `json:"data"`
}

func decodeView(value []byte) (View, error) {
	var w wire
	if err := json.Unmarshal(value, &w); err != nil {
		return View{}, describe(err)
	}
	if w.Type == nil || *w.Type == "" {
		return View{}, invalid("type", "it is missing: an event must say what it is")
	}
	return View{
		Type: typeOf([]byte(*w.Type)), V: int(w.V), Time: bytesOf(w.Time), Tenant: bytesOf(w.Tenant), Job: bytesOf(w.Job),
		Conversation: bytesOf(w.Conversation), Batch: bytesOf(w.Batch), Attempt: int(w.Attempt),
		Seq: int64(w.Seq), Lane: laneOf([]byte(w.Lane)), Epoch: int64(w.Epoch), Data: w.Data,
	}, nil
}

func bytesOf(s *string) []byte {
	if s == nil {
		return nil
	}
	return []byte(*s)
}

// whole is a whole number in whatever form.
type whole int64

// UnmarshalJSONFrom implements json.UnmarshalerFrom. Null is 0.
func (w *whole) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	switch value.Kind() {
	case 'n':
		*w = 0
		return nil
	case '0':
		n, ok := integer.Parse(value)
		if !ok {
			return invalid("", "%.40s: it must be a whole number", value)
		}
		*w = whole(n)
		return nil
	default:
		return invalid("", "a JSON %s: it must be a whole number", kindName(value.Kind()))
	}
}

// moment is a time as producers may write it; zero if absent or null.
type moment struct{ time.Time }

// The years that a time may be of: outside of them it is a slip, such as the
// zero time of some language, and some formats could not hold it.
const (
	minYear = 1970
	maxYear = 2999
)

const timeRule = `it must be an RFC 3339 time between 1970 and 2999, such as "2026-11-22T15:04:05Z"`

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (m *moment) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	switch value.Kind() {
	case 'n':
		m.Time = time.Time{}
		return nil
	case '"':
		// The library keeps to RFC 3339, where time.Parse takes "+24:00" and commas too.
		if err := json.Unmarshal(value, &m.Time); err != nil || !validYear(m.Time) {
			return invalid("", "%.60s is no time: %s", value, timeRule)
		}
		return nil
	default:
		return invalid("", "a JSON %s: %s", kindName(value.Kind()), timeRule)
	}
}

func validYear(t time.Time) bool { return t.Year() >= minYear && t.Year() <= maxYear }

// describe turns a JSON library's error into one for whoever wrote the value.
func describe(err error) *Invalid {
	if sem, ok := errors.AsType[*json.SemanticError](err); ok {
		field := fieldPath(sem.JSONPointer)
		if inner, ok := errors.AsType[*Invalid](sem.Err); ok {
			return &Invalid{Field: field, Reason: inner.Reason}
		}
		return &Invalid{Field: field, Reason: fmt.Sprintf("a JSON %s: it must be %s", kindName(sem.JSONKind), wanted(sem.GoType))}
	}
	if syn, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(syn, jsontext.ErrDuplicateName) {
			return &Invalid{Field: fieldPath(syn.JSONPointer), Reason: "the name stands twice in its object: it must stand once"}
		}
		return &Invalid{Reason: fmt.Sprintf("it is not JSON at byte %d: %v", syn.ByteOffset, syn.Err)}
	}
	return &Invalid{Reason: "it is not JSON: " + err.Error()}
}

// fieldPath writes a pointer such as /data/body as data.body.
func fieldPath(p jsontext.Pointer) string {
	var b strings.Builder
	for name := range p.Tokens() {
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(name)
	}
	return b.String()
}

// wanted names the JSON that a Go type is read from.
func wanted(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return "of another kind"
	case t.Kind() == reflect.String:
		return "a string"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "an object"
	case t.Kind() == reflect.Slice:
		return "an array"
	default:
		return "a number"
	}
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
