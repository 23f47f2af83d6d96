//go:build !linux

package bench

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// taps read the sockets of many watchers.
type taps struct {
	ctx  context.Context //nolint:containedctx // of the run
	work *errgroup.Group
}

func newTaps(ctx context.Context, work *errgroup.Group, _ int) (*taps, error) {
	return &taps{ctx: ctx, work: work}, nil
}

// add has a watcher's socket read, by a goroutine of its own.
func (t *taps) add(w *watcher) error {
	spawn(t.ctx, t.work, w)
	return nil
}
