package openai

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// errTooLarge is an event above maxEventBytes.
var errTooLarge = errors.New("an event is too large")

// events reads a stream of server-sent events. It holds one at a time.
type events struct {
	in   *bufio.Reader
	long []byte // a line that was longer than in's buffer
	data []byte
	kind []byte
}

func newEvents(in io.Reader) *events {
	const buffer = 8 << 10 // most events are a few hundred bytes
	return &events{in: bufio.NewReaderSize(in, buffer)}
}

// next gives the data of the next event that has any, until the next call. At
// the end of the stream the lines of an unfinished event count, but for one
// that has no end: io.EOF then, and any other error of reading.
func (e *events) next() (data []byte, failed bool, err error) {
	e.data, e.kind = e.data[:0], e.kind[:0]
	for {
		line, err := e.line()
		switch {
		case err == io.EOF && len(e.data) > 0: //nolint:errorlint // a reader's own
			return e.event()
		case err != nil:
			return nil, false, err
		case len(line) == 0 && len(e.data) > 0:
			return e.event()
		case len(line) == 0:
			e.kind = e.kind[:0]
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			if len(e.data)+len(value) >= maxEventBytes {
				return nil, false, errTooLarge
			}
			e.data = append(append(e.data, value...), '\n')
		case "event":
			e.kind = append(e.kind[:0], value...)
		}
	}
}

func (e *events) event() ([]byte, bool, error) {
	return bytes.TrimSpace(e.data), string(e.kind) == "error", nil
}

// line reads one line, without its end.
func (e *events) line() ([]byte, error) {
	e.long = e.long[:0]
	for {
		part, err := e.in.ReadSlice('\n')
		if len(e.long)+len(part) > maxEventBytes {
			return nil, errTooLarge
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			e.long = append(e.long, part...)
			continue
		case err != nil:
			return nil, err //nolint:wrapcheck // the caller tells an end from a failure
		}
		if len(e.long) > 0 {
			e.long = append(e.long, part...)
			part = e.long
		}
		return bytes.TrimSuffix(part[:len(part)-1], []byte("\r")), nil
	}
}
