package event

import (
	"strconv"
)

// CloudEvents 1.0 in Kafka's binary mode: the attributes are headers with the
// prefix "ce_" (CloudEvents, Kafka Protocol Binding 1.0.2, section 3.2).
const (
	ceTypePrefix = "io.penstock."
	ceSource     = "/penstock"
	contentType  = "application/json"
)

// CloudEvents returns the headers of an event on requests, control or jobs.
// id must be the same whenever the same event is written again.
func CloudEvents(h *Head, id, traceparent string) []Header {
	const fixed = len("1.0") + len(ceTypePrefix) + len(ceSource) + len(TimeLayout) + len(contentType)
	all := make([]byte, 0, fixed+len(h.Type)+len(id)+len(traceparent)) // one allocation for all values
	value := func(parts ...string) []byte {
		from := len(all)
		for _, s := range parts {
			all = append(all, s...)
		}
		return all[from:len(all):len(all)]
	}
	headers := make([]Header, 0, 7)
	headers = append(headers,
		Header{"ce_specversion", value("1.0")},
		Header{"ce_type", value(ceTypePrefix, string(h.Type))},
		Header{"ce_source", value(ceSource)},
		Header{"ce_id", value(id)},
	)
	from := len(all)
	all = appendTime(all, h.Time)
	headers = append(headers, Header{"ce_time", all[from:len(all):len(all)]}, Header{"content-type", value(contentType)})
	if traceparent != "" {
		headers = append(headers, Header{"traceparent", value(traceparent)})
	}
	return headers
}

// FactID is the deterministic ce_id of a fact: whoever writes it again writes
// the same. A job ends once, but may be started and retried once an attempt.
func FactID(h *Head) string {
	id := h.Tenant + "/" + h.Job + "/" + string(h.Type)
	if h.Type.form() == formFact && !h.Type.Terminal() {
		id += "/" + strconv.Itoa(h.Attempt)
	}
	return id
}
