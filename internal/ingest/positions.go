package ingest

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/kafka"
)

const (
	// positionsEvery is how far behind its partition's end a cursor may be.
	positionsEvery = 250 * time.Millisecond
	// positionsTimeout bounds one question to Kafka.
	positionsTimeout = 5 * time.Second
	// identityEvery is how many rounds a topic's id is believed.
	identityEvery = 20
)

// Offsets tells where partitions end; *kafka.Cluster does.
type Offsets interface {
	Offsets(ctx context.Context, topic string, at kafka.At) (map[int32]int64, error)
	TopicID(ctx context.Context, topic string) ([16]byte, error)
}

// Positions keeps, by partition, a cursor at an end of the token topic that was
// seen shortly before. A reader that begins there gets all of a job that is
// written later. It begins with no epochs, which is right for it: whoever could
// write a job's output wrongly was fenced before the job was made.
type Positions struct {
	offsets Offsets
	topic   string
	log     *slog.Logger
	cursors atomic.Pointer[[]string] // by partition; replaced as a whole
}

// NewPositions makes Positions of a topic, which know nothing until Run does.
// log may be nil.
func NewPositions(offsets Offsets, topic string, log *slog.Logger) *Positions {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Positions{offsets: offsets, topic: topic, log: log}
}

// TokensCursor implements Cursors. While Kafka is away it gives the last one
// known, which is only further back.
func (p *Positions) TokensCursor(partition int32) string {
	list := p.cursors.Load()
	if list == nil || partition < 0 || int(partition) >= len(*list) {
		return ""
	}
	return (*list)[partition]
}

// Run keeps the cursors until ctx ends.
func (p *Positions) Run(ctx context.Context) error {
	tick := time.NewTicker(positionsEvery)
	defer tick.Stop()
	var (
		id   cursor.TopicID
		ends map[int32]int64
	)
	for round, failing := 0, false; ; round++ {
		err := p.refresh(ctx, &id, &ends, round%identityEvery == 0)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			round = -1 // asks for the id again
			if !failing {
				p.log.WarnContext(ctx, "end of the token topic not known", slog.Any("error", err))
			}
		}
		failing = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// refresh asks for the ends, and makes cursors of those that moved.
func (p *Positions) refresh(ctx context.Context, id *cursor.TopicID, ends *map[int32]int64, identify bool) error {
	ctx, cancel := context.WithTimeout(ctx, positionsTimeout)
	defer cancel()
	if identify {
		got, err := p.offsets.TopicID(ctx, p.topic)
		if err != nil {
			return err //nolint:wrapcheck // logged by the one caller
		}
		if cursor.TopicID(got) != *id {
			*id, *ends = got, nil
			p.cursors.Store(nil) // of another topic
		}
	}
	now, err := p.offsets.Offsets(ctx, p.topic, kafka.End())
	if err != nil {
		return err //nolint:wrapcheck // logged by the one caller
	}
	old := p.cursors.Load()
	size := int32(0)
	for partition := range now {
		size = max(size, partition+1)
	}
	list := make([]string, size) // one that cannot be asked now leaves a hole
	for partition, end := range now {
		if was, ok := (*ends)[partition]; ok && was == end && old != nil && int(partition) < len(*old) && (*old)[partition] != "" {
			list[partition] = (*old)[partition]
			continue
		}
		list[partition] = cursor.Cursor{Topic: *id, Partition: partition, LeaderEpoch: -1, Next: end}.String()
	}
	*ends = now
	p.cursors.Store(&list)
	return nil
}
