package openai

import (
	"bytes"
	"io"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/integer"
)

// streaming is body, asking model for a stream that tells its usage. Everything
// else stays as it came, to the byte, but for integers that are not in digits.
func streaming(body []byte, model string) ([]byte, error) {
	rest, taken, err := split(body, "model", "stream", "stream_options", "penstock")
	if err != nil {
		return nil, fault.Wrap(err, fault.InvalidJSON, "the body must be one JSON object")
	}
	options := []byte{}
	if given := taken["stream_options"]; given != nil && given.Kind() != jsontext.KindNull {
		if options, _, err = split(given, "include_usage"); err != nil {
			return nil, fault.Param("stream_options", "stream_options must be an object")
		}
	}
	out := slices.Grow([]byte{'{'}, len(rest)+len(options)+len(model)+80)
	out = append(out, rest...)
	out = append(out, `"model":`...)
	if out, err = jsontext.AppendQuote(out, model); err != nil {
		return nil, fault.Param("model", "model is not UTF-8")
	}
	out = append(out, `,"stream":true,"stream_options":{`...)
	out = append(out, options...)
	return append(out, `"include_usage":true}}`...), nil
}

// named is body, asking model for embeddings. Everything else stays as it came,
// to the byte, but for integers that are not in digits.
func named(body []byte, model string) ([]byte, error) {
	rest, _, err := split(body, "model", "penstock")
	if err != nil {
		return nil, fault.Wrap(err, fault.InvalidJSON, "the body must be one JSON object")
	}
	out := append(slices.Grow([]byte{'{'}, len(rest)+len(model)+16), rest...)
	out = append(out, `"model":`...)
	if out, err = jsontext.AppendQuote(out, model); err != nil {
		return nil, fault.Param("model", "model is not UTF-8")
	}
	return append(out, '}'), nil
}

// appendPlain appends a member's value. An integer of the API is written in
// digits: there are servers whose language does not read 100.0 or 1e2 as one.
func appendPlain(out []byte, name string, value jsontext.Value) []byte {
	switch name {
	case "n", "max_tokens", "max_completion_tokens", "top_logprobs", "seed", "dimensions":
		if n, ok := integer.Parse(value); ok {
			return strconv.AppendInt(out, n, 10)
		}
	}
	return append(out, value...)
}

// split takes the named members out of a JSON object. The rest are its other
// members, each with a comma behind it; they stand as they came but for integers.
func split(object []byte, names ...string) (rest []byte, taken map[string]jsontext.Value, err error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(object), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if d.PeekKind() != jsontext.KindBeginObject {
		return nil, nil, io.ErrUnexpectedEOF
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, nil, err
	}
	rest = make([]byte, 0, len(object))
	taken = make(map[string]jsontext.Value, len(names))
	for d.PeekKind() == jsontext.KindString {
		begin := len(rest)
		quoted, err := d.ReadValue()
		if err != nil {
			return nil, nil, err
		}
		rest = append(append(rest, quoted...), ':')
		unquoted, _ := jsontext.AppendUnquote(nil, quoted) // one with broken UTF-8 is none of names
		value, err := d.ReadValue()
		if err != nil {
			return nil, nil, err
		}
		if name := string(unquoted); slices.Contains(names, name) {
			rest, taken[name] = rest[:begin], value.Clone()
			continue
		}
		rest = append(appendPlain(rest, string(unquoted), value), ',')
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, nil, err
	}
	if _, err := d.ReadToken(); err != io.EOF { //nolint:errorlint // as it is documented
		return nil, nil, io.ErrUnexpectedEOF
	}
	return rest, taken, nil
}
