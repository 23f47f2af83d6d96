package openai

import (
	"bytes"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/integer"
)

const (
	// MaxChoices bounds n.
	MaxChoices = 128
	// maxInputs bounds the inputs of one embeddings request, as OpenAI's API does.
	maxInputs = 2048
	// maxLimit bounds max_tokens, dimensions and a token, which are a model's own
	// matter below it.
	maxLimit = 1<<31 - 1
)

// Request is what is read of any request that becomes a job.
type Request struct {
	Model string
	Lane  event.Lane
	Body  jsontext.Value // as it came, without the space around it
}

// ChatRequest is what is read of the body of POST /v1/chat/completions.
type ChatRequest struct {
	Request
	Stream       bool
	IncludeUsage bool // the stream ends with a chunk of usage
}

type chatWire struct {
	Model               string         `json:"model"`
	Messages            []chatMessage  `json:"messages"`
	N                   jsontext.Value `json:"n"`
	MaxTokens           jsontext.Value `json:"max_tokens"`
	MaxCompletionTokens jsontext.Value `json:"max_completion_tokens"`
	Stream              bool           `json:"stream"`
	StreamOptions       *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	ServiceTier string         `json:"service_tier"`
	Modalities  []string       `json:"modalities"`
	Functions   jsontext.Value `json:"functions"`
	Tools       []*chatTool    `json:"tools"`
}

type chatTool struct {
	Type string `json:"type"`
}

type chatMessage struct {
	Role string `json:"role"`
}

// ReadChat reads and checks the body of POST /v1/chat/completions. The error is
// a *fault.Error that names the field. What it asks for and no answer here could
// hold is refused; any other field is let pass.
func ReadChat(body []byte) (ChatRequest, error) {
	var w chatWire
	r := ChatRequest{Request: Request{Body: bytes.TrimSpace(body)}}
	if err := read(body, &w); err != nil {
		return r, err
	}
	if err := checkModel(w.Model); err != nil {
		return r, err
	}
	if len(w.Messages) == 0 {
		return r, fault.Param("messages", `messages: it is missing or empty: it must hold at least one message, such as {"role":"user","content":"hi"}`)
	}
	for i := range w.Messages {
		if w.Messages[i].Role == "" {
			field := "messages." + strconv.Itoa(i) + ".role"
			return r, fault.Param(field, "%s: it is missing: it must say whose message it is, such as user", field)
		}
	}
	for _, f := range [...]struct {
		name  string
		raw   jsontext.Value
		limit int64
	}{{"n", w.N, MaxChoices}, {"max_tokens", w.MaxTokens, maxLimit}, {"max_completion_tokens", w.MaxCompletionTokens, maxLimit}} {
		if err := checkWhole(f.name, f.raw, f.limit); err != nil {
			return r, err
		}
	}
	if w.StreamOptions != nil && !w.Stream {
		return r, fault.Param("stream_options", "stream_options: it is for streams alone: leave it out, or set stream")
	}
	if err := w.checkServed(); err != nil {
		return r, err
	}
	r.Model, r.Lane, r.Stream = w.Model, laneOf(w.ServiceTier), w.Stream
	r.IncludeUsage = w.StreamOptions != nil && w.StreamOptions.IncludeUsage
	return r, nil
}

// checkServed refuses what would be lost between the provider and the client: no
// event has room for it.
func (w *chatWire) checkServed() error {
	for _, m := range w.Modalities {
		if m != "text" {
			return fault.Param("modalities", "modalities: %.40q is not served: answers here are text", m)
		}
	}
	if w.Functions != nil && w.Functions.Kind() != 'n' {
		return fault.Param("functions", "functions: they are not served: use tools, which took their place")
	}
	for i, tool := range w.Tools {
		field := "tools." + strconv.Itoa(i)
		if tool == nil {
			return fault.Param(field, "%s: it is null: it must be a tool, an object", field)
		}
		if tool.Type == "custom" {
			field += ".type"
			return fault.Param(field, "%s: custom tools are not served: it must be function", field)
		}
	}
	return nil
}

// ReadEmbeddings reads and checks the body of POST /v1/embeddings. The error is
// a *fault.Error that names the field.
func ReadEmbeddings(body []byte) (Request, error) {
	var w struct {
		Model          string         `json:"model"`
		Input          jsontext.Value `json:"input"`
		EncodingFormat string         `json:"encoding_format"`
		Dimensions     jsontext.Value `json:"dimensions"`
		ServiceTier    string         `json:"service_tier"`
	}
	r := Request{Body: bytes.TrimSpace(body)}
	if err := read(body, &w); err != nil {
		return r, err
	}
	if err := checkModel(w.Model); err != nil {
		return r, err
	}
	if err := checkInput(w.Input); err != nil {
		return r, err
	}
	if f := w.EncodingFormat; f != "" && f != "float" && f != "base64" {
		return r, fault.Param("encoding_format", "encoding_format: %.40q is none: it must be float or base64", f)
	}
	if err := checkWhole("dimensions", w.Dimensions, maxLimit); err != nil {
		return r, err
	}
	r.Model, r.Lane = w.Model, laneOf(w.ServiceTier)
	return r, nil
}

// checkInput wants a text, an array of texts, tokens, or an array of those.
func checkInput(in jsontext.Value) error {
	switch in.Kind() {
	case '"':
		if string(in) == `""` {
			return fault.Param("input", "input: it is empty: it must be a text, or an array of texts or of tokens")
		}
		return nil
	case '[':
		return checkInputs(in)
	case 'n', 0:
		return fault.Param("input", "input: it is missing: it must be a text, or an array of texts or of tokens")
	default:
		return fault.Param("input", "input: a JSON %s: it must be a text, or an array of texts or of tokens", api.KindName(in.Kind()))
	}
}

// checkInputs wants what is in an array to be of one kind. It reads the array in
// place: it may hold millions of tokens.
func checkInputs(in jsontext.Value) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(in), jsontext.AllowDuplicateNames(true))
	_, _ = d.ReadToken() // the bracket; all of it was decoded before, so nothing here fails
	first := d.PeekKind()
	switch first {
	case ']':
		return fault.Param("input", "input: it is an empty array: it must hold at least one text or token")
	case '"', '0', '[':
	default:
		return fault.Param("input", "input.0: a JSON %s: it must be a text or a token, or an array of tokens", api.KindName(first))
	}
	count := 0
	for kind := first; kind != ']'; kind = d.PeekKind() {
		if kind != first {
			return fault.Param("input", "input.%d: a JSON %s: it must be what the first is, a JSON %s", count, api.KindName(kind), api.KindName(first))
		}
		if count++; count > maxInputs && first != '0' {
			return fault.Param("input", "input: it has more than %d inputs: send the rest in a second request", maxInputs)
		}
		raw, err := d.ReadValue()
		if n, whole := integer.Parse(raw); err != nil || first == '0' && (!whole || n < 0 || n > maxLimit) {
			return fault.Param("input", "input.%d: %.40s: a token must be a whole number from 0 to %d", count-1, raw, maxLimit)
		}
	}
	return nil
}

// read decodes a body, ignoring fields that are not known here.
func read(body []byte, into any) error {
	if raw := jsontext.Value(bytes.TrimSpace(body)); raw.Kind() == 'n' && raw.IsValid() {
		return fault.New(fault.InvalidRequest, "the body is a JSON null: it must be an object")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return api.JSONFault(body, err)
	}
	return nil
}

func checkModel(model string) error {
	if model == "" {
		return fault.Param("model", `model: it is missing: it must name a model, such as "sim"; GET /v1/models lists them`)
	}
	return nil
}

// checkWhole wants a whole number from 1 to limit. Null is as good as absent.
func checkWhole(name string, raw jsontext.Value, limit int64) error {
	if raw == nil || raw.Kind() == 'n' {
		return nil
	}
	if n, ok := integer.Parse(raw); !ok || n < 1 || n > limit {
		return fault.Param(name, "%s: %.40s: it must be a whole number from 1 to %d", name, raw, limit)
	}
	return nil
}

// laneOf is the lane that a service tier means. A tier that is not known here
// means what none does: a client waits for the answer.
func laneOf(tier string) event.Lane {
	if tier == "flex" {
		return event.Batch
	}
	return event.Interactive
}
