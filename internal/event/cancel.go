package event

import "github.com/go-json-experiment/json"

// cancelWire is a cancel as any producer may write it: only job is required,
// and null is as good as absent.
type cancelWire struct {
	headWire
	Data *struct{} `json:"data"`
}

// DecodeCancel reads a record of the control topic and validates it. What is
// absent takes its default: type, v, tenant, and the record's time for the
// event's. An *Invalid says why nobody's job is meant; ErrSkip, that it is of a
// kind that this build does not know.
func DecodeCancel(rec *Record) (Head, error) {
	var w cancelWire
	if err := json.Unmarshal(rec.Value, &w); err != nil {
		if v, verr := decodeView(rec.Value); verr == nil && unknownCancel(v.Type, v.V) {
			return v.Head(), ErrSkip // its other fields are another build's matter
		}
		return Head{}, describe(err)
	}
	h := w.head(JobCancelRequested, rec)
	if unknownCancel(h.Type, h.V) {
		return h, ErrSkip
	}
	return h, ValidateHead(&h)
}

func unknownCancel(t Type, v int) bool { return t != JobCancelRequested || v > Version }

// Cancelled is the data of job.cancelled: what had been said by then.
type Cancelled struct {
	Model  string         `json:"model,omitzero"`
	Output []OutputChoice `json:"output,omitempty"`
}

// Retrying is the data of job.retrying: why an attempt failed, and when the
// next one begins.
type Retrying struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	RetryAt string `json:"retry_at"` // in TimeLayout
}
