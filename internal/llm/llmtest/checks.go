package llmtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

func ends(ctx context.Context, p llm.Provider, o Options) error {
	s, err := listen(ctx, p, o.Request)
	if err != nil {
		return err
	}
	texts := 0
	for _, content := range s.contents {
		if content != "" {
			texts++
		}
	}
	u := s.usage
	switch {
	case texts < 3:
		return fmt.Errorf("the answer came in %d pieces, want 3 or more to test with: %q", texts, s.contents)
	case u.PromptTokens < 0 || u.CompletionTokens < 1 || u.TotalTokens != u.PromptTokens+u.CompletionTokens:
		return fmt.Errorf("usage %+v: the total must be the sum, and the completion counted", u)
	}
	return nil
}

func again(ctx context.Context, p llm.Provider, o Options) error {
	seq := p.Stream(ctx, o.Request)
	first, err := collect(seq)
	if err != nil {
		return err
	}
	second, err := collect(seq)
	if err != nil {
		return fmt.Errorf("the second time: %w", err)
	}
	return same("the second time", second, first.text, first.finish)
}

// cancelled cancels after the first chunk, while the provider waits for more.
func cancelled(ctx context.Context, p llm.Provider, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var at time.Time
	var last error
	started := false
	for _, err := range p.Stream(ctx, o.Slow) {
		if last != nil {
			return fmt.Errorf("after %s it went on", told(last))
		}
		last = err
		if err == nil && !started {
			started = true
			// Not at once, so that the provider is met waiting for its model.
			at = time.Now().Add(o.Bound / 100)
			time.AfterFunc(o.Bound/100, cancel)
		}
	}
	switch took := time.Since(at); {
	case !started:
		return fmt.Errorf("the slow request gave no chunk but %s", told(last))
	case !errors.Is(last, context.Canceled):
		return fmt.Errorf("it ended with %s, want ctx's error", told(last))
	case took > o.Bound:
		return fmt.Errorf("it ended %v after the cancel, want %v at most", took, o.Bound)
	}
	return nil
}

func cancelledBefore(ctx context.Context, p llm.Provider, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	began := time.Now()
	s, err := listen(ctx, p, o.Request)
	switch took := time.Since(began); {
	case !errors.Is(err, context.Canceled):
		return fmt.Errorf("it ended with %s, want ctx's error", told(err))
	case len(s.contents) > 0:
		return fmt.Errorf("it gave %q all the same", s.contents)
	case took > o.Bound:
		return fmt.Errorf("it took %v, want %v at most", took, o.Bound)
	}
	return nil
}

// brokenOff leaves the loop early. A sequence that calls yield again panics by
// itself; one that holds on to something is seen by the count of goroutines.
func brokenOff(ctx context.Context, p llm.Provider, o Options) error {
	whole, err := listen(ctx, p, o.Request)
	if err != nil {
		return err
	}
	for stop := range whole.contents {
		n := 0
		for _, err := range p.Stream(ctx, o.Request) {
			if err != nil {
				return fmt.Errorf("at chunk %d: %w", n, err)
			}
			if n == stop {
				break
			}
			n++
		}
	}
	began := time.Now()
	for _, err := range p.Stream(ctx, o.Slow) {
		if err != nil {
			return fmt.Errorf("the slow request: %w", err)
		}
		began = time.Now()
		break
	}
	if took := time.Since(began); took > o.Bound {
		return fmt.Errorf("it took %v to break off, want %v at most", took, o.Bound)
	}
	return nil
}

func fails(ctx context.Context, p llm.Provider, o Options) error {
	for _, f := range o.Failing {
		_, err := listen(ctx, p, f.Request)
		var refused *fault.Error
		switch {
		case errors.Is(err, errBroken):
			return fmt.Errorf("%s: %w", f.Name, err)
		case err == nil:
			return fmt.Errorf("%s: it succeeded, want %s", f.Name, f.Code)
		case !errors.As(err, &refused):
			return fmt.Errorf("%s: %s is no *fault.Error", f.Name, told(err))
		case refused.Code != f.Code:
			return fmt.Errorf("%s: the code is %s, want %s (%s)", f.Name, refused.Code, f.Code, refused.Message)
		case refused.Message == "":
			return fmt.Errorf("%s: the fault %s has no message", f.Name, refused.Code)
		}
	}
	return nil
}

func concurrent(ctx context.Context, p llm.Provider, o Options) error {
	const calls = 8
	alone, err := listen(ctx, p, o.Request)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for i := range calls {
		group.Go(func() error {
			if i%4 == 3 && len(o.Failing) > 0 { // failures between them
				return fails(ctx, p, o)
			}
			s, err := listen(ctx, p, o.Request)
			if err != nil {
				return err
			}
			return same("among others", s, alone.text, alone.finish)
		})
	}
	return group.Wait()
}

func continues(ctx context.Context, p llm.Provider, o Options) error {
	c, ok := p.(llm.Continuer)
	if !ok {
		return nil
	}
	whole, err := listen(ctx, p, o.Request)
	if err != nil {
		return err
	}
	for at := range len(whole.contents) + 1 {
		prefix := llm.Prefix{
			Content:   strings.Join(whole.contents[:at], ""),
			Reasoning: strings.Join(whole.reasonings[:at], ""),
			Chunks:    at,
		}
		if !c.CanContinue(o.Request, prefix) {
			return fmt.Errorf("after %d chunks it cannot continue from what it said: %q", at, prefix.Content)
		}
		rest, err := collect(c.Continue(ctx, o.Request, prefix))
		if err != nil {
			return fmt.Errorf("after %d chunks: %w", at, err)
		}
		if err := same(fmt.Sprintf("after %d chunks", at), rest, whole.text[len(prefix.Content):], whole.finish); err != nil {
			return err
		}
	}
	return nil
}

func same(when string, s said, text, finish string) error {
	if s.text != text || s.finish != finish {
		return fmt.Errorf("%s it said %q and %q, want %q and %q", when, s.text, s.finish, text, finish)
	}
	return nil
}
