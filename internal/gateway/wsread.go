package gateway

import (
	"io"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/penstock-io/penstock/internal/fault"
)

// linger reads on for a moment behind a close that the reader has sent: where a
// connection is closed of which something is unread, the system resets it, and the
// client may never see why (RFC 6455, section 7.1.1).
func (s *socket) linger() {
	half, ok := s.net.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	s.limitReads(time.Now().Add(closePatience))
	_, _ = io.Copy(io.Discard, s.net) // until the client closes too, or the time is over
}

// apart reads and works off a client's frames, until none has begun to arrive, on
// a goroutine that the reader waits for: a stack stays about as large as it once
// was, and the reader's is there for as long as the connection. It tells whether
// the connection goes on.
func (s *socket) apart() (on bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for on = s.frame(); on; on = s.frame() {
			s.pace()
			if s.in.Buffered() == 0 {
				return
			}
		}
	}()
	<-done
	return on
}

// pace waits, where the client sends more than it may.
func (s *socket) pace() {
	if wait := s.pacer.take(time.Now()); wait > 0 {
		pause(s.ctx, wait)
	}
}

// within works off a ping or a pong that stands among a message's fragments, where
// the library comes upon it.
func (s *socket) within(work func()) error {
	work()
	s.pace()
	return nil
}

// frame reads a frame and works it off.
func (s *socket) frame() (on bool) {
	kind, raw, err := s.receive()
	if err != nil || kind == 0 {
		return err == nil
	}
	if kind == websocket.TextMessage && !utf8.Valid(raw) {
		s.garbled()
		return false
	}
	if !s.begin() {
		return true // told to go: what comes now is for another server
	}
	s.g.metrics.framesIn.Inc()
	if kind == websocket.TextMessage {
		s.handle(raw)
	} else {
		s.refuse("", "", fault.New(fault.InvalidJSON, "the frame is binary: it must be JSON, in a text frame"))
	}
	s.done()
	return true
}

// garbled closes for a text frame that is none (RFC 6455, section 8.1).
func (s *socket) garbled() {
	why := websocket.FormatCloseMessage(websocket.CloseInvalidFramePayloadData, "the text is not UTF-8")
	_ = s.conn.WriteControl(websocket.CloseMessage, why, time.Now().Add(closePatience)) // it is over either way
}

// receive waits for the next frame; kind is 0 for one that needs no more. One that
// has begun has to end in time, from its first byte on.
func (s *socket) receive() (kind int, raw []byte, err error) {
	if _, err := s.in.Peek(1); err != nil {
		return 0, nil, err //nolint:wrapcheck // only looked at, here and below
	}
	s.limitReads(time.Now().Add(s.all.framePatience))
	defer s.limitReads(time.Time{})
	defer s.net.heard()
	if was, err := s.control(); was || err != nil {
		return 0, nil, err
	}
	kind, r, err := s.conn.NextReader()
	if err != nil {
		return 0, nil, err //nolint:wrapcheck // as above
	}
	raw, err = io.ReadAll(r)
	return kind, raw, err //nolint:wrapcheck // as above
}

// control works off a ping or a pong. The library would do so on its way to the
// next frame, for which it would wait; all others, and what is no frame, are left
// to it (RFC 6455, section 5.2).
func (s *socket) control() (was bool, err error) {
	const (
		ping, pong = 0x89, 0x8a // whole ones
		masked     = 0x80
		most       = 125 // bytes
		head       = 6   // with the mask's four
	)
	start, err := s.in.Peek(2)
	if err != nil {
		return false, err //nolint:wrapcheck // only looked at
	}
	op, size := start[0], int(start[1]&^masked)
	if op != ping && op != pong || start[1]&masked == 0 || size > most {
		return false, nil
	}
	frame, err := s.in.Peek(head + size)
	if err != nil {
		return false, err //nolint:wrapcheck // only looked at
	}
	if op == ping {
		said := make([]byte, size)
		for i := range said {
			said[i] = frame[head+i] ^ frame[2+i%4]
		}
		s.pong(said)
	}
	_, err = s.in.Discard(head + size)
	return true, err //nolint:wrapcheck // only looked at
}

// pong answers a ping.
func (s *socket) pong(said []byte) { s.tell(func() { s.writeControl(framePong, said) }) }

// limitReads sets the time by which the client must have sent something; a stop
// has set its own.
func (s *socket) limitReads(by time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leaving {
		_ = s.net.SetReadDeadline(by) // the next read says what is wrong
	}
}
