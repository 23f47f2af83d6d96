package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// outputLimit bounds, in bytes, what is kept of one test's output until it is
// known whether it failed.
const outputLimit = 1 << 20

// event is a line of go test -json; see go doc test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// test names one test of one package.
type test struct{ pkg, name string }

// printer reads go test -json and prints what go test without it prints:
// a line a package, and the output of tests that failed.
type printer struct {
	out     io.Writer
	line    []byte // begun, not ended; go test's lines are short
	running map[test]*bytes.Buffer
	skipped []string
	failed  error // of a write
}

func newPrinter(out io.Writer) *printer {
	return &printer{out: out, running: map[test]*bytes.Buffer{}}
}

// Write implements io.Writer.
func (p *printer) Write(b []byte) (int, error) {
	p.line = append(p.line, b...)
	for {
		line, rest, whole := bytes.Cut(p.line, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		p.take(line)
		p.line = append(p.line[:0], rest...)
	}
}

// close prints what is left and says what went wrong, skipped tests included.
func (p *printer) close() error {
	if len(p.line) > 0 {
		p.take(p.line)
	}
	// A binary that died on the way never said how its tests ended.
	p.printRunning(func(test) bool { return true })
	if len(p.skipped) > 0 {
		slices.Sort(p.skipped)
		return errors.Join(p.failed, fmt.Errorf("skipped, where a test runs or fails:\n  %s", strings.Join(p.skipped, "\n  ")))
	}
	return p.failed
}

func (p *printer) take(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e, json.MatchCaseInsensitiveNames(true)); err != nil {
		p.print(string(line) + "\n") // Not an event: go's own words.
		return
	}
	key := test{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		switch {
		case e.Test != "":
			p.keep(key, e.Output)
		case e.Output != "PASS\n" && !strings.HasPrefix(e.Output, "coverage: "):
			// Without -v, go test says both in the "ok" line alone.
			p.print(e.Output)
		}
	case "pass":
		delete(p.running, key)
	case "skip":
		if e.Test != "" { // Else a package without tests.
			p.skipped = append(p.skipped, e.Package+" "+e.Test+": "+p.reason(key))
		}
		delete(p.running, key)
	case "fail":
		p.printRunning(func(t test) bool { return t == key || e.Test == "" && t.pkg == e.Package })
	}
}

// keep holds a test's output back.
func (p *printer) keep(key test, output string) {
	b := p.running[key]
	if b == nil {
		b = &bytes.Buffer{}
		p.running[key] = b
	}
	if b.Len() < outputLimit {
		b.WriteString(output)
	}
}

// reason is what a skipped test said.
func (p *printer) reason(key test) string {
	b := p.running[key]
	if b == nil {
		return ""
	}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return ""
}

// printRunning prints, and forgets, the output of the tests that want names.
func (p *printer) printRunning(wanted func(test) bool) {
	var names []test
	for key := range p.running {
		if wanted(key) {
			names = append(names, key)
		}
	}
	slices.SortFunc(names, func(a, b test) int { return strings.Compare(a.pkg+" "+a.name, b.pkg+" "+b.name) })
	for _, key := range names {
		p.print(p.running[key].String())
		delete(p.running, key)
	}
}

func (p *printer) print(s string) {
	if _, err := io.WriteString(p.out, s); err != nil && p.failed == nil {
		p.failed = fmt.Errorf("print the tests' output: %w", err)
	}
}
