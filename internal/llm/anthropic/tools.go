package anthropic

import (
	"fmt"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/param"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
)

// tool is one that the model may call.
type tool struct {
	Type     string `json:"type"`
	Function struct {
		Name         string         `json:"name"`
		Description  string         `json:"description"`
		Parameters   jsontext.Value `json:"parameters"`
		Strict       *bool          `json:"strict"`
		CacheControl jsontext.Value `json:"cache_control"`
	} `json:"function"`
	CacheControl jsontext.Value `json:"cache_control"`
}

// useTools carries the tools over, and which of them are to be called.
func (c *chat) useTools(p *anthropic.MessageNewParams) error {
	for i := range c.Tools {
		t, err := c.Tools[i].param(fmt.Sprintf("tools[%d]", i))
		if err != nil {
			return err
		}
		p.Tools = append(p.Tools, anthropic.ToolUnionParam{OfTool: t})
	}
	return c.choose(p)
}

func (t *tool) param(at string) (*anthropic.ToolParam, error) {
	f := &t.Function
	if t.Type != "function" {
		return nil, fault.Param(at+".type", "%s.type %.40q is not served by models of %s: it must be function", at, t.Type, Name)
	}
	out := &anthropic.ToolParam{Name: f.Name}
	if f.Description != "" {
		out.Description = anthropic.String(f.Description)
	}
	if f.Strict != nil && *f.Strict {
		out.Strict = anthropic.Bool(true)
	}
	switch f.Parameters.Kind() {
	case 0, jsontext.KindNull:
		out.InputSchema.Properties = struct{}{}
	case jsontext.KindBeginObject:
		out.InputSchema = param.Override[anthropic.ToolInputSchemaParam](f.Parameters)
	default:
		return nil, fault.Param(at+".function.parameters", "%s.function.parameters must be an object, a JSON Schema", at)
	}
	raw := t.CacheControl
	if !given(raw) {
		raw = f.CacheControl
	}
	var err error
	out.CacheControl, err = cacheControl(raw, at+".cache_control")
	return out, err
}

// choose carries tool_choice over.
func (c *chat) choose(p *anthropic.MessageNewParams) error {
	var one param.Opt[bool] // whether one call at a time is asked for
	if c.ParallelToolCalls != nil && !*c.ParallelToolCalls && len(c.Tools) > 0 {
		one = anthropic.Bool(true)
	}
	choice := &p.ToolChoice
	var named struct {
		Type     string `json:"type"`
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	switch c.ToolChoice.Kind() {
	case 0, jsontext.KindNull:
		named.Type = "auto"
	case jsontext.KindString:
		named.Type = textOf(c.ToolChoice)
	default:
		if err := decode(c.ToolChoice, &named, "tool_choice"); err != nil {
			return err
		}
	}
	switch named.Type {
	case "auto":
		if one.Valid() {
			choice.OfAuto = &anthropic.ToolChoiceAutoParam{DisableParallelToolUse: one}
		}
	case "none":
		if len(c.Tools) > 0 {
			none := anthropic.NewToolChoiceNoneParam()
			choice.OfNone = &none
		}
	case "required":
		choice.OfAny = &anthropic.ToolChoiceAnyParam{DisableParallelToolUse: one}
	case "function":
		if named.Function.Name == "" {
			return fault.Param("tool_choice.function.name", "tool_choice.function.name is missing: it must name one of the tools")
		}
		choice.OfTool = &anthropic.ToolChoiceToolParam{Name: named.Function.Name, DisableParallelToolUse: one}
	default:
		return fault.Param("tool_choice", "tool_choice %.40q is not served by models of %s: it must be auto, none, required or a function", named.Type, Name)
	}
	return nil
}

// forced tells whether the answer must begin with a call, so that no text can be
// its beginning.
func (c *chat) forced() bool {
	return c.ToolChoice.Kind() == jsontext.KindBeginObject || textOf(c.ToolChoice) == "required"
}
