// Package schemas holds Penstock's public contract: a JSON Schema (2020-12) for
// every type and version of event, for every HTTP body of our own and for the
// frames of the WebSocket, and the
// documents asyncapi.yaml and openapi.yaml, which refer to them.
//
// The files are embedded, so that what the program validates with is what it
// publishes. The package imports none of its siblings and keeps no state.
package schemas

import (
	"embed"
	number "encoding/json" // for its Number alone, which the validator knows
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// BaseURL is what the $id of every schema begins with; the rest is its name.
const BaseURL = "https://penstock.io/schemas/"

//go:embed asyncapi.yaml openapi.yaml events/*.json http/*.json ws/*.json
var files embed.FS

// FS returns the files by their names, such as "events/job.requested.v1.json".
func FS() fs.FS { return files }

// Event returns the name of the schema of an event's type and version.
func Event(eventType string, version int) string {
	return fmt.Sprintf("events/%s.v%d.json", eventType, version)
}

// Names returns the names of all schemas, in the order of the alphabet.
func Names() []string {
	var names []string
	for _, dir := range []string{"events", "http", "ws"} {
		entries, err := files.ReadDir(dir)
		if err != nil {
			panic("schemas: the embedded files lack " + dir) // they are fixed when the program is built
		}
		for _, e := range entries {
			names = append(names, dir+"/"+e.Name())
		}
	}
	return names
}

// Compile makes the validator of one schema, such as "http/create_job.json".
// Formats are asserted, not only noted. What it validates should come from
// Parse. It takes milliseconds: compile once, and keep the result, which any
// number of goroutines may use.
func Compile(name string) (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	for _, n := range Names() {
		doc, err := load(n)
		if err != nil {
			return nil, err
		}
		if err := c.AddResource(BaseURL+n, doc); err != nil {
			return nil, fmt.Errorf("schema %s: %w", n, err)
		}
	}
	s, err := c.Compile(BaseURL + name)
	if err != nil {
		return nil, fmt.Errorf("schema %q: it must be one of %s: %w", name, strings.Join(Names(), ", "), err)
	}
	return s, nil
}

func load(name string) (any, error) {
	raw, err := files.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("schema %q: %w", name, err)
	}
	doc, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("schema %q: %w", name, err)
	}
	return doc, nil
}

// Parse reads one JSON value for validation, as strictly as the decoders do:
// names stand once in an object, strings are UTF-8, nothing follows the value.
// Numbers keep their digits.
func Parse(raw []byte) (any, error) {
	keepDigits := json.UnmarshalFromFunc(func(dec *jsontext.Decoder, v *any) error {
		if dec.PeekKind() != '0' {
			return errors.ErrUnsupported // leaves it to the default
		}
		n, err := dec.ReadValue()
		if err != nil {
			return err
		}
		*v = number.Number(n)
		return nil
	})
	var v any
	if err := json.Unmarshal(raw, &v, json.WithUnmarshalers(keepDigits)); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	return v, nil
}
