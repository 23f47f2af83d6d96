package kafka

import (
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock-io/penstock/internal/event"
)

const (
	// maxUnpacked bounds what a batch may unpack to, in bytes: a topic's limit is
	// of the packed batch, and some kilobytes of it can stand for a gigabyte. A
	// record of our own topics is a tenth of this at most.
	maxUnpacked = 64 << 20
	// unpackedAtOnce is after how much of one partition's part of an answer the
	// rest is left for the next fetch.
	unpackedAtOnce = 16 << 20
)

// errEnough ends the unpacking of an answer, once some of it is unpacked.
var errEnough = errors.New("enough was unpacked for one answer")

// unpacker unpacks one partition's part of an answer, batch by batch.
type unpacker struct {
	kgo.Decompressor // bounds one batch by maxUnpacked

	done  int
	ended bool // by errEnough
}

// Decompress implements kgo.Decompressor.
func (u *unpacker) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if u.done >= unpackedAtOnce {
		u.ended = true
		return nil, errEnough
	}
	out, err := u.Decompressor.Decompress(src, codec)
	u.done += len(out)
	return out, err //nolint:wrapcheck // the client's own, back to the client
}

// unread stands for a batch that unpacks to more than is taken into memory: one
// record without content, in place of all, that says why.
func unread(topic string, partition int32, err error) (rec event.Record, next int64, ok bool) {
	large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err)
	if !ok {
		return rec, 0, false
	}
	rec = event.Record{
		Topic: topic, Partition: partition, Offset: large.NextOffset - 1, LeaderEpoch: large.Epoch,
		Defect: fmt.Sprintf("the batch of offsets %d to %d unpacks to more than %d MiB, which is the most that is read",
			large.Offset, large.NextOffset-1, maxUnpacked>>20),
	}
	return rec, large.NextOffset, true
}

// unpacked is one partition of an answer, unpacked.
type unpacked struct {
	TopicPartition
	decoded
	bytes int // as they came
}

// unpack unpacks an answer to a lane's fetch. It takes its time, and holds nobody
// up: a cursor does not move while it is under way.
func (r *reader) unpack(l *lane, resp *kmsg.FetchResponse) []unpacked {
	if resp == nil {
		return nil
	}
	var parts []unpacked
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			rp := &t.Partitions[j]
			tp := TopicPartition{t.Topic, rp.Partition}
			k := slices.IndexFunc(l.parts, func(w wanted) bool { return w.TopicPartition == tp })
			if k >= 0 { // else it was not asked for
				parts = append(parts, unpacked{tp, r.c.decode(tp.Topic, l.parts[k].offset, rp), len(rp.RecordBatches)})
			}
		}
	}
	return parts
}
