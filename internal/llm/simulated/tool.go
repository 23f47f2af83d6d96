package simulated

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

// piece is how many characters of arguments are a token.
const piece = 4

// schema is what is read of a JSON Schema, to make a value that it may take.
type schema struct {
	Type       jsontext.Value    `json:"type"`
	Enum       []jsontext.Value  `json:"enum"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
}

// call makes the answer a call of the tool that the model's name asks for.
func (a *answer) call(raw jsontext.Value) error {
	var tools []struct {
		Function struct {
			Name       string `json:"name"`
			Parameters schema `json:"parameters"`
		} `json:"function"`
	}
	if len(raw) == 0 {
		return fault.Param("tools", "the simulated model is to call %.64q, and the body has no tools", a.tool)
	}
	if err := json.Unmarshal(raw, &tools, jsontext.AllowDuplicateNames(true)); err != nil {
		return fault.Wrap(err, fault.InvalidRequest, "tools is not what Chat Completions takes")
	}
	for i := range tools {
		if f := &tools[i].Function; f.Name == a.tool {
			a.called = []string{}
			for part := range slices.Chunk([]rune(a.value(&f.Parameters, 0)), piece) {
				a.called = append(a.called, string(part))
			}
			return nil
		}
	}
	return fault.Param("tools", "the simulated model is to call %.64q, which is none of the body's tools", a.tool)
}

// deepest is how far into objects arguments are made up.
const deepest = 8

// value makes up a value, an object where nothing else is said.
func (a *answer) value(s *schema, depth int) string {
	if len(s.Enum) > 0 {
		return string(s.Enum[0])
	}
	switch string(s.Type) {
	case `"string"`:
		words := a.lex.classes[1]
		return strconv.Quote(words[a.draw(len(words))])
	case `"integer"`, `"number"`:
		return strconv.Itoa(a.draw(100))
	case `"boolean"`:
		return "true"
	case `"array"`:
		return "[]"
	case `"null"`:
		return "null"
	}
	if depth == deepest {
		return "{}"
	}
	out := []byte{'{'}
	for i, name := range s.Required {
		member := s.Properties[name]
		if i > 0 {
			out = append(out, ',')
		}
		out, _ = jsontext.AppendQuote(out, name)
		out = append(append(out, ':'), a.value(&member, depth+1)...)
	}
	return string(append(out, '}'))
}

// sayCall says the tool call: its head, its arguments, its end.
func (a *answer) sayCall(ctx context.Context, yield func(llm.Chunk, error) bool) {
	name, _ := jsontext.AppendQuote(nil, a.tool)
	head := fmt.Sprintf(`[{"index":0,"id":"call_%016x","type":"function","function":{"name":%s,"arguments":""}}]`, a.draw(1<<30), name)
	if !yield(llm.Chunk{ToolCalls: jsontext.Value(head)}, nil) {
		return
	}
	for part := range slices.Chunk(a.called, a.chunk) {
		if err := a.wait(ctx, a.gap); err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		quoted, _ := jsontext.AppendQuote(nil, strings.Join(part, ""))
		if !yield(llm.Chunk{ToolCalls: fmt.Appendf(nil, `[{"index":0,"function":{"arguments":%s}}]`, quoted)}, nil) {
			return
		}
	}
	said := len(a.called)
	yield(llm.Chunk{FinishReason: "tool_calls", Usage: &llm.Usage{PromptTokens: a.words, CompletionTokens: said, TotalTokens: a.words + said}}, nil)
}
