package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/kafka"
)

// hub follows the partitions that somebody needs and keeps their newest records.
type hub struct {
	cfg     *Config
	log     Log
	newTail func(kafka.TailConfig) (Tail, error)
	metrics *metrics
	reads   *reads
	begun   chan struct{} // closed when there is a tail

	mu     sync.Mutex     // taken before a partition's
	topic  cursor.TopicID // zero until the first partition is followed
	tail   Tail           // of that topic
	reborn int            // how often the topic was found to be another one
	closed bool
	bytes  int
	oldest []held // every segment in the order in which they came
	parts  []*partition
}

// held is a segment in its partition.
type held struct {
	part    *partition
	segment *segment
}

func newHub(cfg *Config, log Log, newTail func(kafka.TailConfig) (Tail, error), m *metrics) *hub {
	h := &hub{
		cfg: cfg, log: log, newTail: newTail, metrics: m,
		reads: newReads(cfg.CatchUpReads), begun: make(chan struct{}),
	}
	for i := range cfg.Partitions {
		h.parts = append(h.parts, &partition{id: i, opening: make(chan struct{}, 1)})
	}
	return h
}

func (h *hub) of(p int32) kafka.TopicPartition {
	return kafka.TopicPartition{Topic: h.cfg.Names.Tokens(), Partition: p}
}

// born returns the topic's id, and how often it has changed.
func (h *hub) born() (cursor.TopicID, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.topic, h.reborn
}

// acquire says that a partition is needed, and waits until it is followed. Each
// success needs a release.
func (h *hub) acquire(ctx context.Context, id int32) (*partition, error) {
	p := h.parts[id]
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, errDraining()
	}
	p.refs++
	if p.linger != nil {
		p.linger.Stop()
		p.linger = nil
	}
	h.mu.Unlock()
	if err := h.follow(ctx, p); err != nil {
		h.release(p)
		return nil, err
	}
	return p, nil
}

// release takes one acquire back. The partition stays followed for a while,
// since the next reader is likely to come soon.
func (h *hub) release(p *partition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.refs--
	if p.refs > 0 || h.closed {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(h.cfg.Linger, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if p.linger == timer && !h.closed {
			p.linger = nil
			h.dropLocked(p)
		}
	})
	p.linger = timer
}

// dropLocked stops following.
func (h *hub) dropLocked(p *partition) {
	if _, followed := p.end(); !followed {
		return
	}
	h.tail.Unfollow(p.id)
	h.forgetLocked(p)
}

func (h *hub) forgetLocked(p *partition) {
	h.bytes -= p.shut()
	kept := h.oldest[:0]
	for _, o := range h.oldest {
		if o.part != p {
			kept = append(kept, o)
		}
	}
	clear(h.oldest[len(kept):])
	h.oldest = kept
	h.metrics.followed.Dec()
	h.metrics.held(h.bytes, len(h.oldest))
}

// follow makes sure that a partition, which the caller has acquired, is followed.
// It takes Config.Patience at most, the wait for others who ask among it: while
// Kafka is away each of them would have to find that out in turn.
func (h *hub) follow(ctx context.Context, p *partition) error {
	if _, followed := p.end(); followed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Patience)
	defer cancel()
	select { // one asks, the others wait for what it finds
	case p.opening <- struct{}{}:
		defer func() { <-p.opening }()
	case <-ctx.Done():
		return fmt.Errorf("follow %s: %w", h.of(p.id), ctx.Err())
	}
	if _, followed := p.end(); followed {
		return nil
	}
	var (
		end   int64
		topic cursor.TopicID
	)
	ask, actx := errgroup.WithContext(ctx)
	ask.Go(func() (err error) {
		end, err = h.log.Offset(actx, h.of(p.id), kafka.End())
		return err //nolint:wrapcheck // wrapped below
	})
	ask.Go(func() error {
		id, err := h.log.TopicID(actx, h.cfg.Names.Tokens())
		topic = id
		return err //nolint:wrapcheck // wrapped below
	})
	if err := ask.Wait(); err != nil {
		return fmt.Errorf("follow %s: %w", h.of(p.id), err)
	}
	now := h.cfg.Now()
	if err := h.renew(ctx, topic); err != nil {
		return fmt.Errorf("follow %s: %w", h.of(p.id), err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.topic != topic { // a second change within a breath
		return errDraining()
	}
	p.open(end, now)
	h.metrics.followed.Inc()
	h.tail.Follow(p.id, end)
	return nil
}

// tailPace is how long the tail rests after records where busyTail or more come a
// second: a watcher's next write has the more in it, and Kafka is asked seldom.
const (
	tailPace = 20 * time.Millisecond
	busyTail = 40_000
)

// renew notes the topic's id. If it is another one than before, all that is
// known of the old topic goes, and every reader is told.
func (h *hub) renew(ctx context.Context, topic cursor.TopicID) error {
	h.mu.Lock()
	if h.closed || topic == h.topic {
		h.mu.Unlock()
		return nil
	}
	fresh, err := h.newTail(kafka.TailConfig{Topic: h.cfg.Names.Tokens(), TopicID: topic, Pace: tailPace, Busy: busyTail, Host: true})
	if err != nil {
		h.mu.Unlock()
		return fmt.Errorf("make a tail of %s: %w", h.cfg.Names.Tokens(), err)
	}
	old := h.tail
	if old == nil {
		close(h.begun)
	} else {
		h.cfg.Logger.ErrorContext(ctx, "the token topic was deleted and created anew", slog.String("topic", h.cfg.Names.Tokens()))
		h.reborn++
		for _, p := range h.parts {
			h.dropLocked(p)
		}
	}
	h.tail, h.topic = fresh, topic
	h.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

// refresh asks for the topic's id again.
func (h *hub) refresh(ctx context.Context) error {
	topic, err := h.log.TopicID(ctx, h.cfg.Names.Tokens())
	if err != nil {
		return fmt.Errorf("ask for the id of %s: %w", h.cfg.Names.Tokens(), err)
	}
	return h.renew(ctx, topic)
}

// pollPause is how long the tail rests after an error that it did not expect.
const pollPause = 200 * time.Millisecond

// run takes in what the tail brings, until ctx ends.
func (h *hub) run(ctx context.Context) error {
	defer h.close()
	select {
	case <-h.begun:
	case <-ctx.Done():
		return nil
	}
	for ctx.Err() == nil {
		h.mu.Lock()
		tail := h.tail
		h.mu.Unlock()
		chunks, err := tail.Poll(ctx)
		if err != nil && !errors.Is(err, kafka.ErrClosed) && ctx.Err() == nil { // closed: another has taken its place
			h.cfg.Logger.WarnContext(ctx, "tail not read", slog.Any("error", err))
			pause(ctx, pollPause)
		}
		for i := range chunks {
			h.take(ctx, tail, &chunks[i])
		}
	}
	return nil
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// take takes one chunk in that a tail brought. Only run calls it.
func (h *hub) take(ctx context.Context, from Tail, c *kafka.Chunk) {
	p := h.parts[c.Partition]
	if c.Err != nil {
		if corrupt, ok := errors.AsType[*kafka.CorruptError](c.Err); !ok || !h.passOver(from, p, corrupt) {
			h.fail(ctx, p, c.Err)
		}
		return
	}
	tip, followed := p.tip()
	if !followed || c.Next <= tip.next || c.From > tip.next {
		return // of an earlier follow
	}
	entries, bytes := scan(c.Records, tip.next)
	s := newSegment(tip, entries, bytes, c.Next, h.cfg.Now())
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.keepLocked(from, p, s) {
		return
	}
	if len(c.Records) > 0 {
		h.metrics.delay.Observe(max(0, s.taken.Sub(c.Records[0].Time).Seconds()))
	}
}

// passOver goes on behind a batch that cannot be decoded, and leaves a hole in the
// window that all readers are told of. It tells whether it could.
func (h *hub) passOver(from Tail, p *partition, e *kafka.CorruptError) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	tip, followed := p.tip()
	if !followed || e.Next <= tip.next || !h.keepLocked(from, p, newHole(tip, e.Next, h.cfg.Now())) {
		return false
	}
	from.Follow(p.id, e.Next)
	return true
}

// keepLocked adds a segment to its partition's window, and makes room for it. It tells
// whether it still belongs there.
func (h *hub) keepLocked(from Tail, p *partition, s *segment) bool {
	if from != h.tail || !p.add(s) { // what is of a topic that is no more is not in the new one
		return false
	}
	h.bytes += s.bytes
	h.oldest = append(h.oldest, held{p, s})
	drop := 0
	for ; h.bytes > h.cfg.BudgetBytes && drop < len(h.oldest); drop++ {
		o := h.oldest[drop]
		if o.part.evict(o.segment) {
			h.bytes -= o.segment.bytes
			h.metrics.evicted.Inc()
		}
	}
	clear(h.oldest[:drop])
	h.oldest = h.oldest[drop:]
	h.metrics.held(h.bytes, len(h.oldest))
	return true
}

// fail stops following a partition that the tail stopped at. Its readers begin
// to follow it anew, and find out for themselves what became of their positions.
func (h *hub) fail(ctx context.Context, p *partition, err error) {
	h.cfg.Logger.WarnContext(ctx, "tail stopped at a partition", slog.String("partition", h.of(p.id).String()), slog.Any("error", err))
	h.mu.Lock()
	h.dropLocked(p)
	h.mu.Unlock()
	if errors.Is(err, kafka.ErrRecreated) || errors.Is(err, kafka.ErrUnknownTopic) {
		if err := h.refresh(ctx); err != nil {
			h.cfg.Logger.WarnContext(ctx, "topic not asked for", slog.Any("error", err))
		}
	}
}

// close forgets everything and lets nobody in any more.
func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	for _, p := range h.parts {
		if p.linger != nil {
			p.linger.Stop()
			p.linger = nil
		}
		h.dropLocked(p)
	}
	tail := h.tail
	h.mu.Unlock()
	if tail != nil {
		tail.Close()
	}
}

// read reads one piece of a partition from Kafka and lets use have it. A bounded
// number of pieces are in memory at once, so use must not wait for anybody. It
// takes Config.Patience at most, the wait for its turn among it.
func (h *hub) read(ctx context.Context, tp kafka.TopicPartition, from int64, use func(kafka.Fetched)) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Patience)
	defer cancel()
	if err := h.reads.begin(ctx, tp); err != nil {
		return fmt.Errorf("read %s: %w", tp, err)
	}
	defer h.reads.end(tp)
	h.metrics.catchUps.Inc()
	got, err := h.log.Fetch(ctx, tp, from, h.cfg.CatchUpBytes, 0)
	if err != nil {
		h.metrics.catchUpErrs.Inc()
		return fmt.Errorf("read %s at %d: %w", tp, from, err)
	}
	for i := range got.Records {
		h.metrics.catchUpByte.Add(float64(len(got.Records[i].Value)))
	}
	use(got)
	return nil
}

// readOf is read of a topic of a certain id. Where another has its name by now, the error
// is of ErrRecreated.
func (h *hub) readOf(ctx context.Context, id cursor.TopicID, tp kafka.TopicPartition, from int64, use func(kafka.Fetched)) error {
	own := true
	err := h.read(ctx, tp, from, func(got kafka.Fetched) {
		if own = got.TopicID == id; own {
			use(got)
		}
	})
	if err == nil && !own {
		return fmt.Errorf("read %s at %d: %w", tp, from, kafka.ErrRecreated)
	}
	return err
}

// errDraining is what late-comers get at shutdown.
func errDraining() error {
	f := fault.New(fault.Unavailable, "the server is shutting down: connect again, and another one will answer")
	f.RetryAfter = soonestBack
	return f
}
