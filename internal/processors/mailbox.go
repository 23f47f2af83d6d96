package processors

import (
	"context"
	"sync"

	"github.com/penstock-io/penstock/internal/processors/engine"
)

// mailbox holds what the loop has not yet taken. Ends of calls and of writes
// are posted without waiting: there are no more of them than calls and requests
// in the windows. Those who read from Kafka wait while it is full.
type mailbox struct {
	mu    sync.Mutex
	items []engine.Input
	some  chan struct{} // capacity 1: there may be something to take
	room  chan struct{} // capacity 1: there may be room
}

// mailboxFull is how many inputs may wait before readers are held back.
const mailboxFull = 256

func newMailbox() *mailbox {
	return &mailbox{some: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func (m *mailbox) post(in engine.Input) {
	m.mu.Lock()
	m.items = append(m.items, in)
	m.mu.Unlock()
	signal(m.some)
}

// offer is post for readers: it waits for room, and returns false if ctx ends.
func (m *mailbox) offer(ctx context.Context, in engine.Input) bool {
	for {
		m.mu.Lock()
		full := len(m.items) >= mailboxFull
		if !full {
			m.items = append(m.items, in)
		}
		m.mu.Unlock()
		if !full {
			signal(m.some)
			return true
		}
		select {
		case <-m.room:
			signal(m.room) // others may wait as well
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
	m.mu.Unlock()
	signal(m.room)
	return out
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
