package openai

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/wire"
)

// maxChoices bounds what is remembered of an answer's choices.
const maxChoices = 128

// wireChunk is what is read of a chat.completion.chunk.
type wireChunk struct {
	Choices []wireChoice   `json:"choices"`
	Usage   *llm.Usage     `json:"usage"`
	Error   jsontext.Value `json:"error"`
}

type wireChoice struct {
	Index int `json:"index"`
	Delta struct {
		Content   string         `json:"content"`
		Refusal   string         `json:"refusal"`
		ToolCalls jsontext.Value `json:"tool_calls"`
		// Thinking is no part of OpenAI's API: vLLM, OpenRouter and Ollama call it
		// reasoning, DeepSeek and llama.cpp reasoning_content, some both at once.
		Reasoning        jsontext.Value `json:"reasoning"`
		ReasoningContent jsontext.Value `json:"reasoning_content"`
	} `json:"delta"`
	Logprobs     jsontext.Value `json:"logprobs"`
	FinishReason string         `json:"finish_reason"`
}

// progress is how far a choice is.
type progress uint8

const (
	unseen progress = iota
	begun
	finished
)

// answer turns one stream into chunks.
type answer struct {
	provider string
	header   http.Header
	events   *wire.Events
	yield    wire.Yield

	heard   bool // an event came
	choices []progress
	usage   *llm.Usage // the newest: some servers tell it with each chunk
}

// run reads the stream to its end.
func (a *answer) run() error {
	for {
		data, failed, err := a.events.Next()
		switch {
		case err != nil:
			return a.ended(err)
		case bytes.HasPrefix(data, []byte("[DONE]")):
			return a.done()
		}
		a.heard = true
		if err := a.take(data, failed); err != nil {
			return err
		}
	}
}

// take yields what one event holds.
func (a *answer) take(data []byte, failed bool) error {
	if !utf8.Valid(data) {
		data = bytes.ToValidUTF8(data, []byte("\uFFFD"))
	}
	var w wireChunk
	err := json.Unmarshal(data, &w, jsontext.AllowDuplicateNames(true))
	switch {
	case failed && (err != nil || wire.Absent(w.Error)):
		return reported(a.provider, data)
	case err != nil:
		return fault.Wrap(err, fault.ProviderError, "%s sent an event that is no chunk of an answer", a.provider)
	case !wire.Absent(w.Error):
		return reported(a.provider, w.Error)
	}
	for i := range w.Choices {
		if err := a.choice(&w.Choices[i]); err != nil {
			return err
		}
	}
	if w.Usage != nil {
		a.usage = w.Usage.Told()
	}
	return nil
}

func (a *answer) choice(w *wireChoice) error {
	if w.Index < 0 || w.Index >= maxChoices {
		return fault.New(fault.ProviderError, "%s sent a choice %d: they go from 0 to %d", a.provider, w.Index, maxChoices-1)
	}
	for len(a.choices) <= w.Index {
		a.choices = append(a.choices, unseen)
	}
	state := &a.choices[w.Index]
	*state = max(*state, begun)
	c := llm.Chunk{Index: w.Index, Content: w.Delta.Content, Refusal: w.Delta.Refusal, Reasoning: wire.Text(w.Delta.Reasoning)}
	if c.Reasoning == "" {
		c.Reasoning = wire.Text(w.Delta.ReasoningContent)
	}
	if !wire.Absent(w.Delta.ToolCalls) && string(w.Delta.ToolCalls) != "[]" {
		c.ToolCalls = w.Delta.ToolCalls
	}
	if !wire.Absent(w.Logprobs) {
		c.Logprobs = w.Logprobs
	}
	// A name that stands twice is let pass elsewhere; these are passed on.
	if c.ToolCalls != nil && !c.ToolCalls.IsValid() || c.Logprobs != nil && !c.Logprobs.IsValid() {
		return fault.New(fault.ProviderError, "%s sent tool_calls or logprobs with a name that stands twice", a.provider)
	}
	if *state != finished && w.FinishReason != "" {
		*state, c.FinishReason = finished, w.FinishReason
	}
	if c.Content == "" && c.Reasoning == "" && c.Refusal == "" && c.ToolCalls == nil && c.Logprobs == nil && c.FinishReason == "" {
		return nil // a role alone, such as the first
	}
	return a.yield(c)
}

// done ends an answer that the server says is whole.
func (a *answer) done() error {
	if len(a.choices) == 0 {
		return fault.New(fault.ProviderError, "%s ended its stream without an answer", a.provider)
	}
	for i, state := range a.choices {
		if state != begun {
			continue
		}
		if err := a.yield(llm.Chunk{Index: i, FinishReason: "stop"}); err != nil {
			return err
		}
	}
	return a.account()
}

// ended takes the end of a stream that did not say that it is whole. It is if
// each choice has its finish reason.
func (a *answer) ended(err error) error {
	whole := false
	for _, state := range a.choices {
		if state == begun {
			whole = false
			break
		}
		whole = whole || state == finished
	}
	if whole && !errors.Is(err, wire.ErrTooLarge) {
		return a.account()
	}
	return wire.BrokenOff(a.provider, a.header, a.heard, err) //nolint:wrapcheck // a fault
}

// account yields the usage, where it was told.
func (a *answer) account() error {
	if a.usage == nil {
		return nil
	}
	return a.yield(llm.Chunk{Usage: a.usage})
}

// reported is the fault of an error object in the middle of an answer.
func reported(provider string, raw []byte) error {
	e := wire.ReadError(raw)
	if status, err := strconv.Atoi(e.Code); err == nil && status >= 400 && status <= 599 {
		return wire.Refused(provider, status, e)
	}
	code := fault.ProviderError
	switch {
	case strings.Contains(e.Code, "rate_limit"), strings.Contains(e.Type, "rate_limit"), e.Code == "insufficient_quota":
		code = fault.RateLimited
	case e.Type == "invalid_request_error":
		code = fault.ProviderRejected
	}
	return wire.Failed(provider, code, e)
}
