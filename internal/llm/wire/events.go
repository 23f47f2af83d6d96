package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// MaxEventBytes bounds one event of a stream, and what is held of it.
const MaxEventBytes = 4 << 20

// ErrTooLarge is an event above MaxEventBytes.
var ErrTooLarge = errors.New("an event is too large")

// Events reads a stream of server-sent events. It holds one at a time. The SDKs'
// own readers take lines of 32 MB and any number of them in an event.
type Events struct {
	in   *bufio.Reader
	long []byte // a line that was longer than in's buffer
	data []byte
	kind []byte
}

// NewEvents makes a reader of in.
func NewEvents(in io.Reader) *Events {
	const buffer = 8 << 10 // most events are a few hundred bytes
	return &Events{in: bufio.NewReaderSize(in, buffer)}
}

// Next gives the data of the next event that has any, until the next call, and
// whether the event is of the kind "error". At the end of the stream the lines
// of an unfinished event count, but for one that has no end: io.EOF then,
// ErrTooLarge, and any other error of reading.
func (e *Events) Next() (data []byte, failed bool, err error) {
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
			if len(e.data)+len(value) >= MaxEventBytes {
				return nil, false, ErrTooLarge
			}
			e.data = append(append(e.data, value...), '\n')
		case "event":
			e.kind = append(e.kind[:0], value...)
		}
	}
}

func (e *Events) event() ([]byte, bool, error) {
	return bytes.TrimSpace(e.data), string(e.kind) == "error", nil
}

// line reads one line, without its end.
func (e *Events) line() ([]byte, error) {
	e.long = e.long[:0]
	for {
		part, err := e.in.ReadSlice('\n')
		if len(e.long)+len(part) > MaxEventBytes {
			return nil, ErrTooLarge
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
