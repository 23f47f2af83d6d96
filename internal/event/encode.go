package event

import (
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Encode makes the JSON of a payload. It panics on a type that has none, which
// is a programming error.
func Encode(payload any) jsontext.Value {
	switch p := payload.(type) { // every job has these two, which the library takes several times as long for
	case Completed:
		if p.Usage.plain() && p.Deltas == nil {
			return p.append(make([]byte, 0, 160))
		}
	case Fact:
		if p.plain() {
			return p.append(make([]byte, 0, 256+len(p.Output[0].Message.Content)))
		}
	}
	b, err := json.Marshal(payload, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(fmt.Sprintf("event: %T has no JSON: %v", payload, err))
	}
	return b
}

// AppendDelta appends the JSON of a delta to dst. It is Encode for the one
// payload that is written once a token.
func AppendDelta(dst []byte, d *Delta) []byte {
	if d.ToolCalls != nil || d.Logprobs != nil || d.Embedding != nil || d.Refusal != "" || d.Index != 0 {
		return append(dst, Encode(d)...)
	}
	dst = append(dst, `{"index":0`...)
	if d.Content != "" {
		dst = appendString(dst, `,"content":`, d.Content)
	}
	if d.Reasoning != "" {
		dst = appendString(dst, `,"reasoning":`, d.Reasoning)
	}
	return append(dst, '}')
}

// append is Encode without deltas and a usage's details.
func (c *Completed) append(dst []byte) []byte {
	dst = appendString(dst, `{"model":`, c.Model)
	dst = append(dst, `,"choices":[`...)
	for i, choice := range c.Choices {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendInt(dst, `{"index":`, choice.Index)
		dst = appendString(dst, `,"finish_reason":`, choice.FinishReason)
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	return append(c.Usage.append(dst), '}')
}

// plain tells whether the output is one choice of text.
func (f *Fact) plain() bool {
	if len(f.Output) != 1 || !f.Usage.plain() {
		return false
	}
	o, m := &f.Output[0], &f.Output[0].Message
	return m.Role != "" && m.Reasoning == "" && m.Refusal == "" && m.ToolCalls == nil && o.Logprobs == nil && o.Embedding == nil
}

// append is Encode where plain says so.
func (f *Fact) append(dst []byte) []byte {
	o := &f.Output[0]
	dst = appendString(dst, `{"model":`, f.Model)
	dst = appendInt(dst, `,"output":[{"index":`, o.Index)
	dst = appendString(dst, `,"message":{"role":`, o.Message.Role)
	dst = appendString(dst, `,"content":`, o.Message.Content)
	dst = append(dst, '}')
	if o.FinishReason != "" {
		dst = appendString(dst, `,"finish_reason":`, o.FinishReason)
	}
	dst = append(dst, `}]`...)
	return append(f.Usage.append(dst), '}')
}

// plain tells whether there are no details.
func (u *Usage) plain() bool {
	return u == nil || u.PromptTokensDetails == nil && u.CompletionTokensDetails == nil
}

// append appends the member usage, without details; nothing where there is none.
func (u *Usage) append(dst []byte) []byte {
	if u == nil {
		return dst
	}
	dst = appendInt(dst, `,"usage":{"prompt_tokens":`, u.PromptTokens)
	dst = appendInt(dst, `,"completion_tokens":`, u.CompletionTokens)
	dst = appendInt(dst, `,"total_tokens":`, u.TotalTokens)
	return append(dst, '}')
}

func appendInt(dst []byte, name string, n int) []byte {
	return strconv.AppendInt(append(dst, name...), int64(n), 10)
}
