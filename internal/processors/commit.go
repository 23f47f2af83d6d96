package processors

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// committing is what a committer needs of kafka.Group.
type committing interface {
	Commit(ctx context.Context, commits ...kafka.Commit) error
}

// committer commits offsets, the newest of every LP, one request at a time.
type committer struct {
	p        *Processor
	group    committing
	releases sync.WaitGroup

	mu      sync.Mutex
	pending map[engine.LP]engine.Commit
	some    chan struct{}
}

func newCommitter(p *Processor) *committer {
	return &committer{p: p, group: p.group, pending: map[engine.LP]engine.Commit{}, some: make(chan struct{}, 1)}
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

// commitPace is how long the committer rests after a commit: nobody waits for
// one. Who takes over meanwhile finds in the log that what it is given again has
// ended.
const commitPace = 50 * time.Millisecond

// commitAgain is how long a commit that failed waits before it is tried again.
const commitAgain = 200 * time.Millisecond

func (c *committer) run(ctx context.Context) error {
	for {
		select {
		case <-c.some:
		case <-ctx.Done():
			return ctx.Err()
		}
		rest := commitPace
		if !c.write(ctx, c.take()) {
			rest = commitAgain
		}
		if !sleep(ctx, rest) {
			return ctx.Err()
		}
	}
}

func (c *committer) take() []engine.Commit {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := make([]engine.Commit, 0, len(c.pending))
	for _, f := range c.pending {
		batch = append(batch, f)
	}
	clear(c.pending)
	return batch
}

// write commits a batch, and puts back what was not taken, for the engine does
// not say it again until there is more to say. Nothing is lost meanwhile: who
// takes over without it finds in the log what is done.
func (c *committer) write(ctx context.Context, batch []engine.Commit) (ok bool) {
	if len(batch) == 0 {
		return true
	}
	commits := make([]kafka.Commit, len(batch))
	for i := range batch {
		commits[i] = c.p.commitOf(&batch[i])
	}
	bounded, cancel := context.WithTimeout(ctx, commitTimeout)
	err := c.group.Commit(bounded, commits...)
	cancel()
	c.p.metrics.committed(err)
	switch {
	case err == nil:
		return true
	case !errors.Is(err, kafka.ErrNotMember):
		if ctx.Err() == nil {
			c.p.log.WarnContext(ctx, "a commit failed", "partitions", len(batch), "error", err)
		}
		c.putBack(batch)
		return false
	case len(batch) == 1:
		return true // it is another's, who will find what was done
	default: // one that is another's must not take the others with it
		for i := range batch {
			if !c.write(ctx, batch[i:i+1]) {
				c.putBack(batch[i+1:])
				return false
			}
		}
		return true
	}
}

func (c *committer) putBack(batch []engine.Commit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range batch {
		if _, newer := c.pending[f.LP]; !newer {
			c.pending[f.LP] = f
		}
	}
	signal(c.some)
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
		err := p.group.Commit(ctx, p.commitOf(f.Commit))
		p.metrics.committed(err)
		if err != nil {
			p.log.Warn("a commit failed", "partitions", 1, "error", err)
		}
		if _, err := p.pulses.Append(ctx, p.pulseRecord(f.Pulse)); err != nil {
			p.log.Warn("a release was not told: the next owner waits out the lease", "error", err)
		}
	})
}

// committed counts a commit.
func (m *metrics) committed(err error) {
	result := "ok"
	switch {
	case errors.Is(err, kafka.ErrNotMember):
		result = "not_member"
	case err != nil:
		result = "failed"
	}
	m.commits.WithLabelValues(result).Inc()
}
