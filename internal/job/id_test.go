package job

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

func TestMurmur2AgreesWithJava(t *testing.T) {
	for key, want := range map[string]int32{ // org.apache.kafka.common.utils.UtilsTest.testMurmur2
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("%q: %d, Java has %d", key, got, want)
		}
	}
}

func TestPartitionClearsTheSignBitAsJavaDoes(t *testing.T) {
	for key, want := range map[string]int32{
		"21": (-973932308 & 0x7fffffff) % 12, "abc": 479470107 % 12, "foobar": (-790332482 & 0x7fffffff) % 12,
	} {
		if got := Partition(key, 12); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
	if got := Partition("", 1); got != 0 {
		t.Errorf("one partition: %d", got)
	}
}

func TestAMintedIDTellsItsTimeAndThePartitionThatItsHashAgreesWith(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.UnixMilli(rapid.Int64Range(0, 1<<48-1).Draw(t, "ms"))
		partitions := rapid.OneOf(rapid.Int32Range(1, 64), rapid.Just(int32(1000))).Draw(t, "partitions")
		id, err := Mint(now, "", partitions, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := ParseID(id)
		if !ok || !got.Time.Equal(now) || got.Time.Location() != time.UTC {
			t.Fatalf("%s tells %+v, %v; minted at %v", id, got, ok, now)
		}
		if want := Partition(id, partitions); got.Partition != want || got.Partition >= partitions {
			t.Fatalf("%s tells partition %d of %d, its hash %d", id, got.Partition, partitions, want)
		}
	})
}

func TestAnIDWithAConversationTellsTheConversationsPartition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		conversation := rapid.StringN(1, 40, -1).Draw(t, "conversation")
		partitions := rapid.Int32Range(1, MaxPartitions).Draw(t, "partitions")
		id, err := Mint(time.UnixMilli(1), conversation, partitions, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := ParseID(id)
		if want := Partition(conversation, partitions); !ok || got.Partition != want {
			t.Fatalf("%s tells %+v, %v, want partition %d", id, got, ok, want)
		}
	})
}

func TestTheLargestPartitionCountIsMintedAndOneMoreIsRefused(t *testing.T) {
	id, err := Mint(time.UnixMilli(1), "", MaxPartitions, rand.Reader)
	if got, ok := ParseID(id); err != nil || !ok || got.Partition != Partition(id, MaxPartitions) {
		t.Errorf("%s: %+v, %v, %v", id, got, ok, err)
	}
	for _, n := range []int32{-1, 0, MaxPartitions + 1} {
		if id, err := Mint(time.UnixMilli(1), "", n, rand.Reader); err == nil {
			t.Errorf("%d partitions: minted %s", n, id)
		}
	}
}

func TestIDsSortByTheirTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.SliceOfN(rapid.Int64Range(0, 1<<48-1), 2, 20).Draw(t, "ms")
		slices.Sort(ms)
		var before string
		for i, at := range ms {
			id, err := Mint(time.UnixMilli(at), "", 12, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 && at > ms[i-1] && id <= before {
				t.Fatalf("%s of %d sorts before %s of %d", id, at, before, ms[i-1])
			}
			before = id
		}
	})
}

func TestIDsOfOneInstantDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id, err := Mint(time.UnixMilli(1), "", 12, rand.Reader)
		if err != nil || seen[id] {
			t.Fatalf("%s, %v: minted before", id, err)
		}
		seen[id] = true
	}
}

func TestMintSaysThatThereAreNoRandomBits(t *testing.T) {
	broken := errors.New("broken")
	for name, random := range map[string]io.Reader{
		"from the start": iotest.ErrReader(broken),
		// Zeros agree with no partition of so many, so that more is drawn.
		"later": io.MultiReader(bytes.NewReader(make([]byte, 12)), iotest.ErrReader(broken)),
	} {
		if id, err := Mint(time.UnixMilli(1), "", 60000, random); !errors.Is(err, broken) || id != "" {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
	if _, err := Mint(time.UnixMilli(1), "c", 1, bytes.NewReader(make([]byte, 11))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("too few: %v", err)
	}
}

// golden must be read the same for ever: it may lie in a client's database.
const golden = "job_06g3ad19s0003000000000000000000z"

func TestAGoldenIDTellsTheSameForEver(t *testing.T) {
	got, ok := ParseID(golden)
	want := ID{Time: time.Date(2026, 8, 24, 19, 16, 46, 152e6, time.UTC), Partition: 1}
	if !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
}

func TestOtherIDsAreNotTakenForMinted(t *testing.T) {
	for _, s := range []string{
		"", "job_", golden[:len(golden)-1], golden + "0", strings.ToUpper(golden), "Job_" + golden[4:], "resp" + golden[3:],
		golden[:len(golden)-1] + "i", golden[:len(golden)-1] + "=", golden[:len(golden)-1] + "\n", golden[:len(golden)-8] + "\n\n\n\n\n\n\n\n",
		golden[:10] + "\r\r\r\r\r\r\r\r" + golden[18:],
	} {
		if id, ok := ParseID(s); ok || id != (ID{}) {
			t.Errorf("%q: %+v, %v", s, id, ok)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"", golden, golden[:len(golden)-8] + "\n\n\n\n\n\n\n\n", "job_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := ParseID(s)
		if !ok {
			if id != (ID{}) {
				t.Fatalf("%q is no id and tells %+v", s, id)
			}
			return
		}
		// What an id tells, minted again with the same random bits, is the id.
		raw, err := crockford.DecodeString(s[len(Prefix):])
		if err != nil || len(raw) != idBytes {
			t.Fatalf("%q: %d bytes, %v", s, len(raw), err)
		}
		var again [idBytes]byte
		copy(again[8:], raw[8:])
		for i, b := range []int{40, 32, 24, 16, 8, 0} {
			again[i] = byte(id.Time.UnixMilli() >> b)
		}
		putPartition(&again, id.Partition)
		if got := Prefix + crockford.EncodeToString(again[:]); got != s {
			t.Fatalf("%q tells %+v, which is %q", s, id, got)
		}
	})
}

func BenchmarkMint(b *testing.B) {
	for b.Loop() {
		if _, err := Mint(time.UnixMilli(1_800_000_000_000), "", 12, rand.Reader); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := ParseID(golden); !ok {
			b.Fatal("no id")
		}
	}
}

func BenchmarkPartition(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if Partition(golden, 12) < 0 {
			b.Fatal("below 0")
		}
	}
}

func TestAChatsIDNamesItsJob(t *testing.T) {
	id, err := Mint(time.Now(), "", 12, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chat := ChatID(id)
	if !strings.HasPrefix(chat, "chatcmpl-") || Canonical(chat) != id || Canonical(id) != id {
		t.Errorf("%s is named %s, which is %s", id, chat, Canonical(chat))
	}
	for _, other := range []string{"", "invoice-17", "chatcmpl", "resp_1"} {
		if got := Canonical(other); got != other {
			t.Errorf("%s became %s", other, got)
		}
	}
}
