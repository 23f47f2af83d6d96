package devstack

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
)

const (
	tailLines = 20      // what an error quotes of the server's last words
	maxLine   = 4 << 10 // longer lines are cut into pieces
)

// lineLog passes a program's output on line by line, and keeps its end.
type lineLog struct {
	log *slog.Logger

	mu   sync.Mutex
	part []byte   // a line that is not whole yet, at most maxLine
	last []string // at most tailLines
}

// Write takes output as it comes.
func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, b...)
	for {
		i := bytes.IndexByte(l.part, '\n')
		if i < 0 && len(l.part) < maxLine {
			return len(b), nil
		}
		if i < 0 || i > maxLine {
			i = maxLine - 1
		}
		line := strings.TrimRight(string(l.part[:i+1]), "\r\n")
		l.part = l.part[i+1:]
		l.log.DebugContext(context.Background(), "postgresql says", slog.String("line", line))
		if len(l.last) == tailLines {
			l.last = l.last[1:]
		}
		l.last = append(l.last, line)
	}
}

func (l *lineLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "\n")
}
