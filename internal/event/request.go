package event

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The endpoints of a request: the form of its body, and of its output.
const (
	// DefaultEndpoint is the endpoint of a request that names none.
	DefaultEndpoint = "/v1/chat/completions"
	// EmbeddingsEndpoint has no choices but a vector for each input.
	EmbeddingsEndpoint = "/v1/embeddings"
)

// Limits of a request. Lengths are in bytes, unless said otherwise.
const (
	MaxIDLength      = 128
	MaxTenantLength  = 63
	MaxModelLength   = 256 // characters
	MaxMetadataPairs = 16
	MaxBodyDepth     = 1000 // objects and arrays within each other
	MaxMetadataKey   = 64   // characters
	MaxMetadataValue = 512  // characters
	MaxCustomID      = 512  // characters
)

// ErrSkip is what DecodeRequest gives for a record that is an event, but of a
// type or version that this build does not know: it is skipped and counted.
var ErrSkip = errors.New("an event that this build does not know")

// Invalid says which field of a request is wrong, and what would be right.
type Invalid struct { //nolint:errname // event.Invalid says it; event.InvalidError would say error twice
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

// InvalidPart names what is wrong of a request that DecodeRequest refused, for
// counting: "value" where it is no JSON object, else one of the fields type, v,
// time, tenant, job, conversation, batch, data, data.endpoint, data.body,
// data.deadline, data.custom_id, data.stream, data.metadata and data.repeat, and
// "other" for what is none of them.
func InvalidPart(err error) string {
	e, ok := errors.AsType[*Invalid](err)
	if !ok {
		return "other"
	}
	if e.Field == "" {
		return "value"
	}
	part, rest, _ := strings.Cut(e.Field, ".")
	if part == "data" && rest != "" {
		sub, _, _ := strings.Cut(rest, ".")
		part += "." + sub
	}
	switch part {
	case "type", "v", "time", "tenant", "job", "conversation", "batch", "data", "data.endpoint", "data.body",
		"data.deadline", "data.custom_id", "data.stream", "data.metadata", "data.repeat":
		return part
	default:
		return "other"
	}
}

func invalid(field, format string, args ...any) error {
	return &Invalid{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// requestWire is a request as any producer may write it: only job and
// data.body are required, and null is as good as absent.
type requestWire struct {
	headWire
	Data *dataWire `json:"data"`
}

// headWire is the head of an event that any producer may write.
type headWire struct {
	Type         *string `json:"type"`
	V            *whole  `json:"v"`
	Time         moment  `json:"time"`
	Tenant       *string `json:"tenant"`
	Job          string  `json:"job"`
	Conversation string  `json:"conversation"`
	Batch        string  `json:"batch"`
}

// head is the head with its defaults: the type of the topic's own events, this
// version, the tenant of those that name none, and the record's time.
func (w *headWire) head(t Type, rec *Record) Head {
	h := Head{
		Type: t, V: Version, Time: w.Time.Time, Tenant: DefaultTenant, Job: w.Job,
		Conversation: w.Conversation, Batch: w.Batch,
	}
	if w.Type != nil {
		h.Type = Type(*w.Type)
	}
	if w.V != nil {
		h.V = int(*w.V)
	}
	if w.Tenant != nil {
		h.Tenant = *w.Tenant
	}
	if h.Time.IsZero() {
		h.Time = rec.Time
	}
	return h
}

// dataWire is a Request as any producer may write it.
type dataWire struct {
	Endpoint string            `json:"endpoint"`
	Body     jsontext.Value    `json:"body"`
	Deadline moment            `json:"deadline"`
	CustomID string            `json:"custom_id"`
	Stream   *bool             `json:"stream"`
	Metadata map[string]string `json:"metadata"`
	Repeat   bool              `json:"repeat"`
}

// DecodeRequest reads a record of a request topic and validates it. What is
// absent takes its default: type, v, tenant, endpoint, and the record's time
// for the event's. An *Invalid says why the record can never be run; ErrSkip,
// that it is of a kind that this build does not know. Whatever the error, what
// was understood of the head is returned.
func DecodeRequest(rec *Record) (Head, Request, error) {
	if rec.Defect != "" {
		return Head{}, Request{}, invalid("", "%s", rec.Defect)
	}
	if h, r, ok := readWritten(rec.Value); ok {
		return h, r, nil
	}
	var w requestWire
	if err := json.Unmarshal(rec.Value, &w); err != nil {
		if v, verr := decodeView(rec.Value); verr == nil && unknown(v.Type, v.V) {
			return v.Head(), Request{}, ErrSkip // its other fields are another build's matter
		}
		return Head{}, Request{}, describe(err)
	}
	h := w.head(JobRequested, rec)
	if unknown(h.Type, h.V) {
		return h, Request{}, ErrSkip
	}
	if w.Data == nil {
		return h, Request{}, invalid("data", "it is missing: it must hold the model request as data.body")
	}
	r := w.Data.request()
	if err := ValidateHead(&h); err != nil {
		return h, r, err
	}
	if err := r.validate(); err != nil {
		return h, r, err
	}
	if r.Endpoint == "" {
		r.Endpoint = DefaultEndpoint
	}
	return h, r, nil
}

func (w *dataWire) request() Request {
	return Request{
		Endpoint: w.Endpoint, Body: w.Body, Deadline: w.Deadline.Time,
		CustomID: w.CustomID, Stream: w.Stream, Metadata: w.Metadata, Repeat: w.Repeat,
	}
}

// readWritten reads a valid request that is written as Append writes it, of which
// its data alone are decoded. Of any other it says no, and DecodeRequest says
// what it is.
func readWritten(value []byte) (h Head, r Request, ok bool) {
	var v View
	if !v.scan(value) || v.Type != JobRequested || v.V != Version || len(v.Tenant) == 0 {
		return h, r, false
	}
	if t := v.Time; len(t) != len(TimeLayout) || t[19] != '.' || t[23] != 'Z' {
		return h, r, false
	}
	h = v.Head()
	var w dataWire
	if !validYear(h.Time) || ValidateHead(&h) != nil || json.Unmarshal(v.Data, &w) != nil {
		return h, r, false
	}
	r = w.request()
	if r.Endpoint == "" {
		r.Endpoint = DefaultEndpoint
	}
	h.Attempt, h.Seq, h.Lane, h.Epoch = 0, 0, NoLane, 0 // which a request does not have
	return h, r, r.validate() == nil
}

func unknown(t Type, v int) bool { return t != JobRequested || v > Version }

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
	if prefix := reservedPrefix(h.Job); prefix != "" && !minted(h.Job) {
		return invalid("job", "%.140q is no job id: ids that begin with %s are minted by Penstock, so it must begin otherwise", h.Job, prefix)
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

const mintedPrefix = "job_"

// reservedPrefix returns the prefix of s that is kept for ids of our making.
func reservedPrefix(s string) string {
	for _, p := range [...]string{mintedPrefix, "resp_", "chatcmpl-", "batch_", "file_"} {
		if strings.HasPrefix(s, p) {
			return p
		}
	}
	return ""
}

// minted tells whether s has the shape of an id of our making: job_ and 32 of
// Crockford's base32 in lower case, which has no i, l, o and u.
func minted(s string) bool {
	rest, ok := strings.CutPrefix(s, mintedPrefix)
	if !ok || len(rest) != 32 {
		return false
	}
	for i := range len(rest) {
		if c := rest[i]; strings.IndexByte("0123456789abcdefghjkmnpqrstvwxyz", c) < 0 {
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

// Validate checks what a producer chooses in a request's data, and reads Model.
func (r *Request) Validate() error {
	if err := json.Unmarshal(r.Body, &jsontext.Value{}); len(r.Body) > 0 && err != nil {
		wrong := describe(err)
		return invalid(strings.TrimSuffix("data.body."+wrong.Field, "."), "%s", wrong.Reason)
	}
	return r.validate()
}

// validate is Validate of a request whose body is known to be JSON, or absent.
func (r *Request) validate() (err error) {
	if r.Endpoint != "" && r.Endpoint != DefaultEndpoint && r.Endpoint != EmbeddingsEndpoint {
		return invalid("data.endpoint", "%.80q is not served: it must be %s or %s", r.Endpoint, DefaultEndpoint, EmbeddingsEndpoint)
	}
	if !r.Deadline.IsZero() && !validYear(r.Deadline) {
		return invalid("data.deadline", "%s is out of range: %s", r.Deadline.Format(time.RFC3339), timeRule)
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
	r.Model, err = modelOf(r.Body)
	return err
}

// modelOf reads the model of a body that is JSON, or absent: it must be an object
// that names one. The rest is the provider's matter.
func modelOf(body jsontext.Value) (string, error) {
	switch body.Kind() {
	case '{':
	case 0:
		return "", invalid("data.body", "it is missing: it must be the model request, an object")
	default:
		return "", invalid("data.body", "a JSON %s: it must be the model request, an object", kindName(body.Kind()))
	}
	value, deepest := survey(body)
	if deepest > MaxBodyDepth {
		return "", invalid("data.body", "its objects and arrays lie within each other more than %d deep", MaxBodyDepth)
	}
	var model string
	switch value.Kind() {
	case '"':
		unquoted, _ := jsontext.AppendUnquote(nil, value[:stringEnd(value, 0)+1])
		model = string(unquoted)
	case 0, 'n':
	default:
		return "", invalid("data.body.model", "a JSON %s: it must be a string", kindName(value.Kind()))
	}
	if model == "" {
		return "", invalid("data.body.model", "it is missing: it must name a model, such as %q", "sim")
	}
	if utf8.RuneCountInString(model) > MaxModelLength {
		return "", invalid("data.body.model", "it has more than %d characters", MaxModelLength)
	}
	return model, nil
}

// survey finds the value of a valid JSON object's member "model", with all that
// follows it (nil: it has none), and how many objects and arrays lie within each
// other. A decoder's own limit of those counts from where it begins, so it is
// another for whoever reads the body alone than for whoever reads it within a
// record.
func survey(object []byte) (model jsontext.Value, deepest int) {
	now := 0
	for i := 0; i < len(object); i++ {
		switch object[i] {
		case '{', '[':
			now++
			deepest = max(deepest, now)
		case '}', ']':
			now--
		case '"':
			end := stringEnd(object, i)
			if rest := bytes.TrimLeft(object[end+1:], " \t\r\n"); now == 1 && rest[0] == ':' && isModel(object[i:end+1]) {
				model = rest[1:]
			}
			i = end
		}
	}
	return bytes.TrimLeft(model, " \t\r\n"), deepest
}

func isModel(name jsontext.Value) bool {
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, name)
		return string(name) == "model"
	}
	return string(name) == `"model"`
}
