package anthropic

import (
	"errors"
	"fmt"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/param"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/integer"
)

// defaultMaxTokens is the limit of an answer where the body has none: Messages
// demands one, and every model takes this.
const defaultMaxTokens = 8192

// chat is a Chat Completions body, as far as it has a counterpart.
type chat struct {
	Messages            []message       `json:"messages"`
	MaxTokens           *integer.Int    `json:"max_tokens"`
	MaxCompletionTokens *integer.Int    `json:"max_completion_tokens"`
	Stop                jsontext.Value  `json:"stop"`
	Tools               []tool          `json:"tools"`
	ToolChoice          jsontext.Value  `json:"tool_choice"`
	ParallelToolCalls   *bool           `json:"parallel_tool_calls"`
	ResponseFormat      *responseFormat `json:"response_format"`
	User                string          `json:"user"`
	SafetyIdentifier    string          `json:"safety_identifier"`
	Metadata            struct {
		UserID jsontext.Value `json:"user_id"`
	} `json:"metadata"`
	knobs
	foreign
}

// knobs tune an answer, and have a counterpart. What else only tunes is ignored,
// as everything that is not named here: frequency_penalty, presence_penalty,
// logit_bias, seed, verbosity, prediction, prompt_cache_key, service_tier, store,
// stream, stream_options.
type knobs struct {
	Temperature     *float64 `json:"temperature"`
	TopP            *float64 `json:"top_p"`
	ReasoningEffort string   `json:"reasoning_effort"`

	// Anthropic's own, as its compatible endpoint takes them.
	TopK         *integer.Int   `json:"top_k"`
	Thinking     jsontext.Value `json:"thinking"`
	CacheControl jsontext.Value `json:"cache_control"`
}

// foreign are the fields that ask for what Messages does not give.
type foreign struct {
	N                *integer.Int   `json:"n"`
	Logprobs         *bool          `json:"logprobs"`
	TopLogprobs      *integer.Int   `json:"top_logprobs"`
	Modalities       []string       `json:"modalities"`
	Audio            jsontext.Value `json:"audio"`
	Functions        jsontext.Value `json:"functions"`
	FunctionCall     jsontext.Value `json:"function_call"`
	WebSearchOptions jsontext.Value `json:"web_search_options"`
}

type responseFormat struct {
	Type       string `json:"type"`
	JSONSchema struct {
		Schema jsontext.Value `json:"schema"`
	} `json:"json_schema"`
}

// translate says in Messages what a Chat Completions body says.
func translate(body []byte, model string) (anthropic.MessageNewParams, error) {
	var c chat
	if err := decode(body, &c, ""); err != nil {
		return anthropic.MessageNewParams{}, err
	}
	if err := c.refuse(); err != nil {
		return anthropic.MessageNewParams{}, err
	}
	p := anthropic.MessageNewParams{Model: model, MaxTokens: c.limit()}
	if p.MaxTokens < 1 {
		return p, fault.Param("max_tokens", "max_tokens is %d: it must be 1 or more", p.MaxTokens)
	}
	if id := c.userID(); id != "" {
		p.Metadata.UserID = anthropic.String(id)
	}
	for _, step := range []func(*anthropic.MessageNewParams) error{c.conversation, c.useTools, c.format, c.tune, c.stop} {
		if err := step(&p); err != nil {
			return p, err
		}
	}
	return p, nil
}

// limit is the smaller of the body's limits.
func (c *chat) limit() int64 {
	limit := integer.Int(defaultMaxTokens)
	if c.MaxTokens != nil {
		limit = *c.MaxTokens
	}
	if m := c.MaxCompletionTokens; m != nil && (c.MaxTokens == nil || *m < limit) {
		limit = *m
	}
	return int64(limit)
}

// userID is who asks, for Anthropic's own watch over abuse.
func (c *chat) userID() string {
	for _, id := range []string{c.SafetyIdentifier, c.User, textOf(c.Metadata.UserID)} {
		if id != "" {
			return id
		}
	}
	return ""
}

func (f *foreign) refuse() error {
	given := func(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != jsontext.KindNull }
	switch {
	case f.N != nil && *f.N != 1:
		return unsupported("n", "it must be 1")
	case f.Logprobs != nil && *f.Logprobs:
		return unsupported("logprobs", "leave it out")
	case f.TopLogprobs != nil && *f.TopLogprobs > 0:
		return unsupported("top_logprobs", "leave it out")
	case given(f.Audio):
		return unsupported("audio", "leave it out")
	case given(f.Functions):
		return unsupported("functions", "write tools in place of it")
	case given(f.FunctionCall):
		return unsupported("function_call", "write tool_choice in place of it")
	case given(f.WebSearchOptions):
		return unsupported("web_search_options", "leave it out")
	}
	for _, m := range f.Modalities {
		if m != "text" {
			return unsupported("modalities", `it must be ["text"]`)
		}
	}
	return nil
}

// unsupported is the refusal of a field, or of its value.
func unsupported(field, right string) error {
	return fault.Param(field, "%s is not served by models of %s: %s", field, Name, right)
}

// format asks for an answer of a form.
func (c *chat) format(p *anthropic.MessageNewParams) error {
	f := c.ResponseFormat
	if f == nil || f.Type == "text" {
		return nil
	}
	if f.Type != "json_schema" {
		return fault.Param("response_format", "response_format %.40q is not served by models of %s: it must be text or json_schema", f.Type, Name)
	}
	if f.JSONSchema.Schema.Kind() != jsontext.KindBeginObject {
		return fault.Param("response_format.json_schema.schema", "response_format.json_schema.schema must be an object, a JSON Schema")
	}
	p.OutputConfig.Format = param.Override[anthropic.JSONOutputFormatParam](map[string]any{"type": f.Type, "schema": f.JSONSchema.Schema})
	return nil
}

// tune carries the knobs over.
func (k *knobs) tune(p *anthropic.MessageNewParams) (err error) {
	if t := k.Temperature; t != nil {
		if *t < 0 || *t > 1 {
			return fault.Param("temperature", "temperature is %g: models of %s take 0 to 1", *t, Name)
		}
		p.Temperature = anthropic.Float(*t)
	}
	if k.TopP != nil {
		p.TopP = anthropic.Float(*k.TopP)
	}
	if k.TopK != nil {
		p.TopK = anthropic.Int(int64(*k.TopK))
	}
	switch k.ReasoningEffort {
	case "":
	case "none":
		disabled := anthropic.NewThinkingConfigDisabledParam()
		p.Thinking.OfDisabled = &disabled
	case "low", "medium", "high", "xhigh", "max":
		p.OutputConfig.Effort = anthropic.OutputConfigEffort(k.ReasoningEffort)
	default:
		return fault.Param("reasoning_effort", "reasoning_effort %.40q is not served by models of %s: it must be none, low, medium, high, xhigh or max", k.ReasoningEffort, Name)
	}
	if k.thinks() {
		if k.Thinking.Kind() != jsontext.KindBeginObject {
			return fault.Param("thinking", "thinking must be an object, such as {\"type\":\"adaptive\"}")
		}
		p.Thinking = param.Override[anthropic.ThinkingConfigParamUnion](k.Thinking)
	}
	p.CacheControl, err = cacheControl(k.CacheControl, "cache_control")
	return err
}

// thinks tells whether the body says how the model is to think.
func (k *knobs) thinks() bool { return len(k.Thinking) > 0 && k.Thinking.Kind() != jsontext.KindNull }

func (c *chat) stop(p *anthropic.MessageNewParams) error {
	switch c.Stop.Kind() {
	case 0, jsontext.KindNull:
	case jsontext.KindString:
		p.StopSequences = []string{textOf(c.Stop)}
	default:
		return decode(c.Stop, &p.StopSequences, "stop")
	}
	return nil
}

// cacheControl passes a mark of the prompt's cache through as it came.
func cacheControl(raw jsontext.Value, at string) (none anthropic.CacheControlEphemeralParam, err error) {
	switch raw.Kind() {
	case 0, jsontext.KindNull:
		return none, nil
	case jsontext.KindBeginObject:
		return param.Override[anthropic.CacheControlEphemeralParam](raw), nil
	default:
		return none, fault.Param(at, `%s must be an object, such as {"type":"ephemeral"}`, at)
	}
}

// decode reads a part of the body, whose path is at. The error is a fault that
// names the field.
func decode(raw []byte, v any, at string) error {
	err := json.Unmarshal(raw, v, jsontext.AllowDuplicateNames(true))
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[*json.SemanticError](err)
	if !ok || at == "" && wrong.JSONPointer == "" {
		return fault.Wrap(err, fault.InvalidJSON, "the body must be one JSON object")
	}
	var path strings.Builder
	path.WriteString(at)
	for token := range wrong.JSONPointer.Tokens() {
		switch {
		case strings.Trim(token, "0123456789") == "":
			fmt.Fprintf(&path, "[%s]", token)
		case path.Len() > 0:
			path.WriteString("." + token)
		default:
			path.WriteString(token)
		}
	}
	return fault.Param(path.String(), "%s has a value of the wrong type: a JSON %s", path.String(), wrong.JSONKind)
}

// textOf is a string's text, and "" for everything else.
func textOf(v jsontext.Value) string {
	if v.Kind() != jsontext.KindString {
		return ""
	}
	s, _ := jsontext.AppendUnquote(nil, v) // the decoder has seen it
	return string(s)
}
