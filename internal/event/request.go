package event

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// DefaultEndpoint is the endpoint of a request that names none.
const DefaultEndpoint = "/v1/chat/completions"

// Limits of a request. Lengths are in bytes, unless said otherwise.
const (
	MaxIDLength      = 128
	MaxTenantLength  = 63
	MaxModelLength   = 256
	MaxMetadataPairs = 16
	MaxMetadataKey   = 64  // characters
	MaxMetadataValue = 512 // characters
	MaxCustomID      = 512 // characters
)

// ErrSkip is what DecodeRequest gives for a record that is an event, but of a
// type or version that this build does not know: it is skipped and counted.
var ErrSkip = errors.New("an event that this build does not know")

// Invalid says which field of a request is wrong, and what would be right.
type Invalid struct {
	Field  string // a path such as "data.body.model"; "" for the value itself
	Reason string
}

// Error implements error.
func (e *Invalid) Error() string {
	if e.Field == "" {
		return e.Reason
	}
	return e.Field + ": " + e.Reason
}

func invalid(field, format string, args ...any) error {
	return &Invalid{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// requestWire is a request as any producer may write it: only job and
// data.body are required.
type requestWire struct {
	Type         *string   `json:"type"`
	V            *int      `json:"v"`
	Time         time.Time `json:"time"`
	Tenant       *string   `json:"tenant"`
	Job          string    `json:"job"`
	Conversation *string   `json:"conversation"`
	Batch        *string   `json:"batch"`
	Data         *Request  `json:"data"`
}

// DecodeRequest reads a record of a request topic and validates it. What is
// absent takes its default: type, tenant, endpoint, and the record's time for
// the event's. An *Invalid says why the record can never be run; ErrSkip, that
// it is of a kind that this build does not know.
func DecodeRequest(rec *Record) (Head, Request, error) {
	var w requestWire
	if err := json.Unmarshal(rec.Value, &w); err != nil {
		if v, verr := ScanHead(rec.Value); verr == nil && unknown(v.Type, v.V) {
			return Head{}, Request{}, ErrSkip // whatever its other fields are
		}
		return Head{}, Request{}, &Invalid{Reason: describe(err).Error()}
	}
	h := Head{
		Type: JobRequested, V: Version, Time: w.Time, Tenant: DefaultTenant, Job: w.Job,
		Conversation: text(w.Conversation), Batch: text(w.Batch),
	}
	if w.Type != nil {
		h.Type = Type(*w.Type)
	}
	if w.V != nil {
		h.V = *w.V
	}
	if unknown(h.Type, h.V) {
		return h, Request{}, ErrSkip
	}
	if w.Tenant != nil {
		h.Tenant = *w.Tenant
	}
	if h.Time.IsZero() {
		h.Time = rec.Time
	}
	if w.Data == nil {
		return h, Request{}, invalid("data", "it is missing: it must hold the model request as data.body")
	}
	if err := ValidateHead(&h); err != nil {
		return h, *w.Data, err
	}
	if err := w.Data.Validate(); err != nil {
		return h, *w.Data, err
	}
	if w.Data.Endpoint == "" {
		w.Data.Endpoint = DefaultEndpoint
	}
	return h, *w.Data, nil
}

func unknown(t Type, v int) bool { return t != JobRequested || v > Version }

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ValidateHead checks what a producer chooses in a request's head.
func ValidateHead(h *Head) error {
	if h.V < 1 {
		return invalid("v", "%d is no version: it must be 1", h.V)
	}
	if !validTenant(h.Tenant) {
		return invalid("tenant", "%.80q is no tenant: it must be 1 to %d of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
			h.Tenant, MaxTenantLength)
	}
	if h.Job == "" {
		return invalid("job", "it is missing: a job needs an id that is unique in its tenant")
	}
	if !ValidID(h.Job) {
		return invalid("job", "%.140q is no job id: %s", h.Job, idRule)
	}
	if h.Conversation != "" && !ValidID(h.Conversation) {
		return invalid("conversation", "%.140q is no conversation id: %s", h.Conversation, idRule)
	}
	if h.Batch != "" && !ValidID(h.Batch) {
		return invalid("batch", "%.140q is no batch id: %s", h.Batch, idRule)
	}
	return nil
}

const idRule = "it must be 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':' and '-', beginning with a letter or digit"

// ValidID tells whether s can be the id of a job, a conversation or a batch:
// [A-Za-z0-9][A-Za-z0-9._:-]{0,127}.
func ValidID(s string) bool {
	if s == "" || len(s) > MaxIDLength || !alphanumeric(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !alphanumeric(c) && c != '.' && c != '_' && c != ':' && c != '-' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func validTenant(s string) bool {
	if s == "" || len(s) > MaxTenantLength || s != strings.ToLower(s) || !alphanumeric(s[0]) {
		return false
	}
	return ValidID(s) && !strings.Contains(s, ":")
}

// Validate checks what a producer chooses in a request's data.
func (r *Request) Validate() error {
	if r.Endpoint != "" && r.Endpoint != DefaultEndpoint {
		return invalid("data.endpoint", "%.80q is not served: it must be %s", r.Endpoint, DefaultEndpoint)
	}
	if utf8.RuneCountInString(r.CustomID) > MaxCustomID {
		return invalid("data.custom_id", "it has more than %d characters", MaxCustomID)
	}
	if len(r.Metadata) > MaxMetadataPairs {
		return invalid("data.metadata", "it has %d pairs: %d at most", len(r.Metadata), MaxMetadataPairs)
	}
	for k, v := range r.Metadata {
		if utf8.RuneCountInString(k) > MaxMetadataKey {
			return invalid("data.metadata", "the key %.80q has more than %d characters", k, MaxMetadataKey)
		}
		if utf8.RuneCountInString(v) > MaxMetadataValue {
			return invalid("data.metadata."+k, "the value has more than %d characters", MaxMetadataValue)
		}
	}
	return validateBody(r.Body)
}

// validateBody wants an object with a model; the rest is the provider's matter.
func validateBody(body jsontext.Value) error {
	switch body.Kind() {
	case '{':
	case 0:
		return invalid("data.body", "it is missing: it must be the model request, a JSON object")
	default:
		return invalid("data.body", "a JSON %s: it must be the model request, a JSON object", kindName(body.Kind()))
	}
	var b struct {
		Model *string `json:"model"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return invalid("data.body", "%v", describe(err))
	}
	if b.Model == nil || *b.Model == "" {
		return invalid("data.body.model", "it is missing: it must name a model, such as %q", "sim")
	}
	if len(*b.Model) > MaxModelLength {
		return invalid("data.body.model", "it has more than %d bytes", MaxModelLength)
	}
	return nil
}
