package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
)

const jsonType = "application/json"

// EncodeJSON gives a value's JSON as WriteJSON writes it.
func EncodeJSON(v any) ([]byte, error) {
	return json.Marshal(v, jsontext.AllowInvalidUTF8(true)) //nolint:wrapcheck // a value of ours that has no JSON
}

// WriteJSON answers with a value's JSON.
func WriteJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	b, err := EncodeJSON(v)
	if err != nil { // a value of ours that has no JSON
		Log(r.Context()).ErrorContext(r.Context(), "answer has no json", slog.Any("error", err))
		status = http.StatusInternalServerError
		b = []byte(`{"error":{"message":"something went wrong on our side","type":"server_error","param":null,"code":"internal_error"}}`)
	}
	WriteRaw(w, r, status, b)
}

// WritePiece is what a client has to take within the time for a write, of answers
// and streams alike, in bytes: what is more is written in several, each with a time of
// its own.
const WritePiece = 16 << 10

// WriteRaw answers with JSON that is written already. A client that takes nothing
// of it for Config.WritePatience is let go; over HTTP/2 its stream alone is.
func WriteRaw(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	q := requestOf(r.Context())
	if err := writePatiently(w, body, or(q.patience, writePatience)); err != nil && q.log != nil { // a client that left
		q.log.DebugContext(r.Context(), "answer not written", slog.String("request_id", q.id), slog.Any("error", err))
	}
}

// writePatiently writes piece by piece, each under a deadline of its own. The last
// one stands behind the write, for what the server still holds of the answer: it
// lifts the deadline itself before the connection's next request, and HTTP/2 has
// one for each stream.
func writePatiently(w http.ResponseWriter, body []byte, patience time.Duration) error {
	control := http.NewResponseController(w)
	for {
		piece := body[:min(len(body), WritePiece)]
		if err := control.SetWriteDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err //nolint:wrapcheck // only logged
		}
		if _, err := w.Write(piece); err != nil { //nolint:gosec // JSON, and said to be so, with nosniff
			return err //nolint:wrapcheck // only logged
		}
		if body = body[len(piece):]; len(body) == 0 {
			return nil
		}
	}
}

// List is how every list is answered. Make it with NewList.
type List[T any] struct {
	Object  string  `json:"object"` // "list"
	Data    []T     `json:"data"`
	FirstID *string `json:"first_id"` // null in an empty list
	LastID  *string `json:"last_id"`
	HasMore bool    `json:"has_more"`
}

// NewList makes a list; id names an element of it.
func NewList[T any](data []T, hasMore bool, id func(*T) string) List[T] {
	l := List[T]{Object: "list", Data: data, HasMore: hasMore}
	if l.Data == nil {
		l.Data = []T{} // [] and not null
	}
	if len(data) > 0 {
		first, last := id(&data[0]), id(&data[len(data)-1])
		l.FirstID, l.LastID = &first, &last
	}
	return l
}

// ReadBody reads the body of a request that must be JSON, and does not look
// into it. UnsupportedMedia, TooLarge or InvalidRequest say why it can't be had.
func ReadBody(r *http.Request) ([]byte, error) {
	if err := checkContentType(r.Header.Get("Content-Type")); err != nil {
		return nil, err
	}
	if r.Body == nil || r.ContentLength == 0 {
		return nil, nil
	}
	var (
		body []byte
		err  error
	)
	if n := r.ContentLength; n > 0 && n <= maxTrusted {
		body = make([]byte, n)
		if _, err = io.ReadFull(r.Body, body); err == nil {
			_, err = r.Body.Read(make([]byte, 1)) // sees the end, so that the body's deadline is lifted
			if errors.Is(err, io.EOF) {
				err = nil
			}
		}
	} else {
		body, err = io.ReadAll(r.Body)
	}
	if err == nil {
		return body, nil
	}
	if big, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fault.New(fault.TooLarge, "the body is larger than %d bytes, the limit: send less", big.Limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fault.Wrap(err, fault.InvalidRequest, "the body did not arrive in time: send it at once")
	}
	return nil, fault.Wrap(err, fault.InvalidRequest, "the body broke off: send as many bytes as Content-Length says")
}

// maxTrusted bounds what is set aside on a client's word, in bytes.
const maxTrusted = 64 << 10

// checkContentType wants JSON by name. A missing type is refused too: a page of
// any site may have a browser send that without asking.
func checkContentType(ct string) error {
	if ct == jsonType {
		return nil
	}
	media, params, err := mime.ParseMediaType(ct)
	charset := params["charset"]
	if err == nil && media == jsonType && (charset == "" || strings.EqualFold(charset, "utf-8")) {
		return nil
	}
	if ct == "" {
		return fault.New(fault.UnsupportedMedia, "the request has no Content-Type: it must be %s", jsonType)
	}
	return fault.New(fault.UnsupportedMedia, "the Content-Type %.100q is not taken: it must be %s, in UTF-8", ct, jsonType)
}

// ReadJSON reads the body into v, a pointer to a struct, and refuses a field
// that v does not have.
func ReadJSON(r *http.Request, v any) error {
	body, err := ReadBody(r)
	if err != nil {
		return err
	}
	return DecodeJSON(body, v)
}

// DecodeJSON is ReadJSON for a body that was read already.
func DecodeJSON(body []byte, v any) error {
	if kind := jsontext.Value(bytes.TrimLeft(body, " \t\r\n")).Kind(); kind == 'n' && jsontext.Value(body).IsValid() {
		return fault.New(fault.InvalidRequest, "the body is a JSON null: it must be an object")
	}
	if err := json.Unmarshal(body, v, json.RejectUnknownMembers(true)); err != nil {
		return JSONFault(body, err)
	}
	return nil
}

// JSONFault turns what the JSON library said of a body into a fault: where it is
// not JSON, with line and column; else which field is wrong, and how.
func JSONFault(body []byte, err error) *fault.Error {
	if syn, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		line, column := place(body, syn.ByteOffset)
		f := fault.Wrap(err, fault.InvalidJSON, "the body is not JSON at line %d, column %d: %s", line, column, complaint(body, syn))
		if errors.Is(syn, jsontext.ErrDuplicateName) {
			f.Param = Field(syn.JSONPointer)
		}
		return f
	}
	sem, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return fault.Wrap(err, fault.InvalidRequest, "the body cannot be read: it must be one JSON object")
	}
	field := Field(sem.JSONPointer)
	var f *fault.Error
	switch {
	case errors.Is(sem.Err, json.ErrUnknownName):
		f = fault.Param(field, "the field %.100q is not known here: leave it out, or correct its name", field)
	case sem.Err != nil && field != "" && sem.GoType != nil && sem.JSONKind == '"':
		f = fault.Param(field, "%s: %.200s", field, sem.Err.Error())
	case field == "":
		f = fault.New(fault.InvalidRequest, "the body is a JSON %s: it must be %s", KindName(sem.JSONKind), wanted(sem.GoType))
	case sem.JSONKind == '0' && wanted(sem.GoType) == wholeNumber:
		f = fault.Param(field, "%s: %.40s: it must be %s", field, sem.JSONValue, wholeNumber)
	default:
		f = fault.Param(field, "%s is a JSON %s: it must be %s", field, KindName(sem.JSONKind), wanted(sem.GoType))
	}
	f.Err = err
	return f
}

func complaint(body []byte, syn *jsontext.SyntacticError) string {
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return "it is empty"
	case errors.Is(syn, io.ErrUnexpectedEOF):
		return "it ends too early"
	case errors.Is(syn, jsontext.ErrDuplicateName):
		return fmt.Sprintf("the name %.100q stands twice in its object", syn.JSONPointer.LastToken())
	default:
		return strings.TrimPrefix(syn.Err.Error(), "jsontext: ")
	}
}

// place counts lines and columns from 1; a column is a byte.
func place(body []byte, offset int64) (line, column int) {
	before := body[:min(max(offset, 0), int64(len(body)))]
	return 1 + bytes.Count(before, []byte{'\n'}), len(before) - bytes.LastIndexByte(before, '\n')
}

// Field writes a pointer such as /body/model as body.model.
func Field(p jsontext.Pointer) string {
	var b strings.Builder
	for name := range p.Tokens() {
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(name)
	}
	return b.String()
}

const wholeNumber = "a whole number"

// wanted names the JSON that a Go type is read from.
func wanted(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil {
		return "of another kind"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return wholeNumber
	default:
		return "a number"
	}
}

// KindName names a kind of JSON value to a person.
func KindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '{':
		return "object"
	case '[':
		return "array"
	default:
		return "value"
	}
}
