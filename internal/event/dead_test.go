package event

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func refused() *Record {
	return &Record{
		Topic: "penstock.requests.batch", Partition: 3, Offset: 17, Key: []byte("k"), Value: []byte("non\x00sense\xff"),
		Headers: []Header{{"penstock-topic", []byte("a lie")}, {"penstock-omitted", nil}, {"a", nil}},
		Time:    time.UnixMilli(1_790_000_000_123),
	}
}

func TestADeadLetterKeepsTheRecordAsItWas(t *testing.T) {
	orig := refused()
	d := Bury(orig, "processors", "it is no JSON", 1<<20)
	rec := d.Record("penstock.dead", time.UnixMilli(1_790_000_000_456))
	got, err := ParseDeadLetter(&rec)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, got); diff != "" {
		t.Error(diff)
	}
	back := got.Redrive()
	if back.Topic != orig.Topic || back.Partition != orig.Partition || !bytes.Equal(back.Value, orig.Value) || !bytes.Equal(back.Key, orig.Key) ||
		!cmp.Equal(back.Headers[:3], orig.Headers) || !back.Time.IsZero() {
		t.Errorf("%+v", back)
	}
	if again := Bury(&back, "processors", "still none", 0); again.Redrives() != 1 {
		t.Errorf("%d redrives were counted of one", again.Redrives())
	} else if thrice := again.Redrive(); len(thrice.Headers) != 4 || string(thrice.Headers[3].Value) != "2" {
		t.Errorf("%v", thrice.Headers)
	}
}

func TestNoKeyAndNoValueStayNone(t *testing.T) {
	for _, orig := range []*Record{{Topic: "t"}, {Topic: "t", Key: []byte{}, Value: []byte{}}} {
		d := Bury(orig, "processors", "x", 0)
		rec := d.Record("dead", time.Now())
		got, err := ParseDeadLetter(&rec)
		if err != nil || (got.Key == nil) != (orig.Key == nil) || (got.Value == nil) != (orig.Value == nil) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestWhatDoesNotFitIsLeftOutAndSaidSo(t *testing.T) {
	const limit = 1 << 20
	for name, tc := range map[string]struct {
		rec     Record
		omitted int
		key     bool
	}{
		"a large value":    {Record{Key: []byte("k"), Value: make([]byte, limit)}, limit, true},
		"large headers":    {Record{Key: []byte("k"), Headers: []Header{{"h", make([]byte, limit)}}}, limit + 1 + headerRoom, true},
		"a large key":      {Record{Key: make([]byte, limit), Value: []byte("v")}, limit + 1, false},
		"just within":      {Record{Key: []byte("k"), Value: make([]byte, limit-deadOverhead-1)}, 0, true},
		"one byte too big": {Record{Key: []byte("k"), Value: make([]byte, limit-deadOverhead)}, limit - deadOverhead, true},
	} {
		d := Bury(&tc.rec, "processors", strings.Repeat("é", 5000), limit)
		if d.Omitted != tc.omitted || (d.Key != nil) != tc.key || (d.Value != nil) != (tc.omitted == 0) {
			t.Errorf("%s: %d bytes are left out, want %d; the key is kept: %t", name, d.Omitted, tc.omitted, d.Key != nil)
		}
		rec := d.Record("dead", time.Now())
		size := len(rec.Key) + len(rec.Value)
		for _, h := range rec.Headers {
			size += len(h.Key) + len(h.Value) + headerRoom
		}
		if size > limit-128 { // what a batch takes
			t.Errorf("%s: the letter takes %d bytes", name, size)
		}
	}
}

func TestLettersOfOlderBuildsAreRead(t *testing.T) {
	rec := Record{Value: []byte("v"), Headers: []Header{
		{deadTopic, []byte("t")},
		{deadPartition, []byte("1")},
		{deadOffset, []byte("2")},
		{deadStage, []byte("processors")},
		{deadReason, []byte("why")},
		{"own", []byte("h")},
	}}
	want := DeadLetter{Topic: "t", Partition: 1, Offset: 2, Stage: "processors", Reason: "why", Value: []byte("v"), Headers: []Header{{"own", []byte("h")}}}
	got, err := ParseDeadLetter(&rec)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestWhatIsNoDeadLetterIsSaid(t *testing.T) {
	good := func(change func(h []Header) []Header) *Record {
		d := Bury(refused(), "processors", "x", 0)
		rec := d.Record("dead", time.Now())
		rec.Headers = change(rec.Headers)
		return &rec
	}
	for want, rec := range map[string]*Record{
		"go on with penstock-topic":              {},
		"go on with penstock-offset":             good(func(h []Header) []Header { return append(h[:2:2], h[3:]...) }),
		`"x" is no penstock-partition`:           good(func(h []Header) []Header { h[1].Value = []byte("x"); return h }),
		`"9999999999999" is no penstock-omitted`: good(func(h []Header) []Header { h[6].Value = []byte("9999999999999"); return h }),
		"offset -1":                              good(func(h []Header) []Header { h[2].Value = []byte("-1"); return h }),
	} {
		if _, err := ParseDeadLetter(rec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

func TestANoteOfARedriveIsReadBack(t *testing.T) {
	want := Redriven{Letter: 5, Topic: "t", Partition: 2, Offset: 99}
	rec := want.Record("dead", time.Now())
	if got, ok := ParseRedriven(&rec); !ok || got != want {
		t.Errorf("%+v, %t", got, ok)
	}
	letter := Bury(refused(), "processors", "x", 0)
	other := letter.Record("dead", time.Now())
	if _, ok := ParseRedriven(&other); ok {
		t.Error("a letter was taken for a note")
	}
	for i := range rec.Headers {
		bad := want.Record("dead", time.Now())
		bad.Headers[i] = Header{"penstock-" + "other", []byte("x")}
		if _, ok := ParseRedriven(&bad); ok {
			t.Errorf("%v was taken for a note", bad.Headers)
		}
	}
	rec.Headers[3].Value = []byte("x")
	if _, ok := ParseRedriven(&rec); ok {
		t.Error("no offset was taken for one")
	}
}

func FuzzParseDeadLetter(f *testing.F) {
	f.Add("penstock.requests.batch", "3", "17", "processors", "why", "1790000000000", "0", "own", []byte("h"), 8)
	f.Add("", "-1", "x", "", "", "", "-1", "penstock-redrives", []byte("2"), 5)
	f.Fuzz(func(t *testing.T, topic, partition, offset, stage, reason, at, omitted, key string, value []byte, n int) {
		headers := []Header{
			{deadTopic, []byte(topic)},
			{deadPartition, []byte(partition)},
			{deadOffset, []byte(offset)},
			{deadStage, []byte(stage)},
			{deadReason, []byte(reason)},
			{deadTime, []byte(at)},
			{deadOmitted, []byte(omitted)},
			{key, value},
		}
		rec := Record{Value: value, Headers: headers[:min(max(n, 0), len(headers))]}
		_, _ = ParseRedriven(&rec)
		d, err := ParseDeadLetter(&rec)
		if err != nil {
			return
		}
		same := d.Record("dead", time.Time{})
		again, err := ParseDeadLetter(&same)
		if err != nil {
			t.Fatal(err)
		}
		if d.Time.IsZero() {
			again.Time = d.Time
		}
		if diff := cmp.Diff(d, again, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		back := d.Redrive()
		if back.Topic != topic || !bytes.Equal(back.Value, rec.Value) {
			t.Errorf("%+v", back)
		}
	})
}
