package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// barEvery and lineEvery are how often progress is shown, on a terminal and
	// elsewhere.
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
	barWidth  = 30
)

// progress shows how far a run has come: a bar on a terminal, plain lines
// elsewhere. One goroutine uses it.
type progress struct {
	w        io.Writer
	terminal bool
	now      func() time.Time
	total    int64 // bytes of input, or things to do; 0: not known
	what     string
	began    time.Time
	shown    time.Time
	bar      bool // a bar is on the terminal's last line

	bytes        int64
	done, failed int
}

func newProgress(w io.Writer, total int64) *progress {
	p := &progress{w: w, terminal: terminal(w), now: time.Now, total: total, what: "jobs"}
	p.began = p.now()
	p.shown = p.began
	return p
}

// add counts one that is done, which took so many bytes of the input.
func (p *progress) add(size int, failed bool) {
	p.done++
	p.bytes += int64(size)
	if failed {
		p.failed++
	}
	every := lineEvery
	if p.terminal {
		every = barEvery
	}
	now := p.now()
	if now.Sub(p.shown) < every {
		return
	}
	p.shown = now
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K"+p.text(now))
		p.bar = true
		return
	}
	fmt.Fprintln(p.w, p.text(now))
}

// clear takes the bar off the terminal, so that something else can be written.
func (p *progress) clear() {
	if p.bar {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.bar = false
		p.shown = time.Time{} // the next add draws it again
	}
}

func (p *progress) text(now time.Time) string {
	rate := float64(p.done) / max(now.Sub(p.began).Seconds(), 0.001)
	text := fmt.Sprintf("%d %s, %d failed, %.0f/s", p.done, p.what, p.failed, rate)
	if p.total == 0 {
		return text
	}
	part := min(float64(p.bytes)/float64(p.total), 1)
	if !p.terminal {
		return fmt.Sprintf("%3.0f%%  %s", part*100, text)
	}
	full := int(part * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f%%  %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), part*100, text)
}
