package processors

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/penstock-io/penstock/internal/processors/engine"
)

// mailbox holds what the loop has not yet taken. Ends of calls and of writes
// are posted without waiting: there are no more of them than calls and requests
// in the windows. Those who read from Kafka wait while it is full.
type mailbox struct {
	mu    sync.Mutex
	items []engine.Input
	lease atomic.Pointer[engine.LeaseRenewed] // goes before all items
	some  chan struct{}                       // capacity 1: there may be something to take
	taken chan struct{}                       // closed by the next take; nil while nobody waits for room
}

// mailboxFull is how many inputs may wait before readers are held back.
const mailboxFull = 256

func newMailbox() *mailbox {
	return &mailbox{some: make(chan struct{}, 1)}
}

func (m *mailbox) post(in engine.Input) {
	m.mu.Lock()
	m.items = append(m.items, in)
	m.mu.Unlock()
	signal(m.some)
}

// renew posts a renewed lease, in place of an earlier one that was not taken. It
// does not stand in line: it would lapse behind what a busy loop has to do.
func (m *mailbox) renew(in engine.LeaseRenewed) {
	for {
		was := m.lease.Load()
		if was != nil && was.Sent.After(in.Sent) {
			return
		}
		if m.lease.CompareAndSwap(was, &in) {
			signal(m.some)
			return
		}
	}
}

// renewed takes the renewed lease, if there is one.
func (m *mailbox) renewed() (engine.LeaseRenewed, bool) {
	if m.lease.Load() == nil {
		return engine.LeaseRenewed{}, false
	}
	return *m.lease.Swap(nil), true
}

// offer is post for readers: it waits for room, and returns false if ctx ends.
func (m *mailbox) offer(ctx context.Context, in engine.Input) bool {
	for {
		m.mu.Lock()
		if len(m.items) < mailboxFull {
			m.items = append(m.items, in)
			m.mu.Unlock()
			signal(m.some)
			return true
		}
		if m.taken == nil {
			m.taken = make(chan struct{})
		}
		taken := m.taken
		m.mu.Unlock()
		select {
		case <-taken:
		case <-ctx.Done():
			return false
		}
	}
}

// take empties the mailbox into buf.
func (m *mailbox) take(buf []engine.Input) []engine.Input {
	m.mu.Lock()
	out := m.items
	m.items = buf[:0]
	if m.taken != nil {
		close(m.taken)
		m.taken = nil
	}
	m.mu.Unlock()
	return out
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
