package cursor

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
)

func anyCursor(t *rapid.T) Cursor {
	c := Cursor{
		Partition:   rapid.Int32Range(0, math.MaxInt32).Draw(t, "partition"),
		LeaderEpoch: rapid.Int32Range(-1, math.MaxInt32).Draw(t, "leader epoch"),
		Next:        rapid.Int64Range(0, math.MaxInt64).Draw(t, "next"),
	}
	copy(c.Topic[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic"))
	for _, lane := range event.Lanes() {
		c.Epochs[lane] = rapid.Int64Range(0, math.MaxInt64).Draw(t, "epoch")
	}
	return c
}

func TestACursorIsReadBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCursor(t)
		text := c.String()
		got, err := Parse(text)
		if err != nil || got != c {
			t.Fatalf("%s: %v (-want +got):\n%s", text, err, cmp.Diff(c, got))
		}
		if len(text) > maxText || strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Fatalf("%s needs an escape or is too long", text)
		}
	})
}

// golden lies in clients' hands: it must be read the same for ever.
const golden = "AQABAgMEBQYHCAkKCwwNDg8OBICU69wDhCGwBQBkDwRv"

func goldenCursor() Cursor {
	c := Cursor{Partition: 7, LeaderEpoch: 2, Next: 500_000_000}
	for i := range c.Topic {
		c.Topic[i] = byte(i)
	}
	c.Epochs[event.Interactive], c.Epochs[event.Standard] = 2114, 344
	return c
}

func TestAGoldenCursorIsReadTheSameForEver(t *testing.T) {
	got, err := Parse(golden)
	if err != nil || got != goldenCursor() {
		t.Errorf("%v (-want +got):\n%s", err, cmp.Diff(goldenCursor(), got))
	}
	if text := goldenCursor().String(); text != golden {
		t.Errorf("it is written as %s now", text)
	}
}

// seal makes a cursor's text of bytes, with the right checksum.
func seal(b []byte) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

// numbers makes a text of this version from any numbers.
func numbers(ns ...int64) string {
	b := append([]byte{version}, make([]byte, 16)...)
	for _, n := range ns {
		b = binary.AppendVarint(b, n)
	}
	return seal(b)
}

func TestWhatIsNoCursorIsRefused(t *testing.T) {
	if _, err := Parse(numbers(1, -1, 3, 4, 5, 6)); err != nil {
		t.Fatalf("the test's own encoding: %v", err)
	}
	padded := append([]byte{version}, make([]byte, 16)...)
	padded = append(padded, 0x82, 0x00) // 1, in two bytes where one does
	for range 5 {
		padded = binary.AppendVarint(padded, 1)
	}
	for name, text := range map[string]string{
		"empty":               "",
		"too long":            strings.Repeat("A", maxText+1),
		"not base64":          "?" + golden[1:],
		"padding":             golden + "=",
		"a line break":        golden[:10] + "\n" + golden[10:],
		"a line break behind": golden + "\r\n",
		"a space":             golden + " ",
		"cut short":           golden[:len(golden)-4],
		"one byte":            "AQ",
		"changed":             strings.Replace(golden, "ICU", "ICV", 1),
		"another version":     seal(append([]byte{2}, make([]byte, 22)...)),
		"a number too few":    numbers(1, 2, 3, 4, 5),
		"a number too many":   numbers(1, 2, 3, 4, 5, 6, 7),
		"padded numbers":      seal(padded),
		"partition below 0":   numbers(-1, 2, 3, 4, 5, 6),
		"partition too large": numbers(1<<31, 2, 3, 4, 5, 6),
		"epoch below -1":      numbers(1, -2, 3, 4, 5, 6),
		"epoch too large":     numbers(1, 1<<31, 3, 4, 5, 6),
		"offset below 0":      numbers(1, 2, -1, 4, 5, 6),
		"fence below 0":       numbers(1, 2, 3, -1, 5, 6),
	} {
		c, err := Parse(text)
		if !errors.Is(err, ErrNoCursor) || c != (Cursor{}) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func TestAnotherVersionIsNamed(t *testing.T) {
	_, err := Parse(seal(append([]byte{2}, make([]byte, 22)...)))
	if err == nil || !strings.Contains(err.Error(), "its version is 2, and this build reads 1") {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", golden, golden + "\n", golden[:8], numbers(0, -1, 0, 0, 0, 0), strings.Repeat("A", maxText)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrNoCursor) || c != (Cursor{}) {
				t.Fatalf("%q: %+v, %v", text, c, err)
			}
			return
		}
		if again := c.String(); again != text {
			t.Fatalf("%q is %+v, which is %q", text, c, again)
		}
	})
}

// FuzzParseSealed gives the bytes a right checksum, so that what lies behind it is reached.
func FuzzParseSealed(f *testing.F) {
	raw, err := base64.RawURLEncoding.DecodeString(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[:len(raw)-4])
	f.Fuzz(func(t *testing.T, b []byte) {
		text := seal(b)
		if c, err := Parse(text); err == nil && c.String() != text {
			t.Fatalf("%q is %+v, which is %q", text, c, c.String())
		}
	})
}

func TestCursorsOfOnePartitionAreOrderedByTheirOffset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyCursor(t), anyCursor(t)
		b.Topic, b.Partition = a.Topic, a.Partition
		if rapid.Bool().Draw(t, "same place") {
			b.Next = a.Next
		}
		want := 0
		switch {
		case a.Next < b.Next:
			want = -1
		case a.Next > b.Next:
			want = 1
		}
		if got, ok := Compare(a, b); got != want || !ok {
			t.Fatalf("%d, %v: want %d", got, ok, want)
		}
		b.Partition ^= 1
		if got, ok := Compare(a, b); got != 0 || ok {
			t.Fatalf("another partition: %d, %v", got, ok)
		}
		b.Partition = a.Partition
		b.Topic[3] ^= 1
		if got, ok := Compare(a, b); got != 0 || ok {
			t.Fatalf("another topic: %d, %v", got, ok)
		}
	})
}

func BenchmarkCursor(b *testing.B) {
	b.ReportAllocs()
	c := goldenCursor()
	for b.Loop() {
		if got, err := Parse(c.String()); err != nil || got != c {
			b.Fatal(err)
		}
	}
}
