package event

import (
	"strconv"
	"strings"
)

// CloudEvents 1.0 in Kafka's binary mode: the attributes are headers with the
// prefix "ce_" (CloudEvents, Kafka Protocol Binding 1.0.2, section 3.2).
const (
	ceTypePrefix = "io.penstock."
	ceSource     = "/penstock"
)

// CloudEvents returns the headers of an event on requests, control or jobs.
// id must be the same whenever the same event is written again.
func CloudEvents(h *Head, id, traceparent string) []Header {
	headers := []Header{
		{"ce_specversion", []byte("1.0")},
		{"ce_type", []byte(ceTypePrefix + string(h.Type))},
		{"ce_source", []byte(ceSource)},
		{"ce_id", []byte(id)},
		{"ce_time", appendTime(nil, h.Time)},
		{"content-type", []byte("application/json")},
	}
	if traceparent != "" {
		headers = append(headers, Header{"traceparent", []byte(traceparent)})
	}
	return headers
}

// FactID is the deterministic ce_id of a fact: whoever writes it again writes
// the same. A job ends once, but may be started and retried once an attempt.
func FactID(h *Head) string {
	var b strings.Builder
	b.WriteString(h.Tenant)
	b.WriteByte('/')
	b.WriteString(h.Job)
	b.WriteByte('/')
	b.WriteString(string(h.Type))
	if h.Type.form() == formFact && !h.Type.Terminal() {
		b.WriteByte('/')
		b.WriteString(strconv.Itoa(h.Attempt))
	}
	return b.String()
}
