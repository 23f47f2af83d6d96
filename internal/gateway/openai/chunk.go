package openai

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
)

// Chunks writes one job's output as the server-sent events of a streamed chat
// completion. Each event is one data line, whatever white space a provider's
// JSON has, and there is no other line: vLLM's benchmark and the Python SDK stop
// at an id, event or retry line here. It has one user at a time.
type Chunks struct {
	id      string
	created time.Time
	model   string
	usage   bool
	head    []byte                  // of every chunk, up to its choice's index
	begun   [MaxChoices / 64]uint64 // choices whose role was told
	seen    int                     // one more than the largest index so far
}

// NewChunks makes a Chunks. model stands in until an event tells which one it is.
func NewChunks(id string, created time.Time, model string, usage bool) *Chunks {
	c := &Chunks{id: id, created: created, usage: usage}
	c.Begin(model)
	return c
}

// Begin takes up an attempt, of which nothing was said yet. A model of "" leaves
// it as it is known.
func (c *Chunks) Begin(model string) {
	if model != "" && model != c.model {
		c.model = model
		c.head = append(c.opening(c.head[:0]), `"choices":[{"index":`...)
	}
	clear(c.begun[:])
	c.seen = 0
}

// opening appends what every chunk begins with, up to its choices.
func (c *Chunks) opening(dst []byte) []byte {
	dst = append(dst, `data: {"id":`...)
	dst = appendQuoted(dst, c.id)
	dst = append(dst, `,"object":"chat.completion.chunk","created":`...)
	dst = strconv.AppendInt(dst, c.created.Unix(), 10)
	dst = append(dst, `,"model":`...)
	dst = appendQuoted(dst, c.model)
	return append(dst, ',')
}

func appendQuoted(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error tells of U+FFFD in place of invalid UTF-8
	return dst
}

// deltaWire is a delta whose values are handed on as they are.
type deltaWire struct {
	Index     int            `json:"index"`
	Content   jsontext.Value `json:"content"`
	Reasoning jsontext.Value `json:"reasoning"`
	Refusal   jsontext.Value `json:"refusal"`
	ToolCalls jsontext.Value `json:"tool_calls"`
	Logprobs  jsontext.Value `json:"logprobs"`
}

// AppendDelta appends the chunk of an output.delta, whose data are given. The
// error says that they are none; nothing is appended then.
func (c *Chunks) AppendDelta(dst, data []byte) ([]byte, error) {
	if index, content, ok := scanText(data); ok {
		return c.appendChunk(dst, deltaWire{Index: index, Content: content}), nil
	}
	d, err := readDelta(data)
	if err != nil {
		return dst, fmt.Errorf("a delta: %w", err)
	}
	return c.appendChunk(dst, d), nil
}

func readDelta(data []byte) (d deltaWire, err error) {
	if err := json.Unmarshal(data, &d); err != nil {
		return d, err //nolint:wrapcheck // the one caller does
	}
	if d.Index < 0 || d.Index >= MaxChoices {
		return d, fmt.Errorf("%d is no choice: it must be 0 to %d", d.Index, MaxChoices-1)
	}
	if d.ToolCalls != nil {
		d.ToolCalls = compact(d.ToolCalls) // a provider's own layout may have line breaks
	}
	if d.Logprobs != nil {
		d.Logprobs = compact(d.Logprobs)
	}
	return d, nil
}

func (c *Chunks) appendChunk(dst []byte, d deltaWire) []byte {
	dst = append(dst, c.head...)
	dst = strconv.AppendInt(dst, int64(d.Index), 10)
	dst = append(dst, `,"delta":{`...)
	comma := ""
	if c.first(d.Index) {
		dst, comma = append(dst, `"role":"assistant"`...), ","
	}
	for _, f := range [...]struct {
		name string
		raw  jsontext.Value
	}{
		{`"content":`, d.Content}, {`"reasoning_content":`, d.Reasoning}, {`"refusal":`, d.Refusal}, {`"tool_calls":`, d.ToolCalls},
	} {
		if f.raw == nil {
			continue
		}
		dst = append(dst, comma...)
		dst = append(dst, f.name...)
		dst, comma = append(dst, f.raw...), ","
	}
	dst = append(dst, '}')
	if d.Logprobs != nil {
		dst = append(dst, `,"logprobs":`...)
		dst = append(dst, d.Logprobs...)
	}
	return append(dst, `,"finish_reason":null}]}`+"\n\n"...)
}

// scanText reads a delta of text alone as the processors write it, which nearly
// all are, without a decoder; ok is false for any other.
func scanText(data []byte) (index int, content jsontext.Value, ok bool) {
	rest, ok := bytes.CutPrefix(data, []byte(`{"index":`))
	if !ok {
		return 0, nil, false
	}
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' && index < MaxChoices {
		index = index*10 + int(rest[digits]-'0')
		digits++
	}
	rest, ok = bytes.CutPrefix(rest[digits:], []byte(`,"content":"`))
	if !ok || digits == 0 || index >= MaxChoices {
		return 0, nil, false
	}
	content = data[len(data)-len(rest)-1:]
	for i := 1; i < len(content); i++ {
		switch content[i] {
		case '\\':
			i++
		case '"':
			if i == len(content)-2 && content[i+1] == '}' {
				return index, content[:i+1], true
			}
			return 0, nil, false
		}
	}
	return 0, nil, false
}

// first tells, once a choice, that nothing was said of it before.
func (c *Chunks) first(index int) bool {
	c.seen = max(c.seen, index+1)
	word, bit := &c.begun[index/64], uint64(1)<<(index%64)
	was := *word & bit
	*word |= bit
	return was == 0
}

// AppendEnd appends what follows the last delta: how each choice ended, the
// usage if it was asked for and is known, and the end of the stream.
func (c *Chunks) AppendEnd(dst []byte, end *event.Completed) []byte {
	ended := map[int]bool{}
	for _, e := range end.Choices {
		if e.Index >= 0 && e.Index < MaxChoices && !ended[e.Index] {
			ended[e.Index] = true
			dst = c.appendFinish(dst, e.Index, e.FinishReason)
		}
	}
	for i := range c.seen { // clients hold a choice that does not say how it ended for cut off
		if c.begun[i/64]&(1<<(i%64)) != 0 && !ended[i] {
			dst = c.appendFinish(dst, i, stopped)
		}
	}
	if c.usage && end.Usage != nil {
		dst = c.opening(dst)
		dst = append(dst, `"choices":[],"usage":`...)
		dst = append(dst, compact(event.Encode(end.Usage))...)
		dst = append(dst, "}\n\n"...)
	}
	return append(dst, "data: [DONE]\n\n"...)
}

// stopped is the finish reason of a choice that ended by itself.
const stopped = "stop"

func (c *Chunks) appendFinish(dst []byte, index int, reason string) []byte {
	if reason == "" {
		reason = stopped
	}
	dst = append(dst, c.head...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	dst = append(dst, `,"delta":{`...)
	if c.first(index) { // it ended without a word
		dst = append(dst, `"role":"assistant","content":""`...)
	}
	dst = append(dst, `},"finish_reason":`...)
	dst = appendQuoted(dst, reason)
	return append(dst, "}]}\n\n"...)
}

// AppendError appends a failure in the middle of a stream, after which nothing
// follows. No other chunk has a field error: some clients look whether there is
// one, and not what it holds.
func AppendError(dst []byte, f *fault.Error) []byte {
	dst = append(dst, "data: "...)
	dst = append(dst, event.Encode(api.ErrorBody(f))...)
	return append(dst, "\n\n"...)
}

// compact takes white space out of JSON that is valid.
func compact(v jsontext.Value) jsontext.Value {
	_ = v.Compact() // it fails on what is no JSON alone
	return v
}
