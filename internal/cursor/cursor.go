// Package cursor makes and reads the opaque text that says how far a reader has
// come in one partition of one topic, so that it can be dropped and taken up
// again anywhere. It holds what is needed to notice that the topic was
// recreated or truncated meanwhile, and the fence's epochs.
package cursor

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
)

// TopicID is Kafka's id of a topic (KIP-516): another topic of the same name
// has another.
type TopicID [16]byte

// Cursor is a position in a partition.
type Cursor struct {
	Topic       TopicID
	Partition   int32
	LeaderEpoch int32 // of the record before Next; -1 where there is none
	Next        int64 // offset of the record to be read next
	Epochs      fence.Epochs
}

// version is the first byte of every cursor.
const version = 1

// maxText bounds what Parse looks at; the longest cursor is shorter.
const maxText = 128

// String encodes the cursor in characters that need no escape in a URL or a header.
func (c Cursor) String() string {
	buf := make([]byte, 0, 64)
	buf = append(buf, version)
	buf = append(buf, c.Topic[:]...)
	buf = binary.AppendVarint(buf, int64(c.Partition))
	buf = binary.AppendVarint(buf, int64(c.LeaderEpoch))
	buf = binary.AppendVarint(buf, c.Next)
	for _, lane := range event.Lanes() {
		buf = binary.AppendVarint(buf, c.Epochs[lane])
	}
	buf = binary.BigEndian.AppendUint32(buf, crc32.ChecksumIEEE(buf))
	return base64.RawURLEncoding.EncodeToString(buf)
}

// ErrNoCursor is wrapped by every error of Parse.
var ErrNoCursor = errors.New("not a cursor")

// Parse reads a cursor's text. The error, an ErrNoCursor, says what is wrong.
func Parse(text string) (Cursor, error) {
	var c Cursor
	if len(text) > maxText {
		return c, fmt.Errorf("%w: it is longer than any", ErrNoCursor)
	}
	buf, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return c, fmt.Errorf("%w: it must be one that Penstock gave out, unchanged", ErrNoCursor)
	}
	if len(buf) < 1+len(c.Topic)+4 || crc32.ChecksumIEEE(buf[:len(buf)-4]) != binary.BigEndian.Uint32(buf[len(buf)-4:]) {
		return c, fmt.Errorf("%w: it is cut short or changed", ErrNoCursor)
	}
	if buf[0] != version {
		return c, fmt.Errorf("%w: its version is %d, and this build reads %d", ErrNoCursor, buf[0], version)
	}
	rest := buf[1+copy(c.Topic[:], buf[1:]) : len(buf)-4]
	numbers := make([]int64, 3+len(event.Lanes()))
	for i := range numbers {
		n, size := binary.Varint(rest)
		if size <= 0 || n < -1 || (n < 0 && i != 1) { // only the leader epoch may be -1
			return Cursor{}, fmt.Errorf("%w: it is cut short or changed", ErrNoCursor)
		}
		numbers[i], rest = n, rest[size:]
	}
	const maxInt32 = 1<<31 - 1
	if len(rest) != 0 || numbers[0] > maxInt32 || numbers[1] > maxInt32 {
		return Cursor{}, fmt.Errorf("%w: it is cut short or changed", ErrNoCursor)
	}
	c.Partition, c.LeaderEpoch, c.Next = int32(numbers[0]), int32(numbers[1]), numbers[2] //nolint:gosec // looked at above
	for i, lane := range event.Lanes() {
		c.Epochs[lane] = numbers[3+i]
	}
	if c.String() != text { // line breaks, which the decoder passes over, and numbers longer than they need be
		return Cursor{}, fmt.Errorf("%w: it must be one that Penstock gave out, unchanged", ErrNoCursor)
	}
	return c, nil
}

// Compare orders two cursors of one partition: negative if a is before b, 0 if
// they are at the same place, positive if a is behind b. ok is false for cursors
// of different partitions or topics, which have no order.
func Compare(a, b Cursor) (order int, ok bool) {
	if a.Topic != b.Topic || a.Partition != b.Partition {
		return 0, false
	}
	switch {
	case a.Next < b.Next:
		return -1, true
	case a.Next > b.Next:
		return 1, true
	default:
		return 0, true
	}
}
