// Package fault holds the one kind of error that people outside see: a code to
// branch on, a sentence that says what was wrong and what would be right, and
// whether, and when, trying again may help.
//
// Every code stands in one table (Table), which the HTTP layer, the records on
// the topics and the documentation share.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Code names a fault. Codes are a promise: they are added, never renamed.
type Code string

// The codes that Penstock answers with.
const (
	InvalidRequest      Code = "invalid_request"      // a field is missing, unknown or out of range
	InvalidJSON         Code = "invalid_json"         // the body is not JSON
	InvalidCursor       Code = "invalid_cursor"       // not a cursor, or one of another topic
	TooLarge            Code = "request_too_large"    // the body is over the limit
	UnsupportedMedia    Code = "unsupported_media"    // not application/json
	NotFound            Code = "not_found"            // no such thing, or another tenant's
	MethodNotAllowed    Code = "method_not_allowed"   // the path exists, the method does not
	ModelNotFound       Code = "model_not_found"      // nobody serves the model
	IdempotencyMismatch Code = "idempotency_mismatch" // the key was used with another body
	DeadlineExceeded    Code = "deadline_exceeded"    // the request's own deadline passed
	Expired             Code = "expired"              // older than what the log still holds
	Overloaded          Code = "overloaded"           // admission refused it, or the gateway's bounds
	Unavailable         Code = "unavailable"          // Kafka or PostgreSQL is away
	UnknownOutcome      Code = "unknown_outcome"      // it may or may not have been accepted
	RateLimited         Code = "rate_limited"         // the provider refused for its rate limit
	ProviderError       Code = "provider_error"       // the provider failed
	ProviderTimeout     Code = "provider_timeout"     // the provider was silent for too long
	ProviderRejected    Code = "provider_rejected"    // the provider refused the request itself
	AttemptSuperseded   Code = "attempt_superseded"   // what was sent of an answer is void
	Cancelled           Code = "cancelled"            // somebody cancelled it
	Internal            Code = "internal_error"       // a defect of ours
)

// Kind says, for one code, how HTTP answers and whether a retry may help.
type Kind struct {
	Code    Code
	Status  int    // HTTP status
	Type    string // "type" of the error object, as the OpenAI API names it
	Retry   bool   // whether the same request may succeed later
	Meaning string
}

// Table returns every code that is documented, in a fixed order.
func Table() []Kind {
	const (
		invalid = "invalid_request_error"
		server  = "server_error"
		limit   = "rate_limit_error"
	)
	return []Kind{
		{InvalidRequest, 400, invalid, false, "a field is missing, unknown or out of range"},
		{InvalidJSON, 400, invalid, false, "the body is not JSON; the message has line and column"},
		{InvalidCursor, 400, invalid, false, "the cursor is not one, or belongs to another topic"},
		{NotFound, 404, invalid, false, "there is no such thing"},
		{ModelNotFound, 404, invalid, false, "nobody serves that model"},
		{MethodNotAllowed, 405, invalid, false, "the path does not take this method"},
		{TooLarge, 413, invalid, false, "the body is over the limit"},
		{UnsupportedMedia, 415, invalid, false, "the body must be application/json"},
		{IdempotencyMismatch, 422, invalid, false, "the idempotency key was used with another body"},
		{RateLimited, 429, limit, true, "the model's provider refused for its rate limit"},
		{Overloaded, 429, limit, true, "the lane is full, or you have as many connections as you may; come back after Retry-After"},
		{Cancelled, 499, invalid, false, "the job was cancelled"},
		{Internal, 500, server, false, "a defect of Penstock"},
		{ProviderError, 502, server, true, "the model's provider failed"},
		{ProviderRejected, 400, invalid, false, "the model's provider refused the request"},
		{AttemptSuperseded, 502, server, true, "what was sent of the answer is void: the model could not go on from there and began anew"},
		{UnknownOutcome, 503, server, true, "it may have been accepted; send it again with the same Idempotency-Key"},
		{Unavailable, 503, server, true, "Kafka or PostgreSQL is away"},
		{ProviderTimeout, 504, server, true, "the model's provider was silent for too long"},
		{DeadlineExceeded, 504, server, false, "the request's own deadline passed"},
		{Expired, 504, server, false, "the request is older than what the log still holds"},
	}
}

// KindOf returns the table's line for a code, and Internal's for one that the
// table does not hold.
func KindOf(code Code) Kind {
	internal := Kind{}
	for _, k := range Table() {
		if k.Code == code {
			return k
		}
		if k.Code == Internal {
			internal = k
		}
	}
	return internal
}

// Error is a fault with its sentence for a person.
type Error struct {
	Code       Code
	Message    string        // what was wrong and what would be right
	Param      string        // the field that was wrong, if one was
	RetryAfter time.Duration // how long to wait at least; 0: not known
	Final      bool          // the same request can never succeed, whatever is usual for the code
	Err        error         // the cause; never shown outside
}

// New makes an Error.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Param makes an InvalidRequest that names the field.
func Param(field, format string, args ...any) *Error {
	return &Error{Code: InvalidRequest, Param: field, Message: fmt.Sprintf(format, args...)}
}

// Wrap makes an Error with a cause.
func Wrap(err error, code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Err: err}
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err != nil {
		return string(e.Code) + ": " + e.Message + ": " + e.Err.Error()
	}
	return string(e.Code) + ": " + e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Retryable tells whether the same request may succeed later.
func (e *Error) Retryable() bool { return !e.Final && KindOf(e.Code).Retry }

// From finds the Error in err's chain, and makes an Internal one where there is none.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return Wrap(err, Internal, "something went wrong on our side; the log has the details under this request's id")
}
