// Package job is what a job is: its id, which tells when it was made and where
// it lies, and the folds that turn its events into what people ask about it.
// It is pure: no goroutine, no clock, no input or output.
package job

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
)

// Prefix begins every minted id.
const Prefix = "job_"

// ChatPrefix begins the id by which the Chat Completions API names a job.
const ChatPrefix = "chatcmpl-"

// ChatID is a minted id as the Chat Completions API names the job.
func ChatID(id string) string { return ChatPrefix + strings.TrimPrefix(id, Prefix) }

// Canonical is the id of the job that a client names: another API's name for a
// minted id becomes that id, and any other stays as it is.
func Canonical(name string) string {
	if rest, ok := strings.CutPrefix(name, ChatPrefix); ok {
		return Prefix + rest
	}
	return name
}

// idBytes is the length of a minted id behind its prefix: 48 bits of Unix
// milliseconds, 16 bits of partition, 96 random bits.
const (
	idBytes   = 20
	idTextLen = len(Prefix) + idBytes*8/5
)

// MaxPartitions is the largest partition count that an id can tell.
const MaxPartitions = 1 << 16

// crockford is Crockford's base32 in lower case: ids sort by their time. It is never written to.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding) //nolint:gochecknoglobals // a constant

// ID is what a minted id tells.
type ID struct {
	Time      time.Time // when it was minted, to the millisecond
	Partition int32     // of its request and of all that is written about it
}

// Mint makes a job id. With a conversation the partition is the conversation's;
// without one the id is drawn until its own hash agrees with the partition that
// it tells, so that any producer that keys by job id, as Java does, lands there.
// random must be a cryptographic source; it is read 12 bytes a draw.
func Mint(now time.Time, conversation string, partitions int32, random io.Reader) (string, error) {
	if partitions < 1 || partitions > MaxPartitions {
		return "", fmt.Errorf("job: %d partitions: an id can tell 1 to %d", partitions, MaxPartitions)
	}
	var raw [idBytes]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(now.UnixMilli())<<16)
	if _, err := io.ReadFull(random, raw[8:]); err != nil {
		return "", fmt.Errorf("job: no random bits: %w", err)
	}
	text := make([]byte, idTextLen)
	copy(text, Prefix)
	if conversation != "" {
		putPartition(&raw, Partition(conversation, partitions))
		crockford.Encode(text[len(Prefix):], raw[:])
		return string(text), nil
	}
	want := int32(binary.BigEndian.Uint32(raw[8:12]) % uint32(partitions)) //nolint:gosec // below 1<<16
	putPartition(&raw, want)
	for {
		crockford.Encode(text[len(Prefix):], raw[:])
		if partitionOf(text, partitions) == want {
			return string(text), nil
		}
		if _, err := io.ReadFull(random, raw[8:]); err != nil {
			return "", fmt.Errorf("job: no random bits: %w", err)
		}
	}
}

func putPartition(raw *[idBytes]byte, p int32) {
	binary.BigEndian.PutUint16(raw[6:8], uint16(p)) //nolint:gosec // below 1<<16
}

// ParseID reads a minted id. ok is false for an id of anyone else's making.
func ParseID(s string) (id ID, ok bool) {
	if len(s) != idTextLen || s[:len(Prefix)] != Prefix {
		return ID{}, false
	}
	var raw [idBytes]byte
	// Decode passes over line breaks, and is then done before it has all bytes.
	if n, err := crockford.Decode(raw[:], []byte(s[len(Prefix):])); err != nil || n != idBytes {
		return ID{}, false
	}
	ms := binary.BigEndian.Uint64(raw[:8]) >> 16
	return ID{
		Time:      time.UnixMilli(int64(ms)).UTC(),
		Partition: int32(binary.BigEndian.Uint16(raw[6:8])),
	}, true
}

// Partition is where Java's default partitioner puts a key: murmur2, its sign
// bit cleared, modulo the count (org.apache.kafka.clients.producer.internals.BuiltInPartitioner).
func Partition(key string, partitions int32) int32 {
	return partitionOf([]byte(key), partitions)
}

func partitionOf(key []byte, partitions int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % partitions
}

// murmur2 is org.apache.kafka.common.utils.Utils.murmur2.
func murmur2(data []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(data)) //nolint:gosec // a key is short
	for len(data) >= 4 {
		k := binary.LittleEndian.Uint32(data)
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
