package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// diary notes what happens, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

// obedient takes a while to end after it is told to.
func (d *diary) obedient(name string) stage {
	return stage{name, []func(context.Context) error{func(ctx context.Context) error {
		<-ctx.Done()
		d.note(name + " is told")
		<-time.After(time.Second)
		d.note(name + " has ended")
		return ctx.Err()
	}}}
}

func TestStagesEndOneAfterTheOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		empty := stage{name: "empty"}
		err := runStages(ctx, slog.New(slog.DiscardHandler), time.Minute, []stage{d.obedient("a"), empty, d.obedient("b"), d.obedient("c")})
		if err != nil {
			t.Errorf("a stop is no failure: %v", err)
		}
		want := []string{"a is told", "a has ended", "b is told", "b has ended", "c is told", "c has ended"}
		if !slices.Equal(d.lines, want) {
			t.Errorf("the order was %q, want %q", d.lines, want)
		}
	})
}

func TestAStageThatFailsStopsTheOthersInOrder(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]error{"broken": errors.New("broken"), "ended by itself": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var d diary
				bad := stage{"bad", []func(context.Context) error{func(context.Context) error { return end }}}
				err := runStages(t.Context(), slog.New(slog.DiscardHandler), time.Minute, []stage{d.obedient("a"), bad, d.obedient("c")})
				if err == nil || err.Error() != "bad: "+name {
					t.Errorf("the error is %v, want bad: %s", err, name)
				}
				if want := []string{"a is told", "a has ended", "c is told", "c has ended"}; !slices.Equal(d.lines, want) {
					t.Errorf("the order was %q, want %q", d.lines, want)
				}
			})
		})
	}
}

func TestTheGracePeriodBoundsAStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		deaf := stage{"deaf", []func(context.Context) error{func(context.Context) error { <-release; return nil }}}
		told := false
		last := stage{"last", []func(context.Context) error{func(ctx context.Context) error { <-ctx.Done(); told = true; return nil }}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		err := runStages(ctx, slog.New(slog.DiscardHandler), 10*time.Second, []stage{deaf, last})
		if err == nil || !strings.Contains(err.Error(), "deaf did not end") {
			t.Errorf("the error is %v, want the stage's name", err)
		}
		if took := time.Since(began); took != 10*time.Second+2*margin {
			t.Errorf("it took %v", took)
		}
		if !told {
			t.Error("the stage behind the deaf one was never told")
		}
		close(release)
		synctest.Wait()
	})
}

func TestAStageThatHeedsTheAbortIsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// The first stage needs longer than the grace period; the next is told
		// at its end to stop at once.
		slow := stage{"slow", []func(context.Context) error{func(ctx context.Context) error {
			<-ctx.Done()
			<-time.After(17 * time.Second)
			return nil
		}}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := runStages(ctx, slog.New(slog.DiscardHandler), 10*time.Second, []stage{slow}); err != nil {
			t.Errorf("it ended in time: %v", err)
		}
	})
}
