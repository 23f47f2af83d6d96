package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// corruptReads is how often a batch that cannot be decoded is read before that
	// counts: what a transfer has damaged is whole the next time, and so is what
	// another leader has that was elected meanwhile.
	corruptReads = 3
	// corruptAgain is how long a batch that was logged is not logged again.
	corruptAgain = 10 * time.Minute
	// StandStill is a good time between two reads of a batch that cannot be
	// decoded, for who must not go on without it: see TailConfig.Stand.
	StandStill = 30 * time.Second
)

// CorruptError tells of a batch that cannot be decoded, however often it is read.
// Nothing of it is handed over, and nothing behind it before a reader is told to
// go on there. It is of ErrCorrupt.
type CorruptError struct {
	TopicPartition
	Offset int64 // of its first record, or that was asked for where its head is not to be believed
	Next   int64 // the offset behind it; -1 where that is not known
	Why    string
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: %s: at offset %d: %s", e.TopicPartition, ErrCorrupt, e.Offset, e.Why)
}

// Is makes errors.Is(err, ErrCorrupt) hold.
func (*CorruptError) Is(target error) bool { return target == ErrCorrupt }

// batchHead is what stands in front of a batch of records (KIP-98): message
// format 2, the only one that Kafka 4 writes.
type batchHead struct {
	first, last int64 // offsets
	size        int   // of the whole batch, in bytes
	current     bool  // it is of format 2; else last and records are not known
	records     int   // that it says it has
}

// headOf reads the head of the batch that raw begins with; false where there is no
// whole batch.
func headOf(raw []byte) (h batchHead, ok bool) {
	const sized, headed = 12, 61 // bytes: offset and length; all before the records
	if len(raw) <= sized+4 {
		return h, false
	}
	h.first = int64(binary.BigEndian.Uint64(raw)) //nolint:gosec // as it stands there
	h.last = h.first
	h.size = sized + int(int32(binary.BigEndian.Uint32(raw[8:]))) //nolint:gosec // as it stands there
	if h.size <= sized || h.size > len(raw) {
		return h, false
	}
	if h.current = raw[16] == 2 && h.size >= headed; h.current {
		h.last = h.first + int64(int32(binary.BigEndian.Uint32(raw[23:])))      //nolint:gosec // as it stands there
		h.records = int(int32(binary.BigEndian.Uint32(raw[headed-4 : headed]))) //nolint:gosec // as it stands there
	}
	return h, true
}

// batches follows the client through the batches of an answer, and finds the first
// that it has not decoded whole: of one whose records are broken it says nothing
// itself, and goes on with the next.
type batches struct {
	unpacker
	raw  []byte // from the batch on that the client comes to next
	from int64  // the offset that was asked for
	seen int
	bad  batchHead
	rest []byte // from bad on; nil where there is none
}

// decoded comes behind each batch that the client has looked into.
func (b *batches) decoded(m kgo.FetchBatchMetrics) {
	h, ok := headOf(b.raw)
	if !ok {
		return
	}
	b.seen++
	if b.rest == nil && !b.ended && h.current && h.last >= b.from && m.NumRecords != h.records {
		b.bad, b.rest = h, b.raw
	}
	b.raw = b.raw[h.size:]
}

// judge cuts a partition's part of an answer off in front of the first batch that
// was not decoded; where that is the first of all, it is the error.
func (b *batches) judge(tp TopicPartition, d *decoded, rp *kmsg.FetchResponseTopicPartition) {
	why := "its records are not as many as it says"
	switch {
	case rp.ErrorCode == kerr.CorruptMessage.Code:
		d.err = &CorruptError{tp, b.from, -1, "the broker says that it is corrupt"}
		return
	case rp.ErrorCode != 0:
		return
	case b.rest == nil && d.err != nil: // the client did not get into it
		b.bad, _ = headOf(b.raw)
		b.rest = b.raw
	case b.rest == nil && b.seen == 0 && len(rp.RecordBatches) > 0:
		d.err = &CorruptError{tp, b.from, -1, "the broker's answer holds no whole batch"}
		return
	case b.rest == nil:
		return
	}
	if d.err != nil {
		why = d.err.Error()
	}
	first := b.bad.first
	if first > rp.HighWatermark { // so its head is not to be believed
		first = b.from
	}
	d.records, d.next, d.err = before(d.records, first), max(b.from, first), nil
	if n := len(d.records); n > 0 {
		d.next = max(d.next, d.records[n-1].Offset+1)
		return
	}
	if d.next == b.from {
		d.err = &CorruptError{tp, min(first, b.from), b.behind(rp.HighWatermark), why}
	}
}

// behind is the offset behind the bad batch: that of the next, or what its own head
// says, within what the log has.
func (b *batches) behind(end int64) int64 {
	if b.bad.size < len(b.rest) && b.bad.size > 0 {
		if following, ok := headOf(b.rest[b.bad.size:]); ok && following.first > b.from && following.first <= end {
			return following.first
		}
	}
	if next := b.bad.last + 1; b.bad.current && next > b.from && next <= end {
		return next
	}
	return -1
}

// corruption is a batch that was logged.
type corruption struct {
	offset int64
	at     time.Time
}

// corrupted counts and logs a batch that was read for the last time: once for all who
// meet it.
func (c *Cluster) corrupted(ctx context.Context, e *CorruptError) {
	c.metrics.corrupt.WithLabelValues(e.Topic).Inc()
	c.mu.Lock()
	was, known := c.corruptions[e.TopicPartition]
	now := time.Now()
	again := known && was.offset == e.Offset && now.Sub(was.at) < corruptAgain
	if !again {
		c.corruptions[e.TopicPartition] = corruption{e.Offset, now}
	}
	leader := c.topics[e.Topic].leader(e.Partition)
	c.mu.Unlock()
	if again {
		return
	}
	c.log.ErrorContext(ctx, "a batch of records in Kafka cannot be decoded", "topic", e.Topic, "partition", e.Partition,
		"offset", e.Offset, "next", e.Next, "broker", leader.broker, "reads", corruptReads, "error", e.Why,
		"remedy", "give the partition another leader, whose copy may be whole; see \"A batch that cannot be decoded\" in docs/operations.md")
}

// Behind tells where to go on behind a batch that cannot be decoded: at the log's end,
// where nothing tells where that batch ends.
func (c *Cluster) Behind(ctx context.Context, e *CorruptError) (int64, error) {
	if e.Next >= 0 {
		return e.Next, nil
	}
	return c.Offset(ctx, e.TopicPartition, End())
}

// stand keeps a partition from being read for a while: the batch that it has come to
// cannot be decoded. The caller holds mu.
func (r *reader) stand(c *cursor) {
	c.broken, c.stands = false, true
	if !c.stuck {
		c.stuck = true
		r.c.metrics.standing.WithLabelValues(c.Topic, partitionLabel(c.Partition)).Inc()
	}
	time.AfterFunc(r.limits.stand, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.ctx.Err() == nil && r.cursors[c.TopicPartition] == c && c.stands {
			c.stands, c.broken = false, true
			signal(r.work)
		}
	})
}

// unstick ends what stand says of a partition, and tells whether it was so. The caller
// holds mu.
func (c *cursor) unstick() bool {
	if !c.stuck {
		return false
	}
	c.stuck = false
	c.of.c.metrics.standing.WithLabelValues(c.Topic, partitionLabel(c.Partition)).Dec()
	return true
}
