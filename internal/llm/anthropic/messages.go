package anthropic

import (
	"fmt"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
)

// message is one of a Chat Completions body.
type message struct {
	Role         string         `json:"role"`
	Content      jsontext.Value `json:"content"`
	Refusal      string         `json:"refusal"`
	ToolCalls    []toolCall     `json:"tool_calls"`
	ToolCallID   string         `json:"tool_call_id"`
	Audio        jsontext.Value `json:"audio"`
	FunctionCall jsontext.Value `json:"function_call"`
	CacheControl jsontext.Value `json:"cache_control"` // of its last block
}

type toolCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
	CacheControl jsontext.Value `json:"cache_control"`
}

// part is a piece of a message's content.
type part struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Refusal  string `json:"refusal"`
	ImageURL struct {
		URL string `json:"url"`
	} `json:"image_url"`
	File struct {
		FileData string `json:"file_data"`
		Filename string `json:"filename"`
	} `json:"file"`
	CacheControl jsontext.Value `json:"cache_control"`
}

// conversation carries the messages over. Those of system and developer come
// first, wherever they stood: Messages has one system prompt. What tools gave
// goes into one user's turn, as Messages wants it.
func (c *chat) conversation(p *anthropic.MessageNewParams) error {
	results := false // whether the last message holds what tools gave
	for i := range c.Messages {
		m, at := &c.Messages[i], fmt.Sprintf("messages[%d]", i)
		blocks, err := m.blocks(at)
		if err != nil {
			return err
		}
		if err := mark(blocks, m.CacheControl, at); err != nil {
			return err
		}
		switch m.Role {
		case "system", "developer":
			for _, b := range blocks {
				if b.OfText == nil {
					return fault.Param(at+".content", "%s.content holds what is no text: a %s message must be text", at, m.Role)
				}
				p.System = append(p.System, *b.OfText)
			}
			continue
		case "user":
			p.Messages = append(p.Messages, anthropic.NewUserMessage(blocks...))
		case "assistant":
			p.Messages = append(p.Messages, anthropic.NewAssistantMessage(blocks...))
		case "tool":
			if last := len(p.Messages) - 1; results {
				p.Messages[last].Content = append(p.Messages[last].Content, blocks...)
			} else {
				p.Messages = append(p.Messages, anthropic.NewUserMessage(blocks...))
			}
		default:
			return fault.Param(at+".role", "%s.role %.40q is not served by models of %s: it must be system, developer, user, assistant or tool", at, m.Role, Name)
		}
		results = m.Role == "tool"
	}
	if len(p.Messages) == 0 {
		return fault.Param("messages", "messages must hold at least one message of a user")
	}
	return nil
}

// blocks are a message's content as blocks of Messages, one at least.
func (m *message) blocks(at string) ([]anthropic.ContentBlockParamUnion, error) {
	if given(m.Audio) {
		return nil, unsupported(at+".audio", "leave it out")
	}
	if given(m.FunctionCall) {
		return nil, unsupported(at+".function_call", "write tool_calls in place of it")
	}
	parts, err := m.parts(at + ".content")
	if err != nil {
		return nil, err
	}
	var blocks []anthropic.ContentBlockParamUnion
	for i := range parts {
		block, err := parts[i].block(fmt.Sprintf("%s.content[%d]", at, i))
		if err != nil {
			return nil, err
		}
		if block != nil {
			blocks = append(blocks, *block)
		}
	}
	if m.Role == "tool" {
		return m.result(blocks, at)
	}
	if m.Refusal != "" {
		blocks = append(blocks, anthropic.NewTextBlock(m.Refusal))
	}
	for i := range m.ToolCalls {
		call, err := m.ToolCalls[i].block(fmt.Sprintf("%s.tool_calls[%d]", at, i))
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, call)
	}
	if len(blocks) == 0 {
		return nil, fault.Param(at+".content", "%s.content is empty: models of %s take no empty message", at, Name)
	}
	return blocks, nil
}

// parts gives a message's content as parts, which a text alone may stand for.
func (m *message) parts(at string) ([]part, error) {
	switch m.Content.Kind() {
	case 0, jsontext.KindNull:
		return nil, nil
	case jsontext.KindString:
		return []part{{Type: "text", Text: textOf(m.Content)}}, nil
	default:
		var parts []part
		return parts, decode(m.Content, &parts, at)
	}
}

// block is a part as a block; nil for a text that is empty, which Messages does
// not take.
func (p *part) block(at string) (*anthropic.ContentBlockParamUnion, error) {
	var block anthropic.ContentBlockParamUnion
	var err error
	switch p.Type {
	case "text", "refusal":
		if p.Text+p.Refusal == "" {
			return nil, nil //nolint:nilnil // there is none
		}
		block = anthropic.NewTextBlock(p.Text + p.Refusal)
	case "image_url":
		block, err = image(p.ImageURL.URL, at+".image_url.url")
	case "file":
		block, err = document(p.File.FileData, at+".file")
		if block.OfDocument != nil && p.File.Filename != "" {
			block.OfDocument.Title = anthropic.String(p.File.Filename)
		}
	default:
		err = fault.Param(at+".type", "%s.type %.40q is not served by models of %s: it must be text, image_url or file", at, p.Type, Name)
	}
	if err != nil {
		return nil, err
	}
	return &block, mark([]anthropic.ContentBlockParamUnion{block}, p.CacheControl, at)
}

// image is a picture: a data URL, or one that Anthropic fetches.
func image(url, at string) (block anthropic.ContentBlockParamUnion, err error) {
	if strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://") {
		return anthropic.NewImageBlock(anthropic.URLImageSourceParam{URL: url}), nil
	}
	kind, data, ok := dataURL(url)
	switch {
	case !ok:
		return block, fault.Param(at, "%s must be an http or https URL, or a data URL in base64", at)
	case kind != "image/jpeg" && kind != "image/png" && kind != "image/gif" && kind != "image/webp":
		return block, fault.Param(at, "%s is of the type %.40q: it must be image/jpeg, image/png, image/gif or image/webp", at, kind)
	}
	return anthropic.NewImageBlockBase64(kind, data), nil
}

// document is a file that the body holds.
func document(url, at string) (block anthropic.ContentBlockParamUnion, err error) {
	kind, data, ok := dataURL(url)
	if !ok || kind != "application/pdf" {
		return block, fault.Param(at+".file_data", "%s.file_data must be a data URL in base64 of the type application/pdf; files that were uploaded elsewhere are not served by models of %s", at, Name)
	}
	return anthropic.NewDocumentBlock(anthropic.Base64PDFSourceParam{Data: data}), nil
}

// dataURL reads data:TYPE;base64,DATA.
func dataURL(url string) (kind, data string, ok bool) {
	head, data, ok := strings.Cut(url, ",")
	head, isData := strings.CutPrefix(head, "data:")
	head, isBase64 := strings.CutSuffix(head, ";base64")
	kind, _, _ = strings.Cut(head, ";")
	return strings.ToLower(kind), data, ok && isData && isBase64
}

// block is a tool call that the assistant made.
func (t *toolCall) block(at string) (block anthropic.ContentBlockParamUnion, err error) {
	if t.Type != "function" && t.Type != "" {
		return block, fault.Param(at+".type", "%s.type %.40q is not served by models of %s: it must be function", at, t.Type, Name)
	}
	input := jsontext.Value(t.Function.Arguments)
	if strings.TrimSpace(t.Function.Arguments) == "" {
		input = jsontext.Value("{}")
	}
	if input.Kind() != jsontext.KindBeginObject || !input.IsValid() {
		return block, fault.Param(at+".function.arguments", "%s.function.arguments must be the text of a JSON object", at)
	}
	block = anthropic.NewToolUseBlock(t.ID, input, t.Function.Name)
	return block, mark([]anthropic.ContentBlockParamUnion{block}, t.CacheControl, at)
}

// result is what a tool gave.
func (m *message) result(blocks []anthropic.ContentBlockParamUnion, at string) ([]anthropic.ContentBlockParamUnion, error) {
	if m.ToolCallID == "" {
		return nil, fault.Param(at+".tool_call_id", "%s.tool_call_id is missing: it must name the call that this is the result of", at)
	}
	result := &anthropic.ToolResultBlockParam{ToolUseID: m.ToolCallID}
	for _, b := range blocks {
		result.Content = append(result.Content, anthropic.ToolResultBlockParamContentUnion{OfText: b.OfText, OfImage: b.OfImage, OfDocument: b.OfDocument})
	}
	return []anthropic.ContentBlockParamUnion{{OfToolResult: result}}, nil
}

// mark puts a mark of the prompt's cache on the last of blocks.
func mark(blocks []anthropic.ContentBlockParamUnion, raw jsontext.Value, at string) error {
	control, err := cacheControl(raw, at+".cache_control")
	if err != nil || !given(raw) {
		return err
	}
	if into := blocks[len(blocks)-1].GetCacheControl(); into != nil {
		*into = control
	}
	return nil
}

// given tells whether a field is there, which null is not.
func given(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != jsontext.KindNull }
