package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The timestamps by which ListOffsets knows the two ends.
const (
	latestOffset   = -1
	earliestOffset = -2
)

// At is a place in a log: its start, its end, or a time.
type At struct {
	kind int64
	time time.Time
}

// Start is the earliest offset that can be read.
func Start() At { return At{kind: earliestOffset} }

// End is the offset that the next record gets.
func End() At { return At{kind: latestOffset} }

// AtTime is the first record of that time (in milliseconds) or later, and the
// end where there is none.
func AtTime(t time.Time) At { return At{time: t} }

// Offsets tells where a place is in every partition of a topic. For a time the
// ends are taken first: what is appended meanwhile stands behind the answer.
func (c *Cluster) Offsets(ctx context.Context, topic string, at At) (map[int32]int64, error) {
	m, err := c.refresh(ctx, topic)
	if err != nil {
		return nil, err
	}
	parts := make([]int32, len(m.leaders))
	for i := range parts {
		parts[i] = int32(i)
	}
	return c.offsets(ctx, topic, parts, at)
}

// Offset tells where a place is in one partition.
func (c *Cluster) Offset(ctx context.Context, tp TopicPartition, at At) (int64, error) {
	found, err := c.offsets(ctx, tp.Topic, []int32{tp.Partition}, at)
	if err != nil {
		return 0, err
	}
	return found[tp.Partition], nil
}

func (c *Cluster) offsets(ctx context.Context, topic string, parts []int32, at At) (map[int32]int64, error) {
	if at.kind != 0 {
		got, err := c.listOffsets(ctx, topic, parts, at.kind)
		return offsetsOf(got), err
	}
	ends, err := c.listOffsets(ctx, topic, parts, latestOffset)
	if err != nil {
		return nil, err
	}
	got, err := c.listOffsets(ctx, topic, parts, at.time.UnixMilli())
	if err != nil {
		return nil, err
	}
	found := offsetsOf(got)
	for p, end := range ends {
		if found[p] < 0 { // nothing is as new
			found[p] = end.offset
		}
	}
	return found, nil
}

// listed is one partition's answer.
type listed struct {
	offset int64
	time   time.Time // of the record there; zero where the broker gave none
}

func offsetsOf(got map[int32]listed) map[int32]int64 {
	if got == nil {
		return nil
	}
	offsets := make(map[int32]int64, len(got))
	for p, l := range got {
		offsets[p] = l.offset
	}
	return offsets
}

// listOffsets asks the leaders; what is passing is tried again, within ctx.
func (c *Cluster) listOffsets(ctx context.Context, topic string, parts []int32, timestamp int64) (map[int32]listed, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	for _, p := range parts {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = p, timestamp
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	doing := "ask for offsets of " + topic
	got := make(map[int32]listed, len(parts))
	err := patiently(ctx, func() error {
		resp, err := req.RequestWith(ctx, c.client)
		if err != nil {
			return err
		}
		return take(resp, got)
	})
	if err != nil {
		return nil, unavailable(doing, err)
	}
	if len(got) != len(parts) {
		return nil, fmt.Errorf("%s: %w: the brokers answered for %d of %d partitions", doing, ErrUnavailable, len(got), len(parts))
	}
	return got, nil
}

// take adds what the leaders answered.
func take(resp *kmsg.ListOffsetsResponse, got map[int32]listed) error {
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
			l := listed{offset: p.Offset}
			if p.Timestamp >= 0 {
				l.time = time.UnixMilli(p.Timestamp)
			}
			got[p.Partition] = l
		}
	}
	return nil
}

// OldestTime tells where a partition's log begins and the time of the record
// there, which is zero where the log is empty.
func (c *Cluster) OldestTime(ctx context.Context, tp TopicPartition) (int64, time.Time, error) {
	first, err := c.Offset(ctx, tp, Start())
	if err != nil {
		return 0, time.Time{}, err
	}
	at, err := c.TimeAt(ctx, tp, first)
	return first, at, err
}

// TimeAt tells the time of the first record at an offset or behind it, which is
// zero where there is none.
func (c *Cluster) TimeAt(ctx context.Context, tp TopicPartition, offset int64) (time.Time, error) {
	got, err := c.Fetch(ctx, tp, offset, 1, 0) // a broker always gives one batch
	if err != nil || len(got.Records) == 0 {
		return time.Time{}, err
	}
	return got.Records[0].Time, nil
}

// CheckEpoch looks whether a position still stands in the history in which it
// was read: offset is the next to read, epoch the leader epoch of the record
// before it. ErrTruncated says that the log lost what was read; an epoch below
// 0 is not checked. The log must reach that far in that very epoch (KIP-320):
// after an unclean election one may be as long that never had it.
func (c *Cluster) CheckEpoch(ctx context.Context, tp TopicPartition, offset int64, epoch int32) error {
	if epoch < 0 {
		return nil
	}
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = -1
	rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
	rt.Topic = tp.Topic
	rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	rp.Partition, rp.LeaderEpoch = tp.Partition, epoch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	doing := fmt.Sprintf("look for leader epoch %d of %s", epoch, tp)
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return unavailable(doing, err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return fmt.Errorf("%s: %w: the broker left the partition out of its answer", doing, ErrUnavailable)
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return unavailable(doing, err)
	}
	switch {
	case p.EndOffset < 0:
		return fmt.Errorf("%s: %w: it knows no leader epoch %d, of which offset %d was read", tp, ErrTruncated, epoch, offset-1)
	case p.LeaderEpoch >= 0 && p.LeaderEpoch < epoch: // the newest that it has up to the one asked for
		return fmt.Errorf("%s: %w: it went from leader epoch %d to a newer one than %d, of which offset %d was read",
			tp, ErrTruncated, p.LeaderEpoch, epoch, offset-1)
	case p.EndOffset < offset:
		return fmt.Errorf("%s: %w: leader epoch %d ends at offset %d, and %d was read", tp, ErrTruncated, epoch, p.EndOffset, offset-1)
	default:
		return nil
	}
}
