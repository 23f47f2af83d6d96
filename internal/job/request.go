package job

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
)

// Request is what a client asks for, whatever surface it came by.
type Request struct {
	Lane         event.Lane // NoLane is Standard
	Conversation string     // "" for none
	Endpoint     string     // "" is event.DefaultEndpoint
	Body         jsontext.Value
	Deadline     time.Time // zero: none
	Unwatched    bool      // nobody will watch it: no deltas are written
	Metadata     map[string]string
}

// SubmitOptions are what comes beside a Request.
type SubmitOptions struct {
	// IdempotencyKey makes the same request the same job for 24 hours; "" for none.
	IdempotencyKey string
	// Fingerprint is what a key's requests are compared by: the bytes as the
	// client sent them. Nil takes the request's own content.
	Fingerprint []byte
	Traceparent string // passed through where it is a valid W3C one
}
