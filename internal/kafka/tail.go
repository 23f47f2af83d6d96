package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/penstock-io/penstock/internal/event"
)

// TailConfig says what a Tail reads. The zero value of a field takes its
// default.
type TailConfig struct {
	Topic string
	// TopicID is the topic's id where the reader knows it, as from a cursor: a
	// topic of another id is ErrRecreated. Zero takes the one that is there.
	TopicID [16]byte
	// FetchMaxWait is how long a broker may hold a fetch that has nothing;
	// default 500 ms. It delays no record and no Follow.
	FetchMaxWait time.Duration
	// FetchMaxBytes bounds a fetch, and with it what waits to be polled: four
	// times as much per broker; default 8 MiB.
	FetchMaxBytes int
	// Pace is how long a connection rests after a fetch that brought records:
	// under load the next one gathers what came in meanwhile, in place of a fetch
	// for each, and who is waited for has the broker first. It delays a record by that much
	// at most, a newly followed partition not at all, and costs nothing when
	// idle. Default 0: none.
	Pace time.Duration
	// Busy is at how many records a second the rest is as long as Pace; with fewer
	// it is shorter, and below a quarter of it there is none. Default 0: it is
	// always as long.
	Busy int
	// Host lets other tails of the cluster ride along: of a partition that both
	// follow, and of which both have come to the log's end, they get what this one
	// fetches, when it does.
	Host bool
	// Guest has the tail ride along with one that is a Host. It is for a tail for
	// which the host's Pace is no matter. Everything else is as if it read alone.
	Guest bool
	// Stand, where set, has a partition stand still at a batch that cannot be decoded:
	// it is read again that often, and told by a metric and the log. It is for those who
	// must not go on without it. Else it is a fault as others are.
	Stand time.Duration
}

// Chunk is what was read of one partition. Others may have the same records:
// nobody writes to them. With Err (ErrTruncated,
// ErrOutOfRange, ErrRecreated, ErrUnknownTopic, ErrCorrupt) the partition has
// stopped at Next, until it is followed anew.
type Chunk struct {
	Partition     int32
	Records       []event.Record // none where only the end was reached, or a gap passed
	From          int64          // the offset that was asked for: nothing stands between it and the first record
	Next          int64          // the offset to go on from
	HighWatermark int64          // the log's end, as of this fetch
	Err           error
}

// Tail reads partitions of a topic, each from its own offset, outside any group.
type Tail struct {
	topic  string
	reader *reader
}

// NewTail makes a tail that follows nothing yet.
func (c *Cluster) NewTail(cfg TailConfig) (*Tail, error) {
	as := alone
	switch {
	case cfg.Host:
		as = hosts
	case cfg.Guest:
		as = rides
	}
	limits := limitsOf(cfg.FetchMaxWait, cfg.FetchMaxBytes, cfg.Pace, cfg.Busy)
	limits.stand = cfg.Stand
	r, err := c.newReader(limits, as)
	if err != nil {
		return nil, err
	}
	if cfg.TopicID != [16]byte{} {
		r.ids[cfg.Topic] = cfg.TopicID
	}
	return &Tail{topic: cfg.Topic, reader: r}, nil
}

// Follow begins to read a partition at an offset, or goes on there where the
// partition is followed already. It does not wait.
func (t *Tail) Follow(partition int32, from int64) {
	t.reader.follow(TopicPartition{t.topic, partition}, from, -1)
}

// FollowEpoch is Follow with the leader epoch of the record before from: where
// the log lost it since, the partition's first Chunk is ErrTruncated.
func (t *Tail) FollowEpoch(partition int32, from int64, epoch int32) {
	t.reader.follow(TopicPartition{t.topic, partition}, from, epoch)
}

// Unfollow ends the reading of a partition. No Poll that begins after it
// returns any of it.
func (t *Tail) Unfollow(partition int32) {
	t.reader.unfollow(TopicPartition{t.topic, partition})
}

// Poll waits for something to have been read, or for ctx to end. The first
// chunk that reaches a partition's end says so (Next == HighWatermark), with
// records or without.
func (t *Tail) Poll(ctx context.Context) ([]Chunk, error) {
	for {
		if got := t.reader.take(0); len(got) > 0 {
			out := make([]Chunk, len(got))
			for i, ch := range got {
				out[i] = Chunk{ch.Partition, ch.records, ch.from, ch.next, ch.highWatermark, ch.err}
			}
			return out, nil
		}
		select {
		case <-t.reader.arrived:
		case <-t.reader.ctx.Done():
			return nil, fmt.Errorf("the tail of %s is %w", t.topic, ErrClosed)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close ends the tail and waits for its goroutines.
func (t *Tail) Close() { t.reader.close() }

// Feed reads one partition from an offset on and hands over what it reads, until
// ctx ends or take fails, whose error it returns. What retention or compaction
// took before it was read is passed over, and so is a batch that cannot be decoded,
// which Fetch logs: it is for topics in which a later
// record makes good for an earlier one. The partition's other faults are
// returned.
func (c *Cluster) Feed(ctx context.Context, cfg TailConfig, partition int32, from int64, take func(Chunk) error) error {
	tail, err := c.NewTail(cfg)
	if err != nil {
		return err
	}
	defer tail.Close()           //nolint:contextcheck // a tail has a life of its own, until Close
	tail.Follow(partition, from) //nolint:contextcheck // as above
	for {
		chunks, err := tail.Poll(ctx)
		if err != nil {
			return err
		}
		for i := range chunks {
			if gone, ok := errors.AsType[*OutOfRangeError](chunks[i].Err); ok {
				tail.Follow(partition, gone.Earliest) //nolint:contextcheck // as above
				continue
			}
			if corrupt, ok := errors.AsType[*CorruptError](chunks[i].Err); ok {
				if from, err = c.Behind(ctx, corrupt); err != nil {
					return err
				}
				tail.Follow(partition, from) //nolint:contextcheck // as above
				continue
			}
			if err := chunks[i].Err; err != nil {
				return err
			}
			if err := take(chunks[i]); err != nil {
				return err
			}
		}
	}
}
