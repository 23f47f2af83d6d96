// Package integer reads the whole numbers of JSON however they are written: to
// JSON, and so to JSON Schema, 100, 100.0 and 1e2 are one number, and clients
// whose language has one kind of number send any of them. A Go integer takes the
// first alone.
package integer

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Parse gives the whole number that a JSON value is. It is none where the value
// is no number, has a fraction, or does not fit. It costs as much as the text is
// long, whatever the exponent.
func Parse(raw jsontext.Value) (n int64, ok bool) {
	if raw.Kind() != jsontext.KindNumber || !raw.IsValid() {
		return 0, false
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true // as nearly all are written
	}
	text, negative := bytes.CutPrefix(raw, []byte{'-'})
	mantissa, exponent := string(text), 0
	if e := strings.IndexAny(mantissa, "eE"); e >= 0 {
		var err error
		if exponent, err = strconv.Atoi(mantissa[e+1:]); err != nil {
			exponent = 0 // right for 0, which has no digits; for all others it is beyond everything
			if strings.Trim(mantissa[:e], "0.") != "" {
				return 0, false
			}
		}
		mantissa = mantissa[:e]
	}
	before, after, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(before+after, "0")
	places := exponent - len(after) // how many zeros follow the digits
	short := strings.TrimRight(digits, "0")
	places += len(digits) - len(short)
	if short == "" {
		return 0, true
	}
	const most = 19 // digits of an int64
	if places < 0 || places > most || len(short)+places > most {
		return 0, false
	}
	if negative {
		short = "-" + short
	}
	n, err := strconv.ParseInt(short+strings.Repeat("0", places), 10, 64)
	return n, err == nil
}

// Int is an integer of a JSON body that may be written in any form. A number
// that is not whole, or beyond 64 bits, is a json.SemanticError that holds it.
type Int int64

// UnmarshalJSONFrom implements json.UnmarshalerFrom. What is no number is told as
// for any integer.
func (n *Int) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != jsontext.KindNumber {
		return errors.ErrUnsupported
	}
	raw, err := d.ReadValue()
	if err != nil {
		return err //nolint:wrapcheck // the decoder's own
	}
	v, ok := Parse(raw)
	if !ok {
		return &json.SemanticError{JSONKind: raw.Kind(), JSONValue: raw.Clone()}
	}
	*n = Int(v)
	return nil
}
