package processors

import (
	"context"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// committer commits offsets, the newest of every LP, one request at a time.
type committer struct {
	p        *Processor
	releases sync.WaitGroup

	mu      sync.Mutex
	pending map[engine.LP]engine.Commit
	some    chan struct{}
}

func newCommitter(p *Processor) *committer {
	return &committer{p: p, pending: map[engine.LP]engine.Commit{}, some: make(chan struct{}, 1)}
}

func (c *committer) put(f engine.Commit) {
	c.mu.Lock()
	c.pending[f.LP] = f
	c.mu.Unlock()
	signal(c.some)
}

// forget drops what is pending of a LP that is let go with a commit of its own.
func (c *committer) forget(lp engine.LP) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, lp)
}

// commitTimeout bounds one commit; a later one says more.
const commitTimeout = 2 * time.Second

func (c *committer) run(ctx context.Context) error {
	for {
		select {
		case <-c.some:
		case <-ctx.Done():
			return ctx.Err()
		}
		c.mu.Lock()
		batch := make([]kafka.Commit, 0, len(c.pending))
		for _, f := range c.pending {
			batch = append(batch, c.p.commitOf(&f))
		}
		clear(c.pending)
		c.mu.Unlock()
		bounded, cancel := context.WithTimeout(ctx, commitTimeout)
		err := c.p.group.Commit(bounded, batch...)
		cancel()
		if err != nil && ctx.Err() == nil {
			// Nothing is lost: the next commit covers this one, and who takes
			// over without it finds in the log what is done.
			c.p.log.Warn("a commit failed", "partitions", len(batch), "error", err)
		}
	}
}

func (p *Processor) commitOf(f *engine.Commit) kafka.Commit {
	return kafka.Commit{TopicPartition: p.requests(f.LP), Next: f.Next, LeaderEpoch: -1, Metadata: f.Metadata}
}

// release commits, says so in the pulse and lets the LP go, in a goroutine of
// its own: at most one a LP.
func (p *Processor) release(f engine.Release) {
	p.commit.forget(f.LP)
	p.commit.releases.Go(func() {
		defer p.intake.released(f.LP)
		if f.Commit == nil {
			return
		}
		ctx, cancel := context.WithTimeout(p.alive, commitTimeout)
		defer cancel()
		if err := p.group.Commit(ctx, p.commitOf(f.Commit)); err != nil {
			p.log.Warn("a commit failed", "partitions", 1, "error", err)
		}
		if _, err := p.pulses.Append(ctx, p.pulseRecord(f.Pulse)); err != nil {
			p.log.Warn("a release was not told: the next owner waits out the lease", "error", err)
		}
	})
}
