package llm

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
)

// ModelOf reads the field model of a request's JSON body. It stops at the
// field, so that it neither decodes nor judges what comes after it. The error
// is a *fault.Error: InvalidJSON, or InvalidRequest for a model that is
// missing, empty or not a string.
func ModelOf(body []byte) (string, error) {
	// A second "model" is ingest's to refuse: looking for it means reading on.
	d := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true))
	if kind := d.PeekKind(); kind != jsontext.KindBeginObject {
		if _, err := d.ReadToken(); err != nil {
			return "", notJSON(body, d, err)
		}
		return "", fault.New(fault.InvalidRequest, "the body is JSON but not an object: send one with a field \"model\"")
	}
	if _, err := d.ReadToken(); err != nil {
		return "", notJSON(body, d, err)
	}
	for d.PeekKind() == jsontext.KindString {
		name, err := d.ReadValue()
		if err != nil {
			return "", notJSON(body, d, err)
		}
		if !isModel(name) {
			if err := d.SkipValue(); err != nil {
				return "", notJSON(body, d, err)
			}
			continue
		}
		token, err := d.ReadToken()
		switch {
		case err != nil:
			return "", notJSON(body, d, err)
		case token.Kind() != jsontext.KindString:
			return "", fault.Param("model", "model must be a string that names a model")
		case token.String() == "":
			return "", errNoModel()
		}
		return token.String(), nil
	}
	if _, err := d.ReadToken(); err != nil { // the closing brace, if all is well
		return "", notJSON(body, d, err)
	}
	return "", errNoModel()
}

func isModel(raw jsontext.Value) bool {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw) == `"model"`
	}
	name, err := jsontext.AppendUnquote(nil, raw)
	return err == nil && string(name) == "model"
}

func errNoModel() *fault.Error {
	return fault.Param("model", "model is missing: it must name the model that is to answer")
}

// notJSON says where the body stops being JSON, counting lines and columns
// (in bytes) from 1.
func notJSON(body []byte, d *jsontext.Decoder, err error) *fault.Error {
	offset := d.InputOffset()
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		offset = syntactic.ByteOffset
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		offset = int64(len(body))
	}
	before := body[:min(max(offset, 0), int64(len(body)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fault.Wrap(err, fault.InvalidJSON, "the body is not JSON: line %d, column %d", line, column)
}
