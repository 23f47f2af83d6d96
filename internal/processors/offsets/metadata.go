package offsets

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxMetadata is how many bytes a commit's metadata may have: the default of
// the broker's offset.metadata.max.bytes.
const MaxMetadata = 4096

// MaxSpan is how far next may be from the watermark for any pattern of done
// offsets to fit into MaxMetadata: as runs while they are few, as a bitmap else.
// Whoever takes requests in stops there.
const MaxSpan = 20_000

// The first byte of an encoded Metadata: a version and how Done is written.
const (
	asRuns   = 1
	asBitmap = 2
)

// Metadata is what a commit says beside the watermark. Losing it costs the
// successor time, never a duplicate.
type Metadata struct {
	Bound int64   // offset on the token topic at which a restore may begin
	Epoch int64   // of the lane, in force at Bound: a restore's fence begins with it
	Done  []Range // done above the watermark
}

// Encode makes the text of a commit's metadata, relative to the watermark that
// is committed with it. The error says that Done does not fit, which it does
// whenever the Tracker's span is at most MaxSpan.
func (m Metadata) Encode(watermark int64) (string, error) {
	buf := m.head(asRuns)
	buf = binary.AppendUvarint(buf, uint64(len(m.Done)))
	at := watermark
	for _, r := range m.Done {
		buf = binary.AppendUvarint(buf, uint64(r.From-at))     //nolint:gosec // in order above the watermark
		buf = binary.AppendUvarint(buf, uint64(r.To-r.From-1)) //nolint:gosec // never empty
		at = r.To
	}
	if base64.RawStdEncoding.EncodedLen(len(buf)) > MaxMetadata && at-watermark <= MaxSpan {
		buf = m.head(asBitmap)
		bits := make([]byte, (at-watermark+7)/8)
		for _, r := range m.Done {
			for o := r.From - watermark; o < r.To-watermark; o++ {
				bits[o/8] |= 1 << (o % 8)
			}
		}
		buf = append(buf, bits...)
	}
	text := base64.RawStdEncoding.EncodeToString(buf)
	if len(text) > MaxMetadata {
		return "", fmt.Errorf("offsets: %d runs above the watermark take %d bytes of metadata: %d at most", len(m.Done), len(text), MaxMetadata)
	}
	return text, nil
}

func (m Metadata) head(form byte) []byte {
	buf := make([]byte, 0, 64+4*len(m.Done))
	buf = append(buf, form)
	buf = binary.AppendVarint(buf, m.Epoch)
	return binary.AppendVarint(buf, m.Bound)
}

var errMetadata = errors.New("offsets: not the metadata of a commit of ours")

// DecodeMetadata reads what Encode made.
func DecodeMetadata(text string, watermark int64) (Metadata, error) {
	if len(text) > MaxMetadata {
		return Metadata{}, errMetadata
	}
	buf, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil || len(buf) == 0 || watermark < 0 {
		return Metadata{}, errMetadata
	}
	rest := reader{buf: buf[1:]}
	m := Metadata{Epoch: rest.varint(), Bound: rest.varint()}
	if rest.bad || m.Bound < 0 || m.Epoch < 0 {
		return Metadata{}, errMetadata
	}
	switch buf[0] {
	case asRuns:
		m.Done = rest.runs(watermark)
	case asBitmap:
		m.Done = rest.bitmap(watermark)
	default:
		return Metadata{}, errMetadata
	}
	if rest.bad || len(rest.buf) != 0 {
		return Metadata{}, errMetadata
	}
	return m, nil
}

// reader takes numbers off a buffer and remembers the first that was cut short.
type reader struct {
	buf []byte
	bad bool
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.buf)
	r.skip(size)
	return n
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.buf)
	r.skip(size)
	return n
}

func (r *reader) skip(size int) {
	if size <= 0 {
		r.bad, r.buf = true, nil
		return
	}
	r.buf = r.buf[size:]
}

// runs reads Done as a count and pairs of gap and length less one.
func (r *reader) runs(at int64) (done []Range) {
	const limit = 1 << 61 // no offset of a log comes near it
	count := r.uvarint()
	for i := uint64(0); i < count && !r.bad; i++ {
		gap, length := r.uvarint(), r.uvarint()
		if gap > limit || length > limit || at > limit {
			r.bad = true
			return nil
		}
		from := at + int64(gap)
		at = from + int64(length) + 1
		done = append(done, Range{from, at})
	}
	return done
}

// bitmap reads Done as a bit an offset, up to the end of the buffer.
func (r *reader) bitmap(watermark int64) (done []Range) {
	for i, b := range r.buf {
		for bit := range 8 {
			if b&(1<<bit) == 0 {
				continue
			}
			o := watermark + int64(i*8+bit)
			if n := len(done); n > 0 && done[n-1].To == o {
				done[n-1].To++
			} else {
				done = append(done, Range{o, o + 1})
			}
		}
	}
	r.buf = nil
	return done
}
