package engine

// memory remembers the newest keys, within a bound.
type memory[V any] struct {
	values map[string]V
	ring   []string
	at     int
}

// add remembers a value, in place of the key's earlier one. Where there are more
// than limit, the oldest is forgotten, and forgot tells whether it was one that
// was not dropped.
func (m *memory[V]) add(key string, v V, limit int) (forgot bool) {
	if m.values == nil {
		m.values = make(map[string]V, 64)
	}
	_, there := m.values[key]
	m.values[key] = v
	if there {
		return false
	}
	if len(m.ring) < limit {
		m.ring = append(m.ring, key)
		return false
	}
	old := m.ring[m.at]
	if _, forgot = m.values[old]; forgot && old != key {
		delete(m.values, old)
	}
	m.ring[m.at] = key
	m.at = (m.at + 1) % limit
	return forgot && old != key
}

func (m *memory[V]) get(key string) (V, bool) {
	v, ok := m.values[key]
	return v, ok
}

func (m *memory[V]) has(key string) bool {
	_, ok := m.values[key]
	return ok
}

// drop forgets a key; its place in the ring is free when it is the oldest.
func (m *memory[V]) drop(key string) { delete(m.values, key) }

// fifo is a queue on a slice.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) push(v T) {
	if f.head > 0 && f.head >= len(f.items)/2 && len(f.items) == cap(f.items) {
		n := copy(f.items, f.items[f.head:]) // else one that never empties would grow for ever
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, v)
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) empty() bool { return f.head == len(f.items) }

func (f *fifo[T]) pop() T {
	var zero T
	v := f.items[f.head]
	f.items[f.head] = zero
	f.head++
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return v
}
