package anthropic

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/wire"
)

// maxTools bounds what is remembered of an answer's tool calls.
const maxTools = 128

// event is what is read of an answer's events, all types in one. Those that are
// not known are passed over, as Anthropic's policy of versions asks.
type event struct {
	Type    string `json:"type"`
	Index   int    `json:"index"` // of the block
	Message struct {
		Usage tokens `json:"usage"`
	} `json:"message"`
	ContentBlock struct {
		Type     string         `json:"type"`
		Text     string         `json:"text"`
		Thinking string         `json:"thinking"`
		ID       string         `json:"id"`
		Name     string         `json:"name"`
		Input    jsontext.Value `json:"input"`
	} `json:"content_block"`
	Delta struct {
		Type        string `json:"type"`
		Text        string `json:"text"`
		Thinking    string `json:"thinking"`
		PartialJSON string `json:"partial_json"`
		StopReason  string `json:"stop_reason"`
	} `json:"delta"`
	Usage tokens         `json:"usage"`
	Error jsontext.Value `json:"error"`
}

// tokens is a usage as Messages tells it: at the start, and, counted on, at the
// end. What is absent, null or 0 was told before.
type tokens struct {
	Input         *int `json:"input_tokens"`
	CacheCreation *int `json:"cache_creation_input_tokens"`
	CacheRead     *int `json:"cache_read_input_tokens"`
	Output        *int `json:"output_tokens"`
	Details       struct {
		Thinking *int `json:"thinking_tokens"`
	} `json:"output_tokens_details"`
}

// toolUse is a tool call that is being told.
type toolUse struct {
	index int // among the answer's calls
	input jsontext.Value
	begun bool // a piece of its arguments came
}

// answer turns one stream into chunks.
type answer struct {
	header http.Header
	events *wire.Events
	yield  wire.Yield

	heard    bool             // an event came
	started  bool             // message_start came
	tools    map[int]*toolUse // by the block's index
	finished bool             // the stop reason was told
	counted  bool             // usage was told
	usage    [5]int           // input, cache creation, cache read, output, thinking
}

// run reads the stream to its end.
func (a *answer) run() error {
	for {
		data, failed, err := a.events.Next()
		if err != nil {
			if a.finished && !errors.Is(err, wire.ErrTooLarge) { // all is told but message_stop
				return a.account()
			}
			return wire.BrokenOff(Name, a.header, a.heard, err) //nolint:wrapcheck // a fault
		}
		a.heard = true
		stop, err := a.take(data, failed)
		if err != nil || stop {
			return err
		}
	}
}

// take yields what one event holds, and tells whether it is the last.
func (a *answer) take(data []byte, failed bool) (stop bool, err error) {
	if !utf8.Valid(data) {
		data = bytes.ToValidUTF8(data, []byte("\uFFFD"))
	}
	var e event
	err = json.Unmarshal(data, &e, jsontext.AllowDuplicateNames(true))
	switch {
	case failed && (err != nil || wire.Absent(e.Error)):
		return true, reported(data)
	case err != nil:
		return true, fault.Wrap(err, fault.ProviderError, "%s sent an event that is no part of an answer", Name)
	}
	switch e.Type {
	case "error":
		return true, reported(e.Error)
	case "message_start":
		a.started = true
		a.count(&e.Message.Usage)
	case "content_block_start":
		return false, a.begin(&e)
	case "content_block_delta":
		return false, a.delta(&e)
	case "content_block_stop":
		return false, a.endTool(e.Index)
	case "message_delta":
		a.count(&e.Usage)
		return false, a.finish(e.Delta.StopReason)
	case "message_stop":
		if !a.started {
			return true, fault.New(fault.ProviderError, "%s ended its stream without an answer", Name)
		}
		if !a.finished {
			if err := a.finish("end_turn"); err != nil {
				return true, err
			}
		}
		return true, a.account()
	}
	return false, nil
}

// begin takes the head of a block.
func (a *answer) begin(e *event) error {
	b := &e.ContentBlock
	switch b.Type {
	case "text":
		return a.say(llm.Chunk{Content: b.Text})
	case "thinking":
		return a.say(llm.Chunk{Reasoning: b.Thinking})
	case "tool_use":
		if len(a.tools) >= maxTools {
			return fault.New(fault.ProviderError, "%s made more than %d tool calls", Name, maxTools)
		}
		t := &toolUse{index: len(a.tools), input: b.Input}
		a.tools[e.Index] = t
		return a.say(llm.Chunk{ToolCalls: fmt.Appendf(nil, `[{"index":%d,"id":%s,"type":"function","function":{"name":%s,"arguments":""}}]`,
			t.index, quote(b.ID), quote(b.Name))})
	}
	return nil // such as redacted_thinking, of which nothing can be shown
}

func (a *answer) delta(e *event) error {
	switch e.Delta.Type {
	case "text_delta":
		return a.say(llm.Chunk{Content: e.Delta.Text})
	case "thinking_delta":
		return a.say(llm.Chunk{Reasoning: e.Delta.Thinking})
	case "input_json_delta":
		t := a.tools[e.Index]
		if t == nil || e.Delta.PartialJSON == "" {
			return nil
		}
		t.begun = true
		return a.arguments(t, e.Delta.PartialJSON)
	}
	return nil // such as signature_delta, which Chat Completions has no place for
}

// endTool tells the arguments of a call that had none in pieces: clients parse
// them, and no text is no JSON.
func (a *answer) endTool(block int) error {
	t := a.tools[block]
	if t == nil || t.begun {
		return nil
	}
	t.begun = true
	if t.input.Kind() != jsontext.KindBeginObject {
		t.input = jsontext.Value("{}")
	}
	return a.arguments(t, string(t.input))
}

func (a *answer) arguments(t *toolUse, piece string) error {
	return a.say(llm.Chunk{ToolCalls: fmt.Appendf(nil, `[{"index":%d,"function":{"arguments":%s}}]`, t.index, quote(piece))})
}

// quote writes a JSON string of text that came out of JSON.
func quote(s string) []byte {
	b, _ := jsontext.AppendQuote(nil, s)
	return b
}

// finish tells the reason why the answer ended, once.
func (a *answer) finish(reason string) error {
	if reason == "" || a.finished {
		return nil
	}
	a.finished = true
	c := llm.Chunk{FinishReason: "stop"} // end_turn, stop_sequence, pause_turn, and what is not known
	switch reason {
	case "max_tokens", "model_context_window_exceeded":
		c.FinishReason = "length"
	case "tool_use":
		c.FinishReason = "tool_calls"
	case "refusal":
		c.FinishReason = "content_filter"
	}
	return a.say(c)
}

// say yields a chunk that says something. Nothing but usage follows the finish.
func (a *answer) say(c llm.Chunk) error {
	if c.Content == "" && c.Reasoning == "" && c.ToolCalls == nil && c.FinishReason == "" || a.finished && c.FinishReason == "" {
		return nil
	}
	return a.yield(c)
}

func (a *answer) count(t *tokens) {
	for i, n := range []*int{t.Input, t.CacheCreation, t.CacheRead, t.Output, t.Details.Thinking} {
		if n != nil && *n > 0 {
			a.usage[i] = *n
		}
		a.counted = a.counted || n != nil
	}
}

// account yields the usage, where it was told. Chat Completions counts what the
// prompt's cache gave and took as the prompt's.
func (a *answer) account() error {
	if !a.counted {
		return nil
	}
	input, created, read, output, thinking := a.usage[0], a.usage[1], a.usage[2], a.usage[3], a.usage[4]
	u := &llm.Usage{PromptTokens: input + created + read, CompletionTokens: output, TotalTokens: input + created + read + output}
	u.PromptTokensDetails = fmt.Appendf(nil, `{"cached_tokens":%d,"cache_creation_tokens":%d}`, read, created)
	if thinking > 0 {
		u.CompletionTokensDetails = []byte(`{"reasoning_tokens":` + strconv.Itoa(thinking) + `}`)
	}
	return a.yield(llm.Chunk{Usage: u})
}

// reported is the fault of an error in the middle of a stream, whose type stands
// for the status that it would have had before:
// https://platform.claude.com/docs/en/api/errors.
func reported(raw []byte) error {
	e := wire.ReadError(raw)
	status := 0
	switch e.Type {
	case "invalid_request_error":
		status = 400
	case "authentication_error":
		status = 401
	case "billing_error":
		status = 402
	case "permission_error":
		status = 403
	case "not_found_error":
		status = 404
	case "request_too_large":
		status = 413
	case "rate_limit_error":
		status = 429
	case "timeout_error":
		status = 504
	case "overloaded_error":
		status = 529
	}
	if status == http.StatusUnauthorized {
		return wire.Refused(Name, status, e)
	}
	return wire.Failed(Name, llm.CodeForStatus(status), e)
}
