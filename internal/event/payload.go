package event

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Request is the data of job.requested.
type Request struct {
	Endpoint string            `json:"endpoint,omitzero"` // "" means DefaultEndpoint
	Body     jsontext.Value    `json:"body"`              // the model request, as the client sent it
	Deadline time.Time         `json:"deadline,omitzero"` // zero: none
	CustomID string            `json:"custom_id,omitzero"`
	Stream   *bool             `json:"stream,omitzero"` // nil means true: deltas are written; false: its end alone is
	Metadata map[string]string `json:"metadata,omitzero"`
	// Repeat says that the same job may have been written before by a producer
	// that did not learn what became of it.
	Repeat bool `json:"repeat,omitzero"`

	Model string `json:"-"` // the body's, as Validate and DecodeRequest read it
}

// Streams tells whether the job's deltas are to be written.
func (r *Request) Streams() bool { return r.Stream == nil || *r.Stream }

// Claim is the data of lane.claimed.
type Claim struct {
	Owner     string `json:"owner"`     // the claimant, for people
	Bound     int64  `json:"bound"`     // offset on tokens at which a restore may begin
	Watermark int64  `json:"watermark"` // offset on requests below which all is done
}

// Started is the data of output.started and of job.started.
type Started struct {
	Model    string `json:"model"`
	Provider string `json:"provider"`
}

// Delta is the data of output.delta: a Chat Completions choice delta, or of an
// embeddings job the vector of one input.
type Delta struct {
	Index     int            `json:"index"`
	Content   string         `json:"content,omitzero"`
	Reasoning string         `json:"reasoning,omitzero"`
	Refusal   string         `json:"refusal,omitzero"`
	ToolCalls jsontext.Value `json:"tool_calls,omitzero"`
	Logprobs  jsontext.Value `json:"logprobs,omitzero"`
	Embedding jsontext.Value `json:"embedding,omitzero"` // of input number Index: an array of numbers, or base64
}

// ToolResult is the data of output.tool_result.
type ToolResult struct {
	CallID  string `json:"call_id"`
	Content string `json:"content"`
	IsError bool   `json:"is_error"`
}

// Superseded is the data of output.superseded: what the earlier attempt said
// is void, and a client clears what it showed.
type Superseded struct {
	Reason string `json:"reason"`
}

// Choice is how one choice ended.
type Choice struct {
	Index        int    `json:"index"`
	FinishReason string `json:"finish_reason"`
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

// Completed is the data of output.completed.
type Completed struct {
	Model   string   `json:"model"`
	Choices []Choice `json:"choices"`
	Usage   *Usage   `json:"usage,omitzero"`
	// Deltas are what was said and stands in no output.delta of its own, in
	// order: of a job that nobody watches, usually all of it.
	Deltas []Delta `json:"deltas,omitzero"`
}

// Stopped is the data of output.cancelled.
type Stopped struct {
	Deltas []Delta `json:"deltas,omitzero"` // as Completed.Deltas
}

// Failed is the data of output.failed, job.failed and job.expired.
type Failed struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
}

// Message is a whole answer of one choice, as Chat Completions writes it.
type Message struct {
	Role      string         `json:"role"`
	Content   string         `json:"content"`
	Reasoning string         `json:"reasoning,omitzero"`
	Refusal   string         `json:"refusal,omitzero"`
	ToolCalls jsontext.Value `json:"tool_calls,omitzero"`
}

// OutputChoice is one choice of a whole output, or of an embeddings job the
// vector of one input.
type OutputChoice struct {
	Index        int            `json:"index"`
	Message      Message        `json:"message,omitzero"` // absent where there is an embedding
	FinishReason string         `json:"finish_reason,omitzero"`
	Logprobs     jsontext.Value `json:"logprobs,omitzero"`
	Embedding    jsontext.Value `json:"embedding,omitzero"`
}

// Fact is the data of job.completed: the whole output.
type Fact struct {
	Model  string         `json:"model"`
	Output []OutputChoice `json:"output"`
	Usage  *Usage         `json:"usage,omitzero"`
}

// Pulse is the data of lane.pulse: what an owner says of a lane's partition,
// four times a second.
type Pulse struct {
	Partition int32   `json:"partition"`
	Owner     string  `json:"owner"`
	Member    string  `json:"member"`    // the group member id, for eviction
	Bound     int64   `json:"bound"`     // as Claim.Bound
	Watermark int64   `json:"watermark"` // as Claim.Watermark
	Consumed  int64   `json:"consumed"`  // requests below this offset were taken in
	InFlight  int     `json:"in_flight"` // taken in and not done
	Running   int     `json:"running"`   // of those: begun
	Waiting   int     `json:"waiting"`   // of those: could begin, and find no free call
	Rate      float64 `json:"rate"`      // jobs done per second, measured
	Breaker   string  `json:"breaker"`   // "closed" or "open"
	Released  bool    `json:"released"`  // the owner has let go: no lease needs to be waited out
}

// DecodePulse reads a record of the pulse topic: which lane it is about, the
// owner's epoch, and what it says. What is no pulse of this version is not ok.
func DecodePulse(value []byte) (lane Lane, epoch int64, p Pulse, ok bool) {
	v, err := ScanHead(value)
	if err != nil || v.Type != LanePulse || v.Lane == NoLane || DecodeData(v.Data, &p) != nil {
		return NoLane, 0, Pulse{}, false
	}
	return v.Lane, v.Epoch, p, true
}

// DecodeData reads an event's data into payload. Unknown fields are ignored.
func DecodeData(data []byte, payload any) error {
	if err := json.Unmarshal(data, payload); err != nil {
		return fmt.Errorf("data: %w", describe(err))
	}
	return nil
}
