package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// stage is what ends together: the next one is stopped only after it has ended.
type stage struct {
	name string
	runs []func(context.Context) error // each until its context ends
}

// margin is what the stages get beyond the grace period before they are told to
// stop at once, and again before nobody waits for them any more.
const margin = 5 * time.Second

// runStages runs all stages until ctx ends or one of them does, then stops them
// in order. It returns the error that began it, if one did.
func runStages(ctx context.Context, log *slog.Logger, grace time.Duration, stages []stage) error {
	base, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	stop, begin := context.WithCancel(ctx)
	defer begin()
	var failure atomic.Pointer[error] // the first one
	fail := func(err error) {
		failure.CompareAndSwap(nil, &err)
		begin()
	}
	failed := func() error {
		if err := failure.Load(); err != nil {
			return *err
		}
		return nil
	}
	trigger := stop.Done()
	ended := make(map[string]<-chan struct{}, len(stages))
	for _, s := range stages {
		trigger = s.start(base, trigger, fail)
		ended[s.name] = trigger
	}
	all := make(chan struct{})
	go func() {
		defer close(all)
		for _, done := range ended {
			<-done
		}
	}()
	<-stop.Done()
	log.InfoContext(ctx, "stopping", slog.Duration("grace", grace))
	timer := time.NewTimer(grace + margin)
	defer timer.Stop()
	select {
	case <-all:
		return failed()
	case <-timer.C:
	}
	log.WarnContext(ctx, "the grace period is over: what is left is stopped at once")
	abort()
	timer.Reset(margin)
	select {
	case <-all:
		return failed()
	case <-timer.C:
	}
	var left []string
	for _, s := range stages {
		select {
		case <-ended[s.name]:
		default:
			left = append(left, s.name)
		}
	}
	return errors.Join(failed(), fmt.Errorf("stop: %s did not end within %s", strings.Join(left, ", "), grace+2*margin))
}

// start runs the stage; the channel is closed once it has been triggered and has
// ended. What ends before is a failure.
func (s stage) start(base context.Context, trigger <-chan struct{}, fail func(error)) <-chan struct{} {
	ctx, cancel := context.WithCancel(base)
	var all sync.WaitGroup
	for _, run := range s.runs {
		all.Go(func() {
			err := run(ctx)
			switch {
			case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
			case err == nil:
				fail(fmt.Errorf("%s: ended by itself", s.name))
			default:
				fail(fmt.Errorf("%s: %w", s.name, err))
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-trigger:
		case <-base.Done():
		}
		cancel()
		all.Wait()
	}()
	return done
}
