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

// traceparentLength is that of version 00 of W3C Trace Context, in bytes.
const traceparentLength = 55

// ValidTraceparent tells whether s is a traceparent of W3C Trace Context,
// version 00, or of a later one that is written the same.
func ValidTraceparent(s string) bool {
	if len(s) != traceparentLength || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	for i := range len(s) {
		if i == 2 || i == 35 || i == 52 {
			continue
		}
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s[:2] != "ff" && strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}
