package llm

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
)

// The endpoints that providers may serve: the form of a request's body, and of
// its answer.
const (
	ChatCompletions = "/v1/chat/completions"
	Embeddings      = "/v1/embeddings"
)

// MaxInputs bounds the inputs of one embeddings request, as OpenAI's API does.
const MaxInputs = 2048

// Inputs gives the inputs of a body of Embeddings, each as it stands: a string,
// or an array of tokens. The error is an InvalidJSON, or an InvalidRequest that
// names what is wrong with input.
func Inputs(body []byte) ([]jsontext.Value, error) {
	var b struct {
		Input jsontext.Value `json:"input"`
	}
	if err := json.Unmarshal(body, &b, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, fault.Wrap(err, fault.InvalidJSON, "the body must be one JSON object")
	}
	var inputs []jsontext.Value
	switch b.Input.Kind() {
	case jsontext.KindString:
		return []jsontext.Value{b.Input}, nil
	case jsontext.KindBeginArray:
		if err := json.Unmarshal(b.Input, &inputs, jsontext.AllowDuplicateNames(true)); err != nil {
			return nil, fault.Wrap(err, fault.InvalidJSON, "input is not JSON")
		}
	default:
		return nil, fault.Param("input", "input must be a text, tokens, or an array of either")
	}
	switch {
	case len(inputs) == 0:
		return nil, fault.Param("input", "input is empty: it must hold 1 to %d texts", MaxInputs)
	case inputs[0].Kind() == jsontext.KindNumber: // one input, as tokens
		return []jsontext.Value{b.Input}, nil
	case len(inputs) > MaxInputs:
		return nil, fault.Param("input", "input has %d texts: %d at most", len(inputs), MaxInputs)
	}
	for i, in := range inputs {
		if k := in.Kind(); k != jsontext.KindString && k != jsontext.KindBeginArray {
			return nil, fault.Param("input", "input[%d] is neither a text nor an array of tokens", i)
		}
	}
	return inputs, nil
}
