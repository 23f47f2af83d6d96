package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/internal/fault"
)

// errorBody is the one shape of an error, OpenAI's.
type errorBody struct {
	Error errorObject `json:"error"`
}

type errorObject struct {
	Message string     `json:"message"`
	Type    string     `json:"type"`
	Param   *string    `json:"param"`
	Code    fault.Code `json:"code"`
}

// WriteError answers with an error in the one shape: status and type are the
// code's, whether and when a retry may help the fault's. What is not a
// fault.Error is answered as one of ours, and its text goes to the log alone.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	f := faultOf(ctx, err)
	kind := fault.KindOf(f.Code)
	if kind.Status >= http.StatusInternalServerError {
		level := slog.LevelWarn
		if f.Code == fault.Internal {
			level = slog.LevelError
		}
		Log(ctx).Log(ctx, level, "request failed", slog.String("code", string(f.Code)), slog.Any("error", err))
	}
	h := w.Header()
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10))
		h.Set("Retry-After-Ms", strconv.FormatInt(max(1, f.RetryAfter.Milliseconds()), 10))
	}
	h.Set("X-Should-Retry", strconv.FormatBool(f.Retryable())) // the OpenAI SDKs heed it
	WriteJSON(w, r, kind.Status, ErrorBody(f))
}

// ErrorBody is what the one shape of an error is written from, for streams that
// tell of one in-band.
func ErrorBody(f *fault.Error) any {
	body := errorBody{errorObject{Message: f.Message, Type: fault.KindOf(f.Code).Type, Code: f.Code}}
	if f.Param != "" {
		body.Error.Param = &f.Param
	}
	return body
}

// faultOf finds the fault in an error. A client that has left is no defect of
// ours, and nobody reads the answer.
func faultOf(ctx context.Context, err error) *fault.Error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return fault.Wrap(err, fault.Cancelled, "the client left before the answer")
	}
	return fault.From(err)
}
