package processors

import (
	"context"
	"errors"
	"sync"

	"github.com/penstock-io/penstock/internal/processors/engine"
)

// errShut says that a call's lane is not this process's any more.
var errShut = errors.New("the lane is not owned any more")

// gate stands between the calls of a lane's incarnation and the log. It is held
// from the moment a claim is appended until the claim is read back, so that no
// output of an older epoch stands behind it; and once it is shut, nothing of
// that incarnation is written any more.
type gate struct {
	lp     engine.LP
	gen    uint64
	ctx    context.Context //nolint:containedctx // of the incarnation's calls
	cancel context.CancelFunc

	// Readings of what was said before: of jobs whose place in the log is known,
	// with the epoch in force there, and of those that are looked for by their
	// ids' times. They do not mix, for only the former know an epoch.
	known, repeats *recaller

	mu      sync.Mutex
	open    bool
	epoch   int64
	changed chan struct{} // closed at the next change
}

func newGate(ctx context.Context, lp engine.LP, gen uint64) *gate {
	g := &gate{lp: lp, gen: gen, changed: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

// hold keeps outputs back, and runs claim while none can be written.
func (g *gate) hold(claim func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = false
	claim()
}

// let opens the gate for an epoch.
func (g *gate) let(epoch int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.epoch = true, epoch
	close(g.changed)
	g.changed = make(chan struct{})
}

// shut ends the incarnation. When it returns, nothing more is written.
func (g *gate) shut() {
	g.cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = false
}

// pass runs write with the epoch to write under, once the gate is open. Writes
// of one gate exclude each other, so their order is the log's.
func (g *gate) pass(ctx context.Context, write func(epoch int64) error) error {
	for {
		g.mu.Lock()
		if g.ctx.Err() != nil {
			g.mu.Unlock()
			return errShut
		}
		if g.open {
			err := write(g.epoch)
			g.mu.Unlock()
			return err
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-g.ctx.Done():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
