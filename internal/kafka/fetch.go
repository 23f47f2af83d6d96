package kafka

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock-io/penstock/internal/event"
)

const (
	// scanBytes is what one step of a Scan asks for, and so about the most that
	// a scan holds in memory; a single larger batch still comes whole.
	scanBytes = 1 << 20
	// scanPatience is how long a Scan waits for a log to reach an end that it
	// was told of, as after a change of leader.
	scanPatience = 5 * time.Second
	// scanPause is between two looks at a log that has not got there.
	scanPause = 10 * time.Millisecond
)

// wanted is one partition of a raw fetch.
type wanted struct {
	TopicPartition
	id     [16]byte
	offset int64
	epoch  int32 // of the leader, as known here
}

// fetchLimits bound a raw fetch.
type fetchLimits struct {
	wait      time.Duration // how long the broker may wait for a record
	bytes     int32         // of the answer
	partBytes int32         // of a partition's part of it
}

// request is a Fetch request of these limits that names no partition yet, and
// has no session.
func (l fetchLimits) request() *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = clamp32(int(l.wait.Milliseconds()))
	req.MinBytes = 1
	req.MaxBytes = l.bytes
	req.SessionEpoch = noSession
	return req
}

// name adds a partition to a request.
func name(req *kmsg.FetchRequest, w wanted, limits fetchLimits) {
	i := slices.IndexFunc(req.Topics, func(t kmsg.FetchRequestTopic) bool { return t.Topic == w.Topic && t.TopicID == w.id })
	if i < 0 {
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID = w.Topic, w.id
		i = len(req.Topics)
		req.Topics = append(req.Topics, t)
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition = w.Partition
	p.FetchOffset = w.offset
	p.CurrentLeaderEpoch = w.epoch
	p.PartitionMaxBytes = limits.partBytes
	req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
}

// send sends a Fetch request to a broker; parts are those that the answer may
// hold, which gives its topics their names and ids: newer versions name them by
// id alone, older ones by name.
func send(ctx context.Context, cl *kgo.Client, broker int32, req *kmsg.FetchRequest, parts []wanted) (*kmsg.FetchResponse, error) {
	resp, err := cl.Broker(int(broker)).Request(ctx, req)
	if err != nil {
		return nil, err
	}
	fr, ok := resp.(*kmsg.FetchResponse)
	if !ok {
		return nil, fmt.Errorf("a fetch was answered with %T", resp)
	}
	if err := kerr.ErrorForCode(fr.ErrorCode); err != nil {
		return nil, err
	}
	for i := range fr.Topics {
		t := &fr.Topics[i]
		for _, w := range parts {
			if t.Topic == w.Topic || t.Topic == "" && t.TopicID == w.id {
				t.Topic, t.TopicID = w.Topic, w.id
				break
			}
		}
	}
	return fr, nil
}

// clamp32 is a number that the protocol has 32 bits for.
func clamp32(n int) int32 {
	if n < 0 {
		return 0
	}
	if n > math.MaxInt32 {
		return math.MaxInt32
	}
	return int32(n)
}

// decoded is a partition's part of a fetch.
type decoded struct {
	records       []event.Record
	next          int64
	highWatermark int64
	logStart      int64
	topic         [16]byte // id, where fetchOne has asked
	err           error    // kerr of the broker, or what was wrong with the batch
}

// decode reads a partition's part of an answer; from is what was asked for.
func (c *Cluster) decode(topic string, from int64, rp *kmsg.FetchResponseTopicPartition) decoded {
	b := &batches{unpacker: unpacker{Decompressor: c.unpack}, raw: rp.RecordBatches, from: from}
	fp, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: from, Topic: topic, Partition: rp.Partition,
	}, rp, b, b.decoded)
	d := decoded{
		next: max(next, from), highWatermark: fp.HighWatermark, logStart: fp.LogStartOffset, err: fp.Err,
	}
	if rec, behind, ok := unread(topic, rp.Partition, fp.Err); ok && (b.rest == nil || behind == b.bad.last+1) {
		d.records, d.next, d.err = []event.Record{rec}, behind, nil
		return d
	}
	d.records = recordsOf(fp.Records)
	b.judge(TopicPartition{topic, rp.Partition}, &d, rp)
	return d
}

func recordsOf(fetched []*kgo.Record) []event.Record {
	if len(fetched) == 0 {
		return nil
	}
	headers := 0
	for _, r := range fetched {
		headers += len(r.Headers)
	}
	all := make([]event.Header, 0, headers) // one allocation for those of all records
	records := make([]event.Record, len(fetched))
	for i, r := range fetched {
		rec := &records[i]
		*rec = event.Record{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, LeaderEpoch: r.LeaderEpoch,
			Key: r.Key, Value: r.Value, Time: r.Timestamp,
		}
		if n := len(all); len(r.Headers) > 0 {
			for _, h := range r.Headers {
				all = append(all, event.Header(h))
			}
			rec.Headers = all[n:len(all):len(all)]
		}
	}
	return records
}

// Fetched is what one Fetch brought.
type Fetched struct {
	Records       []event.Record
	Next          int64 // the offset to go on from
	HighWatermark int64 // the log's end
	LogStart      int64 // the log's start
	TopicID       [16]byte
}

// Fetch reads from an offset, once: up to about maxBytes, waiting up to maxWait
// where the log has nothing yet. Nothing in that time is no error. At most
// longPolls calls with a maxWait run at the same time, others wait their turn. A
// batch that cannot be decoded is a CorruptError, once it was read corruptReads times.
func (c *Cluster) Fetch(ctx context.Context, tp TopicPartition, from int64, maxBytes int32, maxWait time.Duration) (Fetched, error) {
	cl := c.client
	if maxWait > 0 {
		var (
			giveBack func()
			err      error
		)
		if cl, giveBack, err = c.longPoll(ctx); err != nil {
			return Fetched{}, err
		}
		defer giveBack()
	}
	limits := fetchLimits{wait: maxWait, bytes: maxBytes, partBytes: maxBytes}
	doing := fmt.Sprintf("read %s at offset %d", tp, from)
	for fails := 1; ; fails++ {
		d, err := c.fetchOne(ctx, cl, tp, from, limits)
		if err == nil {
			c.metrics.fetched.WithLabelValues(tp.Topic).Add(float64(len(d.records)))
			return Fetched{Records: d.records, Next: d.next, HighWatermark: d.highWatermark, LogStart: d.logStart, TopicID: d.topic}, nil
		}
		if errors.Is(err, kerr.OffsetOutOfRange) {
			return Fetched{}, c.outOfRange(ctx, tp, from)
		}
		if corrupt, ok := errors.AsType[*CorruptError](err); ok && fails >= corruptReads {
			c.corrupted(ctx, corrupt)
			return Fetched{}, err
		}
		if errors.Is(err, ErrClosed) || errors.Is(err, kgo.ErrClientClosed) || !passing(err) || fails > 3 && errors.Is(err, ErrUnknownTopic) {
			return Fetched{}, unavailable(doing, err)
		}
		c.metrics.fetchErrors.WithLabelValues(kindOf(err)).Inc()
		if ctx.Err() != nil || !wait(ctx, backoff(fails)) {
			return Fetched{}, fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
		}
		_, _ = c.refresh(ctx, tp.Topic) // where it fails the next attempt says so
	}
}

// fetchOne reads one partition from its leader, as known.
func (c *Cluster) fetchOne(ctx context.Context, cl *kgo.Client, tp TopicPartition, from int64, limits fetchLimits) (decoded, error) {
	m, err := c.topic(ctx, tp.Topic)
	if err != nil {
		return decoded{}, err
	}
	if tp.Partition < 0 || int(tp.Partition) >= len(m.leaders) {
		return decoded{}, fmt.Errorf("%w: %s has %d partitions", ErrUnknownTopic, tp.Topic, len(m.leaders))
	}
	l := m.leader(tp.Partition)
	if l.broker < 0 {
		return decoded{}, kerr.LeaderNotAvailable
	}
	parts := []wanted{{tp, m.id, from, l.epoch}}
	req := limits.request()
	name(req, parts[0], limits)
	resp, err := send(ctx, cl, l.broker, req, parts)
	if err != nil {
		return decoded{}, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return decoded{}, fmt.Errorf("%w: the broker left the partition out of its answer", ErrUnavailable)
	}
	d := c.decode(tp.Topic, from, &resp.Topics[0].Partitions[0])
	d.topic = m.id
	return d, d.err
}

// passing tells whether trying again may help.
func passing(err error) bool {
	if ke, ok := errors.AsType[*kerr.Error](err); ok {
		return ke.Retriable || ke == kerr.FencedLeaderEpoch
	}
	return !errors.Is(err, ErrRecreated)
}

// kindCorrupt is what a metric calls a batch that could not be decoded, once.
const kindCorrupt = "corrupt"

// kindOf names a fetch error in a metric.
func kindOf(err error) string {
	if ke, ok := errors.AsType[*kerr.Error](err); ok {
		return ke.Message
	}
	if errors.Is(err, ErrCorrupt) {
		return kindCorrupt
	}
	return "no_answer"
}

// outOfRange says what an offset is that a broker does not have: before the
// start, or lost.
func (c *Cluster) outOfRange(ctx context.Context, tp TopicPartition, offset int64) error {
	first, err := c.Offset(ctx, tp, Start())
	if err != nil {
		return err
	}
	if offset < first {
		return &OutOfRangeError{TopicPartition: tp, Offset: offset, Earliest: first}
	}
	end, err := c.Offset(ctx, tp, End())
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w: offset %d was asked for, the log ends at %d", tp, ErrTruncated, offset, end)
}

// longPoll takes a client on which a fetch may wait.
func (c *Cluster) longPoll(ctx context.Context) (*kgo.Client, func(), error) {
	select {
	case cl := <-c.polls:
		if cl == nil {
			var err error
			if cl, err = c.newClient(); err != nil {
				c.polls <- nil
				return nil, nil, err
			}
		}
		return cl, func() { c.polls <- cl }, nil
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for one of %d long polls: %w", longPolls, ctx.Err())
	}
}

// Scan reads [from, to) in batches of about scanBytes, and ends at to also
// where the log has gaps. It ends with an error after the first one: of
// ErrOutOfRange, with the earliest offset, where retention took the beginning;
// of ErrTruncated where the log does not reach to; of ErrCorrupt, with where to go
// on, at a batch that cannot be decoded.
func (c *Cluster) Scan(ctx context.Context, tp TopicPartition, from, to int64) iter.Seq2[[]event.Record, error] {
	return func(yield func([]event.Record, error) bool) {
		var idle time.Duration
		for from < to {
			got, err := c.Fetch(ctx, tp, from, scanBytes, 0)
			if err != nil {
				yield(nil, err)
				return
			}
			if got.Next == from {
				if idle >= scanPatience {
					yield(nil, fmt.Errorf("%s: %w: it was to be read up to offset %d and ends at %d", tp, ErrTruncated, to, got.HighWatermark))
					return
				}
				if !wait(ctx, scanPause) {
					yield(nil, fmt.Errorf("read %s at offset %d: %w", tp, from, ctx.Err()))
					return
				}
				idle += scanPause
				continue
			}
			idle = 0
			from = got.Next
			if recs := before(got.Records, to); len(recs) > 0 && !yield(recs, nil) {
				return
			}
		}
	}
}

// before cuts off what stands at or after an offset.
func before(recs []event.Record, to int64) []event.Record {
	for len(recs) > 0 && recs[len(recs)-1].Offset >= to {
		recs = recs[:len(recs)-1]
	}
	return recs
}
