package testenv

import (
	"bytes"
	"io"
	"sync"
)

// tailBytes bounds what a watchedLog keeps in memory.
const tailBytes = 16 << 10

// watchedLog passes a program's output on, keeps its end for an error message,
// and tells when a phrase has come by.
type watchedLog struct {
	seen chan struct{} // closed once the phrase was written

	mu     sync.Mutex
	next   io.Writer
	phrase []byte // nil once seen
	kept   []byte // at most 2*tailBytes
}

func newWatchedLog(next io.Writer, phrase string) *watchedLog {
	return &watchedLog{seen: make(chan struct{}), next: next, phrase: []byte(phrase)}
}

// Write implements io.Writer.
func (l *watchedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, p...)
	// The phrase may come in two pieces, so look before cutting.
	if l.phrase != nil && bytes.Contains(l.kept, l.phrase) {
		l.phrase = nil
		close(l.seen)
	}
	if len(l.kept) > 2*tailBytes {
		l.kept = append(l.kept[:0], l.kept[len(l.kept)-tailBytes:]...)
	}
	return l.next.Write(p)
}

// tail is the end of what was written.
func (l *watchedLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return lastLines(string(l.kept))
}
