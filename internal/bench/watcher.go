package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/bench/tally"
)

// watcher is a WebSocket that watches one job. What it reads is worked off as it
// came, without the buffers and copies of a client that does everything: it is
// the server that is measured, and both have the same cores.
type watcher struct {
	run    *streaming
	conn   io.ReadWriteCloser
	job    string
	stream tally.Stream
	rest   []byte // of a frame that has not come whole
}

// maxMessage bounds a server's frame, in bytes: one that says more is none.
const maxMessage = 64 << 20

// The opcodes of RFC 6455, section 5.2, with the bit that says that a frame is
// whole.
const (
	wholeText  = 0x81
	wholeClose = 0x88
	wholePing  = 0x89
	wholePong  = 0x8a
)

// read works off what a read has brought. It tells whether the job was watched to
// its end.
func (w *watcher) read(b []byte) (done bool, err error) {
	if len(w.rest) > 0 {
		w.rest = append(w.rest, b...)
		b = w.rest
	}
	for !done {
		op, payload, next, err := cutFrame(b)
		if err == nil && payload == nil {
			break
		}
		if err == nil {
			done, err = w.frame(op, payload)
		}
		if err != nil {
			return false, w.failed(err)
		}
		b = next
	}
	w.rest = append(w.rest[:0], b...) // which moves it to the front
	if len(w.rest) == 0 {
		w.rest = nil
	}
	return done, nil
}

func (w *watcher) frame(op byte, payload []byte) (done bool, err error) {
	switch op {
	case wholeText:
		return w.run.frame(w, payload)
	case wholePing:
		pong := append([]byte{wholePong, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...) //nolint:gosec // 125 at the most; masked with zeros
		_, err = w.conn.Write(pong)
		return false, err //nolint:wrapcheck // failed says which job's
	case wholePong:
		return false, nil
	case wholeClose:
		return false, errors.New("the server closed the connection")
	default:
		return false, fmt.Errorf("a frame begins with %#x, which no frame of the server's does", op)
	}
}

func (w *watcher) failed(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("watch job %s: %w", w.job, err)
}

// cutFrame takes the first frame off b. payload is nil where it is not whole.
func cutFrame(b []byte) (op byte, payload, rest []byte, err error) {
	const short, two, eight = 125, 126, 127
	if len(b) < 2 {
		return 0, nil, b, nil
	}
	head, size := 2, uint64(b[1])
	switch {
	case size <= short:
	case size == two && len(b) >= 4:
		head, size = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case size == eight && len(b) >= 10:
		head, size = 10, binary.BigEndian.Uint64(b[2:])
	case size > eight:
		return 0, nil, b, errors.New("a server's frame is masked")
	default:
		return 0, nil, b, nil
	}
	if size > maxMessage {
		return 0, nil, b, fmt.Errorf("a frame has %d bytes", size)
	}
	end := head + int(size)
	if len(b) < end {
		return 0, nil, b, nil
	}
	return b[0], b[head:end:end], b[end:], nil
}

// readBytes is how much of a socket is read at once.
const readBytes = 64 << 10

// readAll reads to the end of the job, waiting for the socket alone.
func (w *watcher) readAll() error {
	buf := make([]byte, readBytes/4)
	for {
		n, err := w.conn.Read(buf)
		done, failed := w.read(buf[:n])
		switch {
		case failed != nil || done:
			return failed
		case err != nil:
			return w.failed(err)
		}
	}
}

// spawn has a goroutine read a watcher's socket until ctx ends.
func spawn(ctx context.Context, work *errgroup.Group, w *watcher) {
	work.Go(func() error {
		defer context.AfterFunc(ctx, func() { _ = w.conn.Close() })()
		return w.readAll()
	})
}
