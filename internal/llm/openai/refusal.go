package openai

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

const (
	maxShown      = 1 << 10        // bytes of a server's message
	maxRetryAfter = 24 * time.Hour // that a server is believed
)

// unreachable is a call that got no answer. The address is not told: whoever
// reads the message need not know where the operator's servers are.
func (p *Provider) unreachable(err error) error {
	if timedOut(err) {
		return fault.Wrap(err, fault.ProviderTimeout, "%s did not answer in time", p.name)
	}
	why := ""
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		why = ": " + errno.Error()
	} else if _, ok := errors.AsType[*net.DNSError](err); ok {
		why = ": its host name is not known"
	}
	return fault.Wrap(err, fault.ProviderError, "%s could not be reached%s", p.name, why)
}

func timedOut(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// refusal is the fault of an answer that is no 200.
func (p *Provider) refusal(res *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes)) // what there is of it
	var shape struct {
		Error jsontext.Value `json:"error"`
	}
	if json.Unmarshal(body, &shape, lenient()) == nil && !absent(shape.Error) {
		body = shape.Error
	}
	f := refused(p.name, res.StatusCode, read(body).message)
	f.RetryAfter = retryAfter(res.Header)
	return f
}

// reported is the fault of an error object in the middle of a stream.
func reported(provider string, raw []byte) error {
	e := read(raw)
	if status, err := strconv.Atoi(e.code); err == nil && status >= 400 && status <= 599 {
		return refused(provider, status, e.message)
	}
	code := fault.ProviderError
	switch {
	case strings.Contains(e.code, "rate_limit"), strings.Contains(e.kind, "rate_limit"), e.code == "insufficient_quota":
		code = fault.RateLimited
	case e.kind == "invalid_request_error":
		code = fault.ProviderRejected
	}
	return fault.New(code, "%s failed in the middle of its answer%s", provider, behind(e.message))
}

func refused(provider string, status int, message string) *fault.Error {
	if status == http.StatusUnauthorized {
		// Its message shows parts of the key, and is the operator's matter.
		return fault.New(llm.CodeForStatus(status), "%s does not take the key that it is called with (status 401): the operator has to set the right one", provider)
	}
	return fault.New(llm.CodeForStatus(status), "%s answered with status %d%s", provider, status, behind(message))
}

// behind is a message as the end of a sentence.
func behind(message string) string {
	if message == "" {
		return ""
	}
	if len(message) > maxShown {
		message = message[:maxShown] + "…"
	}
	return ": " + strings.ToValidUTF8(message, "")
}

// said is what servers put into an error object.
type said struct{ message, kind, code string }

// read reads an error object in any of the shapes that servers give it: a
// string, OpenAI's object, FastAPI's detail. What is none of them says nothing.
func read(raw []byte) said {
	var fields struct {
		Message jsontext.Value `json:"message"`
		Detail  jsontext.Value `json:"detail"`
		Type    jsontext.Value `json:"type"`
		Code    jsontext.Value `json:"code"`
	}
	if v := jsontext.Value(raw); v.Kind() == jsontext.KindString {
		return said{message: text(v)}
	}
	if json.Unmarshal(raw, &fields, lenient()) != nil {
		return said{}
	}
	s := said{message: text(fields.Message), kind: text(fields.Type), code: text(fields.Code)}
	if s.message == "" {
		s.message = text(fields.Detail)
	}
	if fields.Code.Kind() == jsontext.KindNumber {
		s.code = string(fields.Code)
	}
	return s
}

func lenient() json.Options {
	return json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// retryAfter is how long a server asks to be left alone: in milliseconds, in
// seconds, or until a date by its own clock.
func retryAfter(h http.Header) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil {
		return wait(ms / 1000)
	}
	after := h.Get("Retry-After")
	if s, err := strconv.ParseFloat(after, 64); err == nil {
		return wait(s)
	}
	until, err := http.ParseTime(after)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return wait(until.Sub(now).Seconds())
}

func wait(seconds float64) time.Duration {
	if seconds > 0 { // which not-a-number is not
		return time.Duration(min(seconds, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	return 0
}
