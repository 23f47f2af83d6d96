package wire

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
	maxCode       = 64             // bytes of a server's code, or of a field that it names
	maxRetryAfter = 24 * time.Hour // that a server is believed
)

// unreachable is a call that got no answer. The address is not told: whoever
// reads the message need not know where the operator's servers are.
func unreachable(provider string, err error) error {
	if TimedOut(err) {
		return fault.Wrap(err, fault.ProviderTimeout, "%s did not answer in time", provider)
	}
	why := ""
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		why = ": " + errno.Error()
	} else if _, ok := errors.AsType[*net.DNSError](err); ok {
		why = ": its host name is not known"
	}
	return fault.Wrap(err, fault.ProviderError, "%s could not be reached%s", provider, why)
}

// TimedOut tells whether err is a limit of time, of the network's own.
func TimedOut(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// BrokenOff is the fault of an answer that was not whole when reading it ended
// with err. Heard tells whether any of it was understood.
func BrokenOff(provider string, res http.Header, heard bool, err error) error {
	switch {
	case errors.Is(err, ErrTooLarge):
		return fault.New(fault.ProviderError, "%s sent an event of more than %d bytes", provider, MaxEventBytes)
	case TimedOut(err):
		return fault.Wrap(err, fault.ProviderTimeout, "%s was silent for too long", provider)
	case !heard && errors.Is(err, io.EOF):
		return fault.New(fault.ProviderError, "%s answered with %.80q in place of a stream of events", provider, res.Get("Content-Type"))
	}
	return fault.Wrap(err, fault.ProviderError, "%s broke off in the middle of its answer", provider)
}

// refusal is the fault of an answer that is no 200.
func refusal(provider string, res *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes)) // what there is of it
	var shape struct {
		Error jsontext.Value `json:"error"`
	}
	if json.Unmarshal(body, &shape, lenient()) == nil && !Absent(shape.Error) {
		body = shape.Error
	}
	f := Refused(provider, res.StatusCode, ReadError(body))
	f.RetryAfter = retryAfter(res.Header)
	return f
}

// Refused is the fault of a status, with what the server said of it.
func Refused(provider string, status int, e Error) *fault.Error {
	if status == http.StatusUnauthorized {
		// Its message shows parts of the key, and is the operator's matter.
		return fault.New(llm.CodeForStatus(status), "%s does not take the key that it is called with (status 401): the operator has to set the right one", provider)
	}
	f := fault.New(llm.CodeForStatus(status), "%s answered with status %d%s", provider, status, e.tail())
	f.Param = e.Param
	return f
}

// Failed is the fault of an error in the middle of an answer.
func Failed(provider string, code fault.Code, e Error) *fault.Error {
	f := fault.New(code, "%s failed in the middle of its answer%s", provider, e.tail())
	f.Param = e.Param
	return f
}

// Error is what servers put into an error object.
type Error struct {
	Message string
	Type    string
	Code    string // a word, or an HTTP status as text
	Param   string // the field that was wrong
}

// tail is what was said, as the end of a sentence. The code stands there as
// well, since what it names, such as context_length_exceeded, has no code here.
func (e *Error) tail() string {
	said := ""
	if _, err := strconv.Atoi(e.Code); err != nil && e.Code != "" && !strings.Contains(e.Message, e.Code) {
		said = " (" + e.Code + ")"
	}
	if e.Message == "" {
		return said
	}
	return said + ": " + shorten(e.Message, maxShown)
}

// shorten makes text of at most so many bytes fit for a message.
func shorten(s string, most int) string {
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

// ReadError reads an error object in any of the shapes that servers give it: a
// string, the object of OpenAI or Anthropic, FastAPI's detail. What is none of
// them says nothing.
func ReadError(raw []byte) Error {
	var fields struct {
		Message jsontext.Value `json:"message"`
		Detail  jsontext.Value `json:"detail"`
		Type    jsontext.Value `json:"type"`
		Code    jsontext.Value `json:"code"`
		Param   jsontext.Value `json:"param"`
	}
	if v := jsontext.Value(raw); v.Kind() == jsontext.KindString && v.IsValid(lenient()) {
		return Error{Message: Text(v)}
	}
	if json.Unmarshal(raw, &fields, lenient()) != nil {
		return Error{}
	}
	e := Error{
		Message: Text(fields.Message), Type: Text(fields.Type),
		Code: shorten(Text(fields.Code), maxCode), Param: shorten(Text(fields.Param), maxCode),
	}
	if e.Message == "" {
		e.Message = Text(fields.Detail)
	}
	if fields.Code.Kind() == jsontext.KindNumber {
		e.Code = string(fields.Code)
	}
	return e
}

func lenient() json.Options {
	return json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// Absent tells whether a field was left out, which null is as well.
func Absent(v jsontext.Value) bool { return v == nil || v.Kind() == jsontext.KindNull }

// Text is a string's, and "" for everything else. The value must be JSON.
func Text(v jsontext.Value) string {
	if v.Kind() != jsontext.KindString {
		return ""
	}
	s, _ := jsontext.AppendUnquote(nil, v)
	return string(s)
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
