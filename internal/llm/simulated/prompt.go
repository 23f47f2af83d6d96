package simulated

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/integer"
)

// prompt is what the model takes from a request's body.
type prompt struct {
	hash    hash // of every string in the prompt, whatever the JSON's layout
	words   int  // of the text among them
	limit   int  // the body's own limit on the answer, in tokens
	limited bool
	choices int            // n, 1 where it is absent
	tools   jsontext.Value // as they came
	choice  jsontext.Value // tool_choice, as it came
	result  bool           // whether the last message is a tool's
	scratch []byte
}

// readPrompt reads the body of any endpoint: what is absent or of another
// shape than expected is no prompt, and no error. An error is a *fault.Error:
// a body that is no JSON object, or a limit that is no positive number.
func readPrompt(d *jsontext.Decoder) (prompt, error) {
	p := prompt{hash: hashStart, choices: 1}
	if d.PeekKind() != jsontext.KindBeginObject {
		return p, fault.New(fault.InvalidJSON, "the body is not a JSON object")
	}
	_, err := d.ReadToken()
	for err == nil && d.PeekKind() == jsontext.KindString {
		var name []byte
		if name, err = d.ReadValue(); err == nil {
			err = p.field(d, name)
		}
	}
	if err == nil {
		_, err = d.ReadToken() // the closing brace
	}
	if refused, ok := err.(*fault.Error); ok { //nolint:errorlint // field gives it unwrapped, and As costs an allocation
		return p, refused
	}
	if err != nil {
		return p, fault.Wrap(err, fault.InvalidJSON, "the body is not JSON from byte %d on", d.InputOffset())
	}
	return p, nil
}

// field reads one member of the body; its name has been read, quotes and all.
func (p *prompt) field(d *jsontext.Decoder, name []byte) error {
	switch string(name) {
	case `"messages"`:
		p.result = false
		return p.text(d)
	case `"prompt"`, `"input"`, `"instructions"`, `"system"`:
		return p.text(d)
	case `"max_tokens"`:
		return p.cap(d, "max_tokens")
	case `"max_completion_tokens"`:
		return p.cap(d, "max_completion_tokens")
	case `"max_output_tokens"`:
		return p.cap(d, "max_output_tokens")
	case `"n"`:
		return p.many(d)
	case `"tools"`:
		raw, err := d.ReadValue()
		p.tools = raw.Clone()
		return err
	case `"tool_choice"`:
		raw, err := d.ReadValue()
		p.choice = raw.Clone()
		return err
	default:
		return d.SkipValue()
	}
}

// many reads how many choices are asked for; null is one.
func (p *prompt) many(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil || raw.Kind() == jsontext.KindNull {
		return err
	}
	n, ok := integer.Parse(raw)
	if !ok || n < 1 || n > maxChoices {
		return fault.Param("n", "n is %.40s: it must be a whole number from 1 to %d", raw, maxChoices)
	}
	p.choices = int(n)
	return nil
}

// cap reads a limit; of several the smallest holds, null is none.
func (p *prompt) cap(d *jsontext.Decoder, name string) error {
	raw, err := d.ReadValue()
	if err != nil || raw.Kind() == jsontext.KindNull {
		return err
	}
	n, ok := integer.Parse(raw)
	if !ok || n < 1 {
		return fault.Param(name, "%s is %.40s: it must be a whole number, 1 or more", name, raw)
	}
	if limit := int(n); !p.limited || limit < p.limit {
		p.limit, p.limited = limit, true
	}
	return nil
}

// text reads one value of whatever shape and takes the strings in it.
func (p *prompt) text(d *jsontext.Decoder) error {
	outside := d.StackDepth()
	said := true      // whether a string here is text, and not a role or a type
	role := false     // whether it is a message's role
	name := hashStart // of the member that it is of
	for {
		switch d.PeekKind() {
		case jsontext.KindString:
			raw, err := d.ReadValue()
			if err != nil {
				return err
			}
			container, n := d.StackIndex(d.StackDepth())
			if container == jsontext.KindBeginObject && n%2 == 1 {
				said = string(raw) == `"content"` || string(raw) == `"text"`
				role = string(raw) == `"role"` && d.StackDepth() == outside+2
				name = hashStart.text(string(raw))
			} else {
				if role {
					p.result = string(raw) == `"tool"` // the last message's stands
				}
				p.take(raw, said, place(d, name))
			}
		case jsontext.KindBeginObject, jsontext.KindEndObject, jsontext.KindBeginArray, jsontext.KindEndArray:
			if _, err := d.ReadToken(); err != nil {
				return err
			}
		default:
			if err := d.SkipValue(); err != nil {
				return err
			}
		}
		if d.StackDepth() == outside {
			return nil
		}
	}
}

// place is where in the arrays a string stands that was read last, and of which
// member it is. The order of an object's members is layout: SDKs differ in it.
func place(d *jsontext.Decoder, name hash) hash {
	for depth := range d.StackDepth() + 1 {
		if kind, n := d.StackIndex(depth); kind == jsontext.KindBeginArray {
			name = name.number(uint64(n)) //nolint:gosec // a length is not negative
		}
	}
	return name
}

// take adds one JSON string to the hash, which begins at its place, and, if it
// is text, its words to the count.
func (p *prompt) take(raw jsontext.Value, text bool, at hash) {
	s := []byte(raw)
	if bytes.IndexByte(s, '\\') < 0 {
		s = s[1 : len(s)-1]
	} else {
		// The decoder has passed the string, so that it unquotes.
		p.scratch, _ = jsontext.AppendUnquote(p.scratch[:0], raw)
		s = p.scratch
	}
	inWord := false
	for _, c := range s {
		at = at.byte(c)
		space := c == ' ' || c == '\n' || c == '\t' || c == '\r'
		if text && !space && !inWord {
			p.words++
		}
		inWord = !space
	}
	p.hash += at // a sum: in any order the same
}

// hash is FNV-1a of 64 bits: the same on every machine and in every build,
// which hash/maphash is not, and without an allocation.
type hash uint64

const hashStart hash = 14695981039346656037

func (h hash) byte(c byte) hash { return (h ^ hash(c)) * 1099511628211 }

func (h hash) text(s string) hash {
	for i := range len(s) {
		h = h.byte(s[i])
	}
	return h.byte(0xff)
}

func (h hash) number(n uint64) hash {
	for range 8 {
		h = h.byte(byte(n))
		n >>= 8
	}
	return h
}
