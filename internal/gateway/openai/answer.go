package openai

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
)

// Completion is the answer to a chat request that does not stream.
type Completion struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"` // "chat.completion"
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Choices []choice     `json:"choices"`
	Usage   *event.Usage `json:"usage,omitzero"` // absent where the provider told none
}

type choice struct {
	Index        int            `json:"index"`
	Message      message        `json:"message"`
	Logprobs     jsontext.Value `json:"logprobs"` // null without
	FinishReason string         `json:"finish_reason"`
}

type message struct {
	Role      string         `json:"role"`
	Content   *string        `json:"content"` // null beside tool calls or a refusal, where there is no text
	Reasoning string         `json:"reasoning_content,omitzero"`
	Refusal   *string        `json:"refusal"`
	ToolCalls jsontext.Value `json:"tool_calls,omitzero"`
}

// NewCompletion makes the answer of a job's whole output.
func NewCompletion(id string, created time.Time, end *event.Completed, output []event.OutputChoice) *Completion {
	c := &Completion{
		ID: id, Object: "chat.completion", Created: created.Unix(), Model: end.Model,
		Choices: make([]choice, 0, len(output)), Usage: end.Usage,
	}
	for i := range output {
		o := &output[i]
		m := message{Role: "assistant", Reasoning: o.Message.Reasoning, ToolCalls: o.Message.ToolCalls}
		if o.Message.Refusal != "" {
			m.Refusal = &o.Message.Refusal
		}
		if o.Message.Content != "" || m.Refusal == nil && m.ToolCalls == nil {
			m.Content = &o.Message.Content
		}
		reason := o.FinishReason
		if reason == "" {
			reason = stopped
		}
		c.Choices = append(c.Choices, choice{Index: o.Index, Message: m, Logprobs: o.Logprobs, FinishReason: reason})
	}
	return c
}

// Embeddings is the answer to POST /v1/embeddings.
type Embeddings struct {
	Object string          `json:"object"` // "list"
	Data   []embedding     `json:"data"`
	Model  string          `json:"model"`
	Usage  embeddingsUsage `json:"usage"`
}

type embedding struct {
	Object    string         `json:"object"` // "embedding"
	Index     int            `json:"index"`
	Embedding jsontext.Value `json:"embedding"`
}

// embeddingsUsage has no completion tokens: nothing was completed.
type embeddingsUsage struct {
	PromptTokens int `json:"prompt_tokens"`
	TotalTokens  int `json:"total_tokens"`
}

// NewEmbeddings makes the answer of an embeddings job's whole output.
func NewEmbeddings(end *event.Completed, output []event.OutputChoice) *Embeddings {
	e := &Embeddings{Object: "list", Data: make([]embedding, 0, len(output)), Model: end.Model}
	for i := range output {
		if o := &output[i]; o.Embedding != nil {
			e.Data = append(e.Data, embedding{Object: "embedding", Index: o.Index, Embedding: o.Embedding})
		}
	}
	if end.Usage != nil {
		e.Usage = embeddingsUsage{PromptTokens: end.Usage.PromptTokens, TotalTokens: end.Usage.TotalTokens}
	}
	return e
}

// Model is a model as the API lists it.
type Model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`   // "model"
	Created int64  `json:"created"`  // 0: not known
	OwnedBy string `json:"owned_by"` // the provider's name
}

// NewModel makes a Model.
func NewModel(id, provider string) Model {
	return Model{ID: id, Object: "model", OwnedBy: provider}
}
