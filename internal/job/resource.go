package job

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
)

// Status is where a job stands.
type Status string

// The statuses, in the order in which a job may pass through them.
const (
	Queued    Status = "queued"
	Running   Status = "running"
	Completed Status = "completed"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
	Expired   Status = "expired"
)

// Statuses returns every status.
func Statuses() []Status { return []Status{Queued, Running, Completed, Failed, Cancelled, Expired} }

// Ended tells whether the status is final.
func (s Status) Ended() bool { return s != Queued && s != Running && s != "" }

// StatusOf is the status that a fact or an output event of this type stands for.
func StatusOf(t event.Type) Status {
	switch t {
	case event.JobRequested:
		return Queued
	case event.JobCompleted, event.OutputCompleted:
		return Completed
	case event.JobFailed, event.OutputFailed:
		return Failed
	case event.JobCancelled, event.OutputCancelled:
		return Cancelled
	case event.JobExpired:
		return Expired
	default:
		return Running
	}
}

// Position is where a job's request lies.
type Position struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Links are the paths of a job's other resources.
type Links struct {
	Self   string `json:"self"`
	Events string `json:"events"`
	Cancel string `json:"cancel"`
}

// LinksOf makes the links of a job.
func LinksOf(id string) Links {
	self := "/v1/jobs/" + id
	return Links{Self: self, Events: self + "/events", Cancel: self + "/cancel"}
}

// Time is a time as the API writes it: RFC 3339, UTC, milliseconds.
type Time struct{ time.Time }

// MarshalJSON implements json.Marshaler. Without it the embedded time's own
// would be found first, which keeps nanoseconds and zone.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(make([]byte, 0, len(event.TimeLayout)+2), `"`+event.TimeLayout+`"`), nil
}

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) {
	return t.UTC().AppendFormat(nil, event.TimeLayout), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Time) UnmarshalText(b []byte) error {
	got, err := time.Parse(time.RFC3339Nano, string(b))
	t.Time = got
	return err
}

// Resource is a job as the API shows it. The answer to a new job is the same,
// with a cursor from which its events can be read.
type Resource struct {
	Object       string               `json:"object"` // "job"
	ID           string               `json:"id"`
	Status       Status               `json:"status"`
	Lane         event.Lane           `json:"lane,omitzero"`
	Tenant       string               `json:"tenant,omitzero"`
	Conversation string               `json:"conversation,omitzero"`
	Batch        string               `json:"batch,omitzero"`
	Endpoint     string               `json:"endpoint,omitzero"`
	Model        string               `json:"model,omitzero"`
	Provider     string               `json:"provider,omitzero"`
	Attempt      int                  `json:"attempt,omitzero"`
	CreatedAt    Time                 `json:"created_at,omitzero"`
	StartedAt    Time                 `json:"started_at,omitzero"`
	EndedAt      Time                 `json:"ended_at,omitzero"`
	Deadline     Time                 `json:"deadline,omitzero"`
	CustomID     string               `json:"custom_id,omitzero"`
	Metadata     map[string]string    `json:"metadata,omitzero"`
	Output       []event.OutputChoice `json:"output,omitzero"`
	Usage        *event.Usage         `json:"usage,omitzero"`
	Error        *event.Failed        `json:"error,omitzero"`
	Cursor       string               `json:"cursor,omitzero"`
	Request      *Position            `json:"request,omitzero"`
	Links        Links                `json:"links"`
	// Replayed says, of the answer to a new job, that an earlier request with the
	// same key had made it, in whatever process. It is not written.
	Replayed bool `json:"-"`
}

// NewResource makes the resource of a request that lies at pos.
func NewResource(h *event.Head, r *event.Request, lane event.Lane, pos Position) *Resource {
	res := &Resource{
		Object: "job", ID: h.Job, Status: Queued, Lane: lane, Tenant: h.Tenant,
		Conversation: h.Conversation, Batch: h.Batch, Endpoint: r.Endpoint,
		CreatedAt: Time{h.Time}, Deadline: Time{r.Deadline}, CustomID: r.CustomID, Metadata: r.Metadata,
		Request: &pos, Links: LinksOf(h.Job),
	}
	res.Model = modelOf(r.Body)
	return res
}

func modelOf(body jsontext.Value) string {
	var b struct {
		Model string `json:"model"`
	}
	if err := event.DecodeData(body, &b); err != nil {
		return ""
	}
	return b.Model
}

// Tell adds what a transcript knows of the job.
func (r *Resource) Tell(t *Transcript) {
	if t.NextSeq == 0 {
		return
	}
	r.Status = StatusOf(t.End)
	r.Attempt = t.Attempt
	r.StartedAt = Time{t.StartedAt}
	r.EndedAt = Time{t.EndedAt}
	if t.Started.Provider != "" {
		r.Provider = t.Started.Provider
	}
	switch t.End {
	case event.OutputCompleted:
		r.Output, r.Usage = t.Output(), t.Completed.Usage
	case event.OutputFailed:
		r.Error = &t.Failed
		if FailureFact(&t.Failed) == event.JobExpired {
			r.Status = Expired
		}
	case event.OutputCancelled:
		if said := t.Output(); len(said) > 0 {
			r.Output = said
		}
	default: // it goes on, and there is no more to tell
	}
}
