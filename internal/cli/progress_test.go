package cli

import (
	"strings"
	"testing"
	"time"
)

func TestProgressIsABarOnATerminalAndLinesElsewhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		terminal bool
		total    int64
		want     string
	}{
		"a terminal":             {true, 100, "\r\x1b[K[###############...............]  50%  1 jobs, 1 failed, 0/s\r\x1b[K"},
		"a terminal, no total":   {true, 0, "\r\x1b[K1 jobs, 1 failed, 0/s\r\x1b[K"},
		"elsewhere":              {false, 100, " 50%  1 jobs, 1 failed, 0/s\n"},
		"elsewhere, and no size": {false, 0, "1 jobs, 1 failed, 0/s\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			now := time.Unix(1000, 0)
			p := newProgress(&out, c.total)
			p.terminal, p.now, p.began, p.shown = c.terminal, func() time.Time { return now }, now, now
			now = now.Add(10 * time.Second)
			p.add(50, true)
			p.clear()
			p.clear() // nothing is left to be cleared
			if out.String() != c.want {
				t.Errorf("it wrote %q, want %q", out.String(), c.want)
			}
		})
	}
}

func TestProgressIsShownNowAndThen(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	p := newProgress(&out, 0)
	for range 100 {
		p.add(1, false)
	}
	if out.Len() != 0 {
		t.Errorf("in no time it wrote %q", out.String())
	}
}
