package kafka

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// batchOf is a batch as it stands in a log, with a good checksum.
func batchOf(first int64, says int32, values ...string) []byte {
	b := kmsg.RecordBatch{
		FirstOffset: first, PartitionLeaderEpoch: 3, Magic: 2, LastOffsetDelta: says - 1,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: says,
	}
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(v)}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		b.Records = r.AppendTo(b.Records)
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	return checked(raw)
}

func checked(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// TestNothingOfAnAnswerIsPassedOver has answers of which the client would skip a part
// without a word, or never come to an end.
func TestNothingOfAnAnswerIsPassedOver(t *testing.T) {
	c := &Cluster{unpack: kgo.DefaultDecompressor()}
	good, broken, last := batchOf(5, 2, "a", "b"), batchOf(7, 3, "c"), batchOf(10, 1, "d")
	flipped := batchOf(7, 3, "c", "d", "e")
	flipped[len(flipped)-2] ^= 1
	packed := batchOf(7, 3, "c", "d", "e")
	packed[22] |= 4 // zstd, which it is not
	packed = checked(packed)
	cut := batchOf(7, 3, "c", "d", "e")
	strange := batchOf(7, 3, "c", "d", "e")
	strange[16] = 9 // a format that is yet to come
	far := batchOf(7, 3, "c", "d", "e")
	far[len(far)-2] ^= 1
	binary.BigEndian.PutUint64(far, 1<<40)
	tests := []struct {
		name          string
		raw           [][]byte
		code          int16
		from          int64
		records       int
		next          int64 // without an error
		offset, after int64 // of the error
	}{
		{name: "whole", raw: [][]byte{good, last}, from: 5, records: 3, next: 11},
		{name: "from the middle of a batch", raw: [][]byte{good, last}, from: 6, records: 2, next: 11},
		{name: "broken records between good ones", raw: [][]byte{good, broken, last}, from: 5, records: 2, next: 7},
		{name: "broken records first", raw: [][]byte{broken, last}, from: 7, offset: 7, after: 10},
		{name: "broken records, and where they end only by their head", raw: [][]byte{broken}, from: 7, offset: 7, after: 10},
		{name: "asked for its middle", raw: [][]byte{broken, last}, from: 8, offset: 7, after: 10},
		{name: "a checksum behind good ones", raw: [][]byte{good, flipped, last}, from: 5, records: 2, next: 7},
		{name: "a checksum", raw: [][]byte{flipped, last}, from: 7, offset: 7, after: 10},
		{name: "a compression behind good ones", raw: [][]byte{good, packed, last}, from: 5, records: 2, next: 7},
		{name: "a compression", raw: [][]byte{packed, last}, from: 7, offset: 7, after: 10},
		{name: "a format", raw: [][]byte{strange, last}, from: 7, offset: 7, after: 10},
		{name: "an offset that the log has not", raw: [][]byte{far, last}, from: 7, offset: 7, after: 10},
		{name: "no whole batch", raw: [][]byte{cut[:len(cut)-3]}, from: 7, offset: 7, after: -1},
		{name: "a part of a batch behind good ones", raw: [][]byte{good, cut[:len(cut)-3]}, from: 5, records: 2, next: 7},
		{name: "the broker's word", code: kerr.CorruptMessage.Code, from: 7, offset: 7, after: -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rp := &kmsg.FetchResponseTopicPartition{ErrorCode: tt.code, HighWatermark: 11}
			for _, b := range tt.raw {
				rp.RecordBatches = append(rp.RecordBatches, b...)
			}
			d := c.decode("t", tt.from, rp)
			if len(d.records) != tt.records {
				t.Errorf("%d records, want %d", len(d.records), tt.records)
			}
			if tt.after == 0 {
				if d.err != nil || d.next != tt.next {
					t.Errorf("goes on at %d with %v, want at %d", d.next, d.err, tt.next)
				}
				return
			}
			e, ok := errors.AsType[*CorruptError](d.err)
			if !ok || e.Offset != tt.offset || e.Next != tt.after {
				t.Errorf("the error is %v (%+v), want one from %d to %d", d.err, e, tt.offset, tt.after)
			}
		})
	}
}
