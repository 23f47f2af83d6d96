// Package llm is what Penstock needs of a model's provider: to start a request
// and to read its answer as a stream of choice deltas. A provider that can go
// on from a prefix says so by implementing Continuer.
//
// Providers do not retry and keep no state between calls: retries have one
// owner, the processors. A provider's errors are *fault.Error values.
package llm

import (
	"context"
	"iter"

	"github.com/go-json-experiment/json/jsontext"
)

// Request is one call of a model.
type Request struct {
	Job      string // the job's id, for logs and the provider's own tracing
	Attempt  int    // which attempt of the job this is, from 1; 0: not known
	Endpoint string // such as "/v1/chat/completions"
	Model    string // as the provider knows it, its prefix taken off
	Body     []byte // the client's JSON body as it came, never nil
}

// Chunk is one piece of an answer: a Chat Completions choice delta, and what
// comes with its end. Empty fields were absent.
type Chunk struct {
	Index        int            // which choice
	Content      string         // visible text
	Reasoning    string         // thinking, where the model shows it
	Refusal      string         // a refusal's text
	ToolCalls    jsontext.Value // the delta's tool_calls array, as it came
	Logprobs     jsontext.Value // the choice's logprobs object, as it came
	Embedding    jsontext.Value // of /v1/embeddings: the vector of input number Index, as it came
	FinishReason string         // set on the last chunk of a choice
	Usage        *Usage         // set once, with or after the last chunk
}

// Usage counts tokens as the provider bills them. The details are the
// provider's own objects, as they came.
type Usage struct {
	PromptTokens            int            `json:"prompt_tokens"`
	CompletionTokens        int            `json:"completion_tokens"`
	TotalTokens             int            `json:"total_tokens"`
	PromptTokensDetails     jsontext.Value `json:"prompt_tokens_details,omitzero"`
	CompletionTokensDetails jsontext.Value `json:"completion_tokens_details,omitzero"`
}

// Provider calls models.
type Provider interface {
	// Name is the provider's prefix in "provider/model", such as "openai" or "sim".
	Name() string
	// Stream calls the model, anew for each range over the sequence. It ends
	// after the last chunk, or with one error, which is a *fault.Error or
	// ctx's; the chunk beside an error is empty. Breaking off the iteration or
	// cancelling ctx ends the call at once and frees what it held. It may be
	// called from several goroutines at a time.
	Stream(ctx context.Context, req Request) iter.Seq2[Chunk, error]
}

// Prefix is what a model has already said of an answer.
type Prefix struct {
	Content   string // text of choice 0
	Reasoning string
	Chunks    int // deltas that were written; a hint, coalescing makes it smaller than the tokens
}

// Continuer is a Provider that can go on from a prefix.
type Continuer interface {
	Provider
	// CanContinue tells whether this request's answer can be continued from
	// the prefix (one choice, no tool call begun, a model that allows it).
	CanContinue(req Request, prefix Prefix) bool
	// Continue is Stream from the prefix on: it yields only what follows it,
	// and the finish reason and usage even where no text is left. It may be
	// called only where CanContinue says yes.
	Continue(ctx context.Context, req Request, prefix Prefix) iter.Seq2[Chunk, error]
}

// Checker is a Provider that can be asked whether it answers, without a paid call.
type Checker interface {
	// Check gives a *fault.Error: ProviderRejected where the key is refused.
	Check(ctx context.Context) error
}
