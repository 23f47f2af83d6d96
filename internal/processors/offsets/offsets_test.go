package offsets

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestTrackerAgreesWithASet runs the tracker against a plain set of done
// offsets, with holes in the log and a successor that starts from the metadata.
func TestTrackerAgreesWithASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 1000).Draw(t, "start")
		tr := NewTracker(start, nil)
		done := map[int64]bool{}
		taken := []int64{}
		next, watermark := start, start
		settle := func() {
			for done[watermark] {
				watermark++
			}
		}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0, 1, 2, 3:
				o := next
				if rapid.IntRange(0, 9).Draw(t, "hole") == 0 {
					o += rapid.Int64Range(1, 5).Draw(t, "gap")
				}
				for h := next; h < o; h++ {
					done[h] = true
				}
				if !tr.Take(o) {
					t.Fatalf("a request at %d that is new is not run", o)
				}
				next, taken = o+1, append(taken, o)
			case 9: // a successor
				m := Metadata{Epoch: 7, Bound: 3, Done: tr.Above()}
				text, err := m.Encode(tr.Watermark())
				if err != nil {
					t.Fatal(err)
				}
				got, err := DecodeMetadata(text, tr.Watermark())
				if err != nil {
					t.Fatal(err)
				}
				succ := NewTracker(tr.Watermark(), got.Done)
				for o := tr.Watermark(); o < next; o++ {
					if run := succ.Take(o); run == done[o] {
						t.Fatalf("the successor runs %d: %t, and it is done: %t", o, run, done[o])
					}
				}
				tr = succ
			default:
				if len(taken) == 0 {
					continue
				}
				o := rapid.SampledFrom(taken).Draw(t, "done")
				tr.Done(o)
				done[o] = true
			}
			settle()
			if tr.Watermark() != watermark {
				t.Fatalf("%v: the watermark is to be %d", tr, watermark)
			}
			if tr.Span() != next-watermark {
				t.Fatalf("%v: next is to be %d", tr, next)
			}
			for o := watermark; o < next; o++ {
				if tr.has(o) != done[o] {
					t.Fatalf("%v: offset %d done is to be %t", tr, o, done[o])
				}
			}
		}
	})
}

// TestMetadataHoldsAnyPatternWithinTheSpan has every second offset done, the
// worst case for runs.
func TestMetadataHoldsAnyPatternWithinTheSpan(t *testing.T) {
	const watermark = 1 << 40
	want := Metadata{Epoch: 1 << 40, Bound: 1 << 50}
	for o := int64(watermark + 1); o < watermark+MaxSpan; o += 2 {
		want.Done = append(want.Done, Range{o, o + 1})
	}
	text, err := want.Encode(watermark)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > MaxMetadata {
		t.Fatalf("%d bytes", len(text))
	}
	got, err := DecodeMetadata(text, watermark)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestMetadataBeyondTheSpanIsRefused(t *testing.T) {
	var m Metadata
	for o := int64(0); o < 4*MaxSpan; o += 2 {
		m.Done = append(m.Done, Range{o + 1, o + 2})
	}
	if _, err := m.Encode(0); err == nil {
		t.Fatal("40,000 runs fit into 4,096 bytes")
	}
}

func FuzzDecodeMetadata(f *testing.F) {
	for _, m := range []Metadata{{}, {Epoch: 3, Bound: 17, Done: []Range{{5, 9}, {12, 13}}}} {
		text, err := m.Encode(2)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, int64(2))
	}
	f.Add("AgIAAf8", int64(0))
	f.Fuzz(func(t *testing.T, text string, watermark int64) {
		m, err := DecodeMetadata(text, watermark)
		if err != nil {
			return
		}
		last := watermark - 1
		for _, r := range m.Done {
			if r.From <= last && r.From < watermark || r.To <= r.From || r.From < last {
				t.Fatalf("runs out of order: %v over %d", m.Done, watermark)
			}
			last = r.To
		}
		NewTracker(watermark, m.Done)
	})
}

func BenchmarkTakeDone(b *testing.B) {
	t := NewTracker(0, nil)
	b.ReportAllocs()
	for o := int64(0); b.Loop(); o++ {
		t.Take(o)
		if o >= 64 {
			t.Done(o - 64 ^ 1)
		}
	}
}

func TestWhatIsSkippedIsDoneAndLeavesTheRestToBeRun(t *testing.T) {
	tr := NewTracker(10, []Range{{12, 20}})
	tr.Take(10)
	tr.Skip(Range{11, 15}) // within what was done above, and below it
	tr.Skip(Range{3, 5})   // long done
	tr.Skip(Range{25, 40})
	if got, want := tr.String(), "watermark 10, next 40, done above [{11 20} {25 40}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !tr.Take(22) || tr.Take(30) {
		t.Error("what is to be run was mistaken")
	}
	tr.Done(10)
	if tr.Watermark() != 20 {
		t.Error(tr)
	}
}
