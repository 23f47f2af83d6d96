package ingest

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/schemas"
)

// createWire is the body of POST /v1/jobs, taken apart and no more.
type createWire struct {
	Lane         jsontext.Value `json:"lane"`
	Conversation jsontext.Value `json:"conversation"`
	Endpoint     jsontext.Value `json:"endpoint"`
	Body         jsontext.Value `json:"body"`
	Deadline     jsontext.Value `json:"deadline"`
	Stream       jsontext.Value `json:"stream"`
	Metadata     jsontext.Value `json:"metadata"`
}

// Decode reads what POST /v1/jobs takes, for the other ways in. The error is a
// *fault.Error, which counts as a refusal.
func (s *Service) Decode(body []byte) (job.Request, error) {
	in, err := s.decode(body)
	if err != nil {
		s.metrics.refuse(err)
	}
	return in, err
}

// decode reads the body of POST /v1/jobs and holds it to its schema. The model
// request in it may be megabytes, of which the schema looks at the model alone:
// it is checked to be JSON once, and only the model is taken out for the schema.
// A test holds this to what the schema says of the whole.
func (s *Service) decode(body []byte) (job.Request, error) {
	var in job.Request
	var w createWire
	if err := api.DecodeJSON(body, &w); err != nil {
		return in, err //nolint:wrapcheck // a fault already
	}
	doc := make(map[string]any, 7)
	for _, f := range [...]struct {
		name string
		raw  jsontext.Value
	}{
		{"lane", w.Lane},
		{"conversation", w.Conversation},
		{"endpoint", w.Endpoint},
		{"deadline", w.Deadline},
		{"stream", w.Stream},
		{"metadata", w.Metadata},
	} {
		if f.raw == nil {
			continue
		}
		v, err := parse(f.raw)
		if err != nil {
			return in, api.JSONFault(body, err)
		}
		doc[f.name] = v
	}
	if w.Body != nil {
		v, err := gist(w.Body)
		if err != nil {
			return in, api.JSONFault(body, err)
		}
		doc["body"] = v
	}
	if err := s.schema.Validate(doc); err != nil {
		return in, fieldFault(schemas.Explain(err))
	}
	in.Body = w.Body
	return in, fill(&in, doc)
}

// parse is schemas.Parse, and quicker for a string.
func parse(raw jsontext.Value) (any, error) {
	if raw.Kind() == '"' {
		b, err := jsontext.AppendUnquote(nil, raw)
		return string(b), err //nolint:wrapcheck // for JSONFault
	}
	return schemas.Parse(raw) //nolint:wrapcheck // for JSONFault
}

// gist is of a model request what the schema looks at.
func gist(body jsontext.Value) (any, error) {
	if body.Kind() != '{' {
		return parse(body)
	}
	var b struct {
		Model jsontext.Value `json:"model"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, err //nolint:wrapcheck // for JSONFault
	}
	if b.Model == nil {
		return map[string]any{}, nil
	}
	model, err := parse(b.Model)
	return map[string]any{"model": model}, err
}

// fill takes the fields from a document that the schema has let through, in
// which null is as good as absent.
func fill(in *job.Request, doc map[string]any) error {
	if text, ok := doc["lane"].(string); ok {
		lane, err := event.ParseLane(text)
		if err != nil {
			return fault.Param("lane", "lane: %s", err.Error())
		}
		in.Lane = lane
	}
	in.Conversation, _ = doc["conversation"].(string)
	in.Endpoint, _ = doc["endpoint"].(string)
	if text, ok := doc["deadline"].(string); ok {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return fault.Param("deadline", `deadline: %.60q is no time: it must be in RFC 3339, such as "2026-11-22T15:04:05Z"`, text)
		}
		in.Deadline = at
	}
	stream, given := doc["stream"].(bool)
	in.Unwatched = given && !stream
	if pairs, ok := doc["metadata"].(map[string]any); ok {
		in.Metadata = make(map[string]string, len(pairs))
		for k, v := range pairs {
			in.Metadata[k], _ = v.(string) // the schema lets no other through
		}
	}
	return nil
}

// modelOf is the model that a valid model request names.
func modelOf(body jsontext.Value) string {
	var b struct {
		Model string `json:"model"`
	}
	_ = json.Unmarshal(body, &b) // it was validated
	return b.Model
}
