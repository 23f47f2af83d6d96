package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock-io/penstock/internal/event"
)

const (
	defaultFetchMaxWait  = 500 * time.Millisecond
	defaultFetchMaxBytes = 8 << 20
	// laneCount is how many fetches a reader has under way per broker.
	laneCount = 2
)

// chunk is what a fetch brought of one partition. It stays in the reader until
// it is taken; what its partition's cursor has left behind is dropped.
type chunk struct {
	TopicPartition
	records       []event.Record
	from, next    int64 // what was read; from is not kept when a part is taken
	highWatermark int64
	err           error
	lane          *lane // that holds its bytes; nil for a fault, and where it is set aside or was brought
	aside         bool  // it is set aside, or was
	brought       bool  // by a host's fetch
	bytes         int
}

// cursor is where a followed partition stands.
type cursor struct {
	TopicPartition
	of     *reader
	id     [16]byte // of the topic, once known
	next   int64    // the first offset that was not taken
	at     int64    // the next to fetch, ahead of next by what waits to be taken
	epoch  int32    // of the last record fetched, -1 where none was
	leader leader
	fails  int

	by      *lane // that fetches it, in this generation
	fresh   bool  // no fetch has looked at it yet
	paused  bool
	stopped bool    // by a fault
	check   bool    // epoch and offset have to be looked for in the log
	ranged  bool    // the broker did not have the offset
	broken  bool    // a batch could not be decoded: it has to be read once more
	stands  bool    // at such a batch, until it is time to read it again
	stuck   bool    // it stood there last, and no record has come since
	told    bool    // that the end was reached
	host    *cursor // whose fetches are this one's, too; see share
	guest   *cursor // the other side of it
	// generation changes with every jump: what was fetched before it is not
	// delivered.
	generation uint64
}

func (c *cursor) ready() bool {
	return c.by == nil && c.host == nil && c.sound()
}

// sound tells whether nothing stands in the way of fetching a partition.
func (c *cursor) sound() bool {
	return !c.paused && !c.stopped && !c.check && !c.ranged && !c.broken && !c.stands && c.leader.broker >= 0
}

// reader fetches the partitions that it follows. The lanes and the caretaker
// are its goroutines; mu guards all that they share, and is one for all readers of
// a cluster that may share what they fetch.
type reader struct {
	c       *Cluster
	limits  readLimits
	clients [laneCount]*kgo.Client
	ctx     context.Context //nolint:containedctx // The life of the goroutines, ended by close.
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu         *sync.Mutex
	cursors    map[TopicPartition]*cursor
	ids        map[string][16]byte // of the topics, from the first look or as told
	lanes      map[int32]*[laneCount]*lane
	chunks     []*chunk // in order of arrival; bounded by the lanes' bytes, and maxAside
	aside      int      // bytes of chunks that are set aside, or were
	generation uint64
	flow       flow // of records that came in
	role       role
	brought    int // bytes that hosts brought and that were not taken yet

	arrived chan struct{} // there is something to take
	work    chan struct{} // there is something for the caretaker
}

// readLimits bound a reader's fetches.
type readLimits struct {
	fetchLimits
	pace  time.Duration
	busy  float64       // records a second at which pace is kept in full; 0: always
	stand time.Duration // between two reads of a batch that cannot be decoded; 0: it is a fault
}

// limitsOf are the limits of a configuration, with defaults in place of zeros.
func limitsOf(maxWait time.Duration, maxBytes int, pace time.Duration, busy int) readLimits {
	if maxWait <= 0 {
		maxWait = defaultFetchMaxWait
	}
	if maxBytes <= 0 {
		maxBytes = defaultFetchMaxBytes
	}
	return readLimits{
		fetchLimits: fetchLimits{wait: maxWait, bytes: clamp32(maxBytes), partBytes: clamp32(max(maxBytes/4, 1))},
		pace:        pace, busy: float64(busy),
	}
}

func (c *Cluster) newReader(limits readLimits, as role) (*reader, error) {
	r := &reader{
		c: c, limits: limits, role: as, mu: new(sync.Mutex),
		cursors: map[TopicPartition]*cursor{}, ids: map[string][16]byte{}, lanes: map[int32]*[laneCount]*lane{},
		arrived: make(chan struct{}, 1), work: make(chan struct{}, 1),
	}
	for i := range r.clients {
		var err error
		if r.clients[i], err = c.newClient(); err != nil {
			for _, cl := range r.clients[:i] {
				cl.Close()
			}
			return nil, err
		}
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if as != alone {
		r.mu = &c.share.mu
		c.share.join(r)
	}
	r.wg.Go(r.takeCare)
	return r, nil
}

// close ends the goroutines and waits for them.
func (r *reader) close() {
	r.cancel()
	if r.role != alone {
		r.c.share.leave(r)
	}
	r.wg.Wait()
	r.mu.Lock()
	for _, c := range r.cursors {
		c.unstick()
	}
	r.mu.Unlock()
	for _, cl := range r.clients {
		cl.Close()
	}
}

// signal leaves one token in a channel of capacity one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// follow begins to read a partition at an offset, or moves there. epoch is the
// leader epoch of the record before it, -1 where it is not known.
func (r *reader) follow(tp TopicPartition, from int64, epoch int32) {
	meta := r.c.cached(tp.Topic)
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.cursors[tp]
	r.drop(tp)
	r.generation++
	c := &cursor{
		TopicPartition: tp, of: r, next: from, at: from, epoch: epoch, check: epoch >= 0,
		leader: leader{-1, -1}, fresh: true, generation: r.generation,
	}
	if old != nil {
		c.paused = old.paused
	}
	r.cursors[tp] = c
	if id, ok := r.ids[tp.Topic]; ok {
		c.id = id
	}
	if meta != nil && (c.id == meta.id || c.id == [16]byte{}) && meta.leader(tp.Partition).broker >= 0 {
		r.lead(c, meta)
	}
	if c.leader.broker < 0 || c.check {
		signal(r.work)
	}
}

// unfollow ends the reading of a partition; nothing more of it is taken.
func (r *reader) unfollow(tp TopicPartition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(tp)
	delete(r.cursors, tp)
}

// drop forgets what waits to be taken of a partition, and what is under way; it
// tells whether anything waited.
func (r *reader) drop(tp TopicPartition) bool {
	if c := r.cursors[tp]; c != nil {
		c.by = nil
		c.part()
		c.unstick()
	}
	kept := r.chunks[:0]
	for _, ch := range r.chunks {
		if ch.TopicPartition == tp {
			r.give(ch)
			continue
		}
		kept = append(kept, ch)
	}
	clear(r.chunks[len(kept):])
	dropped := len(kept) < len(r.chunks)
	r.chunks = kept
	return dropped
}

// give returns a chunk's bytes to where they are counted: with the lane that fetched
// them, or with what was set aside or brought.
func (r *reader) give(ch *chunk) {
	n := ch.bytes
	ch.bytes = 0
	switch {
	case ch.aside:
		r.aside -= n
	case ch.brought:
		r.brought -= n
	case ch.lane != nil && n > 0:
		ch.lane.bytes -= n
		signal(ch.lane.wake)
	}
}

// take returns what has arrived, up to a number of records (0: no limit). It
// never waits.
func (r *reader) take(limit int) []chunk {
	r.mu.Lock()
	defer r.mu.Unlock()
	var (
		out   []chunk
		taken int
		more  bool
	)
	kept := r.chunks[:0]
	for _, ch := range r.chunks {
		c := r.cursors[ch.TopicPartition]
		if ch.aside && c != nil && c.paused {
			kept = append(kept, ch)
			continue
		}
		if limit > 0 && taken >= limit {
			kept, more = append(kept, ch), true
			continue
		}
		part := *ch
		if room := limit - taken; limit > 0 && len(ch.records) > room {
			part.records = ch.records[:room:room]
			part.next = ch.records[room].Offset
			ch.records = ch.records[room:]
			kept, more = append(kept, ch), true
		} else {
			r.give(ch)
		}
		taken += len(part.records)
		if c != nil && part.err == nil {
			c.next = part.next
		}
		if len(part.records) > 0 {
			r.c.metrics.fetched.WithLabelValues(part.Topic).Add(float64(len(part.records)))
		}
		out = append(out, part)
	}
	clear(r.chunks[len(kept):])
	r.chunks = kept
	if more {
		signal(r.arrived)
	}
	return out
}

// fault stops a partition and tells why.
func (r *reader) fault(c *cursor, err error) {
	c.stopped = true
	c.part()
	r.c.metrics.faults.WithLabelValues(c.Topic).Inc()
	r.c.log.Warn("a partition's reading stopped", "topic", c.Topic, "partition", c.Partition, "offset", c.at, "error", err)
	r.arrive(c, &chunk{TopicPartition: c.TopicPartition, next: c.at, err: err})
}

// settle takes in what a lane's fetch brought, and tells whether that was
// records, and how long the next fetch is to be held back for others.
func (r *reader) settle(l *lane, resp *kmsg.FetchResponse, failure error) (brought bool, pace time.Duration) {
	parts := r.unpack(l, resp)
	r.mu.Lock()
	defer r.mu.Unlock()
	l.busy, l.held = false, false
	if failure != nil {
		r.unsettled(l, failure)
		return false, 0
	}
	records := 0
	for i := range parts {
		p := &parts[i]
		brought = brought || p.bytes > 0
		if c := r.cursors[p.TopicPartition]; c != nil && c.by == l {
			c.by, c.fresh = nil, false
			records += r.receive(l, c, p)
			r.meet(c)
		}
	}
	for _, c := range l.batch { // what the answer left out has not changed
		if c.by != l {
			continue
		}
		c.by, c.fresh, c.fails = nil, false, 0
		if c.told {
			continue
		}
		if end := l.session.end(c); end >= 0 && c.at >= end {
			c.told = true
			r.arrive(c, &chunk{TopicPartition: c.TopicPartition, from: c.at, next: c.at, highWatermark: end})
			r.meet(c)
		}
	}
	r.wake(l.broker)
	return brought, rest(r.limits.pace, r.flow.add(records, time.Now()), r.limits.busy)
}

// unsettled lets go of the partitions of a fetch that brought nothing. The
// caller holds mu.
func (r *reader) unsettled(l *lane, failure error) {
	again := errors.Is(failure, errAgain)
	for _, c := range l.batch {
		if c.by != l {
			continue
		}
		c.by = nil
		if !again {
			r.lost(c)
		}
	}
	switch {
	case again:
		signal(l.wake)
	case r.ctx.Err() == nil:
		r.c.metrics.fetchErrors.WithLabelValues(kindOf(failure)).Inc()
		r.c.log.Debug("a fetch failed", "broker", l.broker, "error", failure)
	}
}

// receive takes in one partition of an answer, and tells how many records it had.
func (r *reader) receive(l *lane, c *cursor, d *unpacked) (records int) {
	switch {
	case d.err == nil:
	case errors.Is(d.err, kerr.OffsetOutOfRange):
		c.ranged = true
		c.part()
		signal(r.work)
		return 0
	case errors.Is(d.err, ErrCorrupt): // as it came: whether it is so in the log has to be found out
		r.c.metrics.fetchErrors.WithLabelValues(kindCorrupt).Inc()
		c.broken = true
		c.fails++
		c.part()
		signal(r.work)
		return 0
	case passing(d.err):
		r.c.metrics.fetchErrors.WithLabelValues(kindOf(d.err)).Inc()
		r.lost(c)
		return 0
	default:
		r.fault(c, fmt.Errorf("read %s at offset %d: %w", c.TopicPartition, c.at, d.err))
		return 0
	}
	c.fails = 0
	if c.unstick() {
		r.c.log.Info("a batch that could not be decoded can be again", "topic", c.Topic, "partition", c.Partition, "offset", c.at)
	}
	if n := len(d.records); n > 0 {
		c.epoch = d.records[n-1].LeaderEpoch
	}
	if d.next == c.at && c.told {
		return 0
	}
	c.told = d.next >= d.highWatermark
	if d.next == c.at && !c.told {
		return 0
	}
	from := c.at
	if c.paused && r.aside+d.bytes > maxAside {
		c.told = false
		return 0
	}
	c.at = d.next
	l.bytes += d.bytes
	r.arrive(c, &chunk{
		TopicPartition: c.TopicPartition, records: d.records, from: from, next: d.next,
		highWatermark: d.highWatermark, lane: l, bytes: d.bytes,
	})
	c.bring(d)
	return len(d.records)
}

// lost marks a partition whose leader has to be found again.
func (r *reader) lost(c *cursor) {
	c.part()
	c.leader = leader{-1, -1}
	c.fails++
	signal(r.work)
}
