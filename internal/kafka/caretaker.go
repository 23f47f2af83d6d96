package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// missingTries is how often a topic that is not there is asked for before its
// partitions are stopped: a deleted topic may be about to come back, and a new
// one not yet be known everywhere. With backoff it is some three seconds.
const missingTries = 8

const (
	// questionsAtOnce bounds the questions about positions in doubt that are under way.
	questionsAtOnce = 16
	// questionTimeout bounds one of them; it is asked again.
	questionTimeout = 5 * time.Second
)

// takeCare finds leaders, and what became of positions that a broker does not
// have, and of batches that could not be decoded, until the reader is closed.
func (r *reader) takeCare() {
	fails := 0
	for {
		select {
		case <-r.work:
		case <-r.ctx.Done():
			return
		}
		for r.leaderless() || r.doubtful() {
			leaderless := r.findLeaders() // which keeps nobody else's question waiting
			if wait := r.resolve() || leaderless; !wait {
				fails = 0
				continue
			}
			fails++
			if !waitFor(r, fails) {
				return
			}
		}
	}
}

func waitFor(r *reader, fails int) bool { return wait(r.ctx, backoff(fails)) }

func (r *reader) leaderless() bool { return r.any(func(c *cursor) bool { return c.leader.broker < 0 }) }

func (r *reader) doubtful() bool {
	return r.any(func(c *cursor) bool { return c.check || c.ranged || c.broken })
}

func (r *reader) any(is func(*cursor) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.cursors {
		if !c.stopped && is(c) {
			return true
		}
	}
	return false
}

// findLeaders asks once for the topics of partitions without a leader, and
// tells whether to wait before asking again.
func (r *reader) findLeaders() bool {
	r.mu.Lock()
	names := map[string]bool{}
	for _, c := range r.cursors {
		if c.leader.broker < 0 && !c.stopped {
			names[c.Topic] = names[c.Topic] || c.fails > 1
		}
	}
	r.mu.Unlock()
	again := false
	for name, failing := range names {
		meta, err := r.c.refresh(r.ctx, name)
		r.mu.Lock()
		for _, c := range r.cursors {
			if c.Topic != name || c.leader.broker >= 0 || c.stopped {
				continue
			}
			if err != nil {
				c.fails++
				if errors.Is(err, ErrUnknownTopic) && c.fails > missingTries {
					r.fault(c, err)
				}
				again = true
				continue
			}
			r.found(c, meta)
			again = again || failing || c.leader.broker < 0 && !c.stopped
		}
		r.mu.Unlock()
	}
	return again
}

// found gives a partition its leader, or stops it where the topic is another.
func (r *reader) found(c *cursor, meta *topicMeta) {
	switch {
	case c.id != [16]byte{} && c.id != meta.id:
		r.fault(c, fmt.Errorf("%s: %w: what was read stands in the topic of id %x, this one is %x",
			c.TopicPartition, ErrRecreated, c.id, meta.id))
	case c.Partition < 0 || int(c.Partition) >= len(meta.leaders):
		r.fault(c, fmt.Errorf("%w: %s has %d partitions, and %d was asked for",
			ErrUnknownTopic, c.Topic, len(meta.leaders), c.Partition))
	case meta.leader(c.Partition).broker < 0:
		c.fails++
	default:
		r.lead(c, meta)
	}
}

// lead lets a partition be fetched from its leader. Where the leader's epoch is
// another than that of the last record, the log may have lost something in the
// change, and has to be asked first.
func (r *reader) lead(c *cursor, meta *topicMeta) {
	c.id = meta.id
	if _, ok := r.ids[c.Topic]; !ok {
		r.ids[c.Topic] = meta.id
	}
	c.leader = meta.leader(c.Partition)
	if c.epoch >= 0 && c.leader.epoch != c.epoch {
		c.check = true
	}
	if c.check {
		signal(r.work)
		return
	}
	r.wake(c.leader.broker)
}

// question is a position in doubt, as it was when it was asked about.
type question struct {
	cursor     *cursor
	generation uint64
	at         int64
	epoch      int32
	ranged     bool
	broken     bool
}

// resolve asks the log about positions in doubt, side by side, for one broker's
// silence is not to be waited for by others' partitions. It tells whether to wait
// before asking again.
func (r *reader) resolve() bool {
	var questions []question
	r.mu.Lock()
	for _, c := range r.cursors {
		if !c.stopped && (c.check || c.ranged || c.broken) {
			questions = append(questions, question{c, c.generation, c.at, c.epoch, c.ranged, c.broken})
		}
	}
	r.mu.Unlock()
	var (
		asked errgroup.Group
		again atomic.Bool
	)
	asked.SetLimit(questionsAtOnce)
	for _, q := range questions {
		asked.Go(func() error {
			ctx, cancel := context.WithTimeout(r.ctx, questionTimeout)
			defer cancel()
			if r.answered(q, r.ask(ctx, q)) {
				again.Store(true)
			}
			return nil
		})
	}
	_ = asked.Wait()
	return again.Load()
}

func (r *reader) ask(ctx context.Context, q question) error {
	if q.ranged {
		return r.c.outOfRange(ctx, q.cursor.TopicPartition, q.at)
	}
	if q.broken {
		_, err := r.c.Fetch(ctx, q.cursor.TopicPartition, q.at, 1, 0) // a broker always gives one batch
		return err
	}
	return r.c.CheckEpoch(ctx, q.cursor.TopicPartition, q.at, q.epoch)
}

// answered takes in what became of a question, and tells whether it is to be asked
// again.
func (r *reader) answered(q question, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch c := q.cursor; {
	case c.generation != q.generation || r.cursors[c.TopicPartition] != c:
		return false
	case errors.Is(err, ErrCorrupt) && r.limits.stand > 0:
		r.stand(c)
		return false
	case err == nil, errors.Is(err, ErrTruncated), errors.Is(err, ErrOutOfRange), errors.Is(err, ErrCorrupt):
		c.check, c.ranged, c.broken = false, false, false
		if err != nil {
			r.fault(c, err)
		} else {
			r.wake(c.leader.broker)
		}
		return q.broken && c.fails > 1
	case errors.Is(err, ErrUnknownTopic): // let findLeaders tell
		c.check, c.ranged = c.epoch >= 0, q.ranged
		r.lost(c)
	}
	return true
}
