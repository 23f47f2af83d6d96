package gateway

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// maxInbox bounds what the reader may have left for the pump to do: answers
	// to a client that asks and does not read.
	maxInbox = 64
	// maxErrands bounds the goroutines that ask Kafka and PostgreSQL for one
	// connection, beside its reader.
	maxErrands = 3
	// framePatience is how long a frame may take to arrive once it has begun.
	framePatience = 30 * time.Second
	// closePatience is how long a client gets to answer a close.
	closePatience = time.Second
	// silentPings is at how many pings a client is given up of which nothing was
	// heard since the first of them was due.
	silentPings = 3
)

// socket is one WebSocket connection. Its reader is a goroutine for as long as
// it lives; it works the client's frames off one by one. The pump owns the
// subscriptions and all writing. Errands are short-lived goroutines that ask Kafka
// or PostgreSQL on behalf of one subscription, which they own meanwhile.
type socket struct {
	g       *Gateway
	all     *sockets
	conn    *websocket.Conn
	net     *patientConn
	in      *bufio.Reader // of net: what the client has sent ahead
	pass    pass
	pacer   pacer // of what reads the client's frames
	parting bool  // a close was sent by what reads them
	tenant  string
	id      string          // of the request that it began as
	ctx     context.Context //nolint:containedctx // of what is asked for this connection: it ends with it
	cancel  context.CancelFunc
	pump    // its work are errands too

	// Guarded by the pump's mu.
	room     sync.Cond // the inbox was emptied
	inbox    []func()  // for the pump
	rungSubs *subscription
	busy     bool            // the reader works on a frame
	leaving  bool            // the client was told to go
	subs     []*subscription // that were not released yet; one without a name was unsubscribed

	// Of the pump alone.
	queue   line   // who can be read, in turns
	out     outbox // what is to be written
	errands errands
	broken  bool   // nothing can be written any more
	closing bool   // nothing but what is in out
	how     string // the connection ended, as a metric has it
	ticker  *time.Timer
}

func newSocket(a *sockets, conn *websocket.Conn, nc *patientConn) *socket {
	s := &socket{g: a.g, all: a, conn: conn, net: nc, how: endedGone}
	s.crew, s.round = &a.g.crew, s.goRound
	s.room.L = &s.mu
	conn.SetReadLimit(maxFrame)
	conn.SetPingHandler(func(said string) error { return s.within(func() { s.pong([]byte(said)) }) })
	conn.SetPongHandler(func(string) error { return s.within(nc.heard) })
	return s
}

// read is the reader.
func (s *socket) read(draining bool) {
	defer s.all.leave(s, s.pass)
	defer s.end()
	s.tell(func() {
		s.write(encodeFrame(welcomeFrame{
			Op: "welcome", Version: 1, Connection: s.id, PingMS: s.g.cfg.Ping.Milliseconds(),
			Limits: socketLimits{Subscriptions: maxSubscriptions, FrameBytes: maxFrame},
		}))
		s.ticker = time.AfterFunc(s.g.cfg.Ping, s.tick)
	})
	if draining {
		s.drain()
	}
	for s.net.await() == nil {
		if !s.apart() {
			break
		}
	}
	if s.parting {
		s.linger()
	}
}

// begin says that a frame is worked on, unless the client was told to go.
func (s *socket) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = !s.leaving
	return s.busy
}

func (s *socket) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if s.leaving {
		s.reportLocked(s.bye)
	}
}

// tell leaves the pump something to do, and waits while it has much. Only the
// reader may call it.
func (s *socket) tell(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.inbox) >= maxInbox && !s.ended {
		s.room.Wait()
	}
	s.reportLocked(f)
}

// report is tell for those who must not wait: each has a bound of its own.
func (s *socket) report(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reportLocked(f)
}

func (s *socket) reportLocked(f func()) {
	s.inbox = append(s.inbox, f)
	s.ringLocked()
}

// goRound gives every subscription that can be read a turn, until there is much to
// be written or none can be read, and writes.
func (s *socket) goRound(alone bool) onward {
	if !s.flush(alone) { // what is left of the last round
		return apart
	}
	s.attend()
	for s.queue.first != nil && !s.mute() && len(s.out.bytes()) < flushBytes {
		s.turn(s.queue.take())
		s.attend()
	}
	switch {
	case !s.flush(alone):
		return apart
	case s.queue.first != nil && !s.mute():
		return again
	default:
		return idle
	}
}

// attend does what was left to do, and finds out who can be read again.
func (s *socket) attend() {
	s.mu.Lock()
	todo := s.inbox
	if s.inbox = nil; len(todo) > 0 {
		s.room.Broadcast()
	}
	for sub := s.rungSubs; sub != nil; {
		if sub.resting {
			sub.resting = false
			s.queue.add(sub)
		} else {
			sub.missed = true
		}
		next := sub.rungNext
		sub.rung, sub.rungNext = false, nil
		sub = next
	}
	s.rungSubs = nil
	s.mu.Unlock()
	for _, f := range todo {
		f()
	}
}

// mute tells whether nothing can be sent any more: behind a close there is no frame
// (RFC 6455, section 5.5.1).
func (s *socket) mute() bool { return s.broken || s.closing }

// write has a frame sent. Only the pump may call it, and the other writers below.
func (s *socket) write(frame []byte) {
	if s.mute() {
		return
	}
	buf := s.out.buffer(&s.all.buffers)
	*buf = appendFrame(*buf, frame)
	s.g.metrics.framesOut.Inc()
}

// writeControl has a control frame sent.
func (s *socket) writeControl(kind byte, payload []byte) {
	if s.mute() {
		return
	}
	buf := s.out.buffer(&s.all.buffers)
	*buf = appendControl(*buf, kind, payload)
}

// flush writes what is to be sent: what the system takes at once, or all. It tells
// whether nothing is left.
func (s *socket) flush(wait bool) (all bool) {
	if s.out.empty() {
		return true
	}
	if !s.broken {
		b := s.out.bytes()
		put := s.net.try
		if wait {
			put = s.net.Write
		}
		n, err := put(b)
		if err == nil && n < len(b) {
			s.out.skip(n)
			return false
		}
		if err != nil {
			s.fail(err)
		}
	}
	s.out.reset(&s.all.buffers)
	s.broken = s.broken || s.closing
	return true
}

// fail takes note of a write that failed: nothing can be written any more.
func (s *socket) fail(err error) {
	s.broken = true
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() && s.how == endedGone {
		s.how = endedSlow
	}
	_ = s.net.Close() // the reader ends
}

// refuse answers with an error. Only the reader may call it.
func (s *socket) refuse(ref, sub string, err error) {
	frame := encodeFrame(s.refusalOf(ref, sub, err))
	s.tell(func() { s.write(frame) })
}

// answer sends one of the server's frames. Only the reader may call it.
func (s *socket) answer(v any) {
	frame := encodeFrame(v)
	s.tell(func() { s.write(frame) })
}

// tick pings the client, and gives it up if nothing was heard for several pings. It
// counts those and no time, since a process that stood still has not asked anybody.
func (s *socket) tick() {
	if s.net.unheard.Add(1) >= silentPings {
		_ = s.net.Close() // the reader ends
		return
	}
	s.report(func() { // a write that is under way shows soon enough whether the client lives
		s.writeControl(framePing, nil)
		s.ticker.Reset(s.g.cfg.Ping)
	})
}

// drain has the client told to go elsewhere. A frame that is worked on is still
// answered.
func (s *socket) drain() {
	s.report(func() {
		s.write(encodeFrame(goawayFrame{Op: "goaway", ReconnectMS: s.g.comeBack().Milliseconds()}))
		s.how = endedDrained
		s.mu.Lock()
		defer s.mu.Unlock()
		s.leaving = true
		if !s.busy {
			s.reportLocked(s.bye)
		}
	})
	s.net.hurry(time.Now().Add(drainPatience))
}

// bye closes in order. The reader ends when the client answers, or does not.
func (s *socket) bye() {
	s.writeControl(frameClose, websocket.FormatCloseMessage(closeStopping, "the server is stopping: come back, with your cursors"))
	s.closing = true
	s.net.hurry(time.Now().Add(closePatience))
}

// end comes when the reader has ended: nothing is started any more, all that is
// under way is waited for, and what was held is let go.
func (s *socket) end() {
	s.mu.Lock()
	s.ended = true
	s.room.Broadcast()
	s.mu.Unlock()
	s.cancel()
	_ = s.net.Close() // it may be closed already
	s.work.Wait()
	if s.ticker != nil {
		s.ticker.Stop()
	}
	s.out.reset(&s.all.buffers)
	for _, sub := range s.subs {
		if sub.announced {
			s.g.metrics.completions.WithLabelValues(s.how).Inc()
		}
		sub.close()
		s.all.free()
	}
}
