// Package llmtest is the one conformance suite for all of llm's providers: what
// llm.Provider and llm.Continuer promise, run against each of them.
package llmtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

// Options tell the suite what to ask of the provider under test.
type Options struct {
	// Request is answered in several chunks and the same way each time.
	Request llm.Request
	// Slow is answered with at least one chunk, and goes on for longer than
	// Bound. It is broken off and cancelled.
	Slow llm.Request
	// Failing must fail, each with its code.
	Failing []Failure
	// Bubble runs each check in a synctest bubble, whose clock costs nothing.
	// Only a provider without a network can.
	Bubble bool
	// Bound is how long a cancelled or abandoned call may go on; 0 is 8 s.
	Bound time.Duration
	// Settle, if there is one, lets go of what the provider may rightly keep
	// between calls, such as idle connections, before goroutines are counted.
	Settle func(llm.Provider)
}

// Failure is a request that must fail.
type Failure struct {
	Name    string
	Request llm.Request
	Code    fault.Code
}

// check is one promise: it gives an error that says how p breaks it.
type check struct {
	name string
	run  func(ctx context.Context, p llm.Provider, o Options) error
}

func checks() []check {
	return []check{
		{"streams in order and ends once", ends},
		{"says the same when the sequence is ranged over again", again},
		{"ends in bounded time with ctx's error when cancelled", cancelled},
		{"does not begin under a cancelled ctx", cancelledBefore},
		{"can be broken off at every chunk", brokenOff},
		{"fails once, with a fault that has its code", fails},
		{"keeps concurrent calls apart", concurrent},
		{"goes on from every prefix", continues},
	}
}

// Run runs the suite on providers that open makes, one for each promise. What
// open starts it must stop with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) llm.Provider, o Options) {
	t.Helper()
	if o.Bound == 0 {
		o.Bound = 8 * time.Second
	}
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if o.Bubble {
				synctest.Test(t, func(t *testing.T) { perform(t, c, open(t), o) })
				return
			}
			p := open(t)
			before := goleak.IgnoreCurrent()
			perform(t, c, p, o)
			if o.Settle != nil {
				o.Settle(p)
			}
			if err := goleak.Find(before); err != nil {
				t.Errorf("goroutines outlive the calls: %v", err)
			}
		})
	}
}

// perform runs one check. In a bubble a goroutine that the check leaves behind
// and that waits for ever fails the test by itself.
func perform(t *testing.T, c check, p llm.Provider, o Options) {
	t.Helper()
	if err := c.run(t.Context(), p, o); err != nil {
		t.Errorf("%s: %v", p.Name(), err)
	}
}

// said is what a whole call gave.
type said struct {
	text, reasoning string
	finish          string
	usage           llm.Usage
	contents        []string // of each chunk
	reasonings      []string
}

// listen ranges over a call to its end, and holds it to the rules that every
// call keeps: one choice, nothing after the finish but usage, usage once,
// nothing after an error and no chunk beside it.
func listen(ctx context.Context, p llm.Provider, req llm.Request) (said, error) {
	return collect(p.Stream(ctx, req))
}

func collect(seq func(func(llm.Chunk, error) bool)) (said, error) {
	var s said
	var failed, broken error
	usages := 0
	for c, err := range seq {
		switch {
		case broken != nil: // the first is told
		case failed != nil:
			broken = fmt.Errorf("%w: after %s came %+v and %s", errBroken, told(failed), c, told(err))
		case err != nil && !empty(c):
			broken = fmt.Errorf("%w: beside %s came a chunk %+v", errBroken, told(err), c)
		case err != nil:
			failed = err
			continue
		case c.Index != 0:
			broken = fmt.Errorf("%w: a chunk of choice %d, where one was asked for", errBroken, c.Index)
		case s.finish != "" && (c.Content != "" || c.Reasoning != "" || c.FinishReason != ""):
			broken = fmt.Errorf("%w: after the finish reason came %+v", errBroken, c)
		}
		s.text += c.Content
		s.reasoning += c.Reasoning
		s.contents = append(s.contents, c.Content)
		s.reasonings = append(s.reasonings, c.Reasoning)
		if c.FinishReason != "" {
			s.finish = c.FinishReason
		}
		if c.Usage != nil {
			s.usage = *c.Usage
			usages++
		}
	}
	switch {
	case broken != nil:
		return s, broken
	case failed != nil:
		return s, failed
	case s.finish == "":
		return s, fmt.Errorf("%w: it ended without a finish reason and without an error", errBroken)
	case usages != 1:
		return s, fmt.Errorf("%w: usage came %d times, want once", errBroken, usages)
	}
	return s, nil
}

// errBroken marks what is the provider's breach, and not an answer of its.
var errBroken = errors.New("broken promise")

// told is err for a message, of which it is the matter and not the cause.
func told(err error) string {
	if err == nil {
		return "no error"
	}
	return fmt.Sprintf("the error %q", err.Error())
}

func empty(c llm.Chunk) bool {
	return c.Index == 0 && c.Content == "" && c.Reasoning == "" && c.Refusal == "" &&
		c.ToolCalls == nil && c.Logprobs == nil && c.FinishReason == "" && c.Usage == nil
}
