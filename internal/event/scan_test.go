package event

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// awkward are values at the edges of what the fast scan takes.
var awkward = []string{
	``, `{`, `{}`, `[]`, `null`, `{"type"}`, `{"type":`, `{"type":}`, `{"type":"x"`, `{"type":"x",}`, `{"type":"x"}`,
	`{"type":"x","data":{}}`, `{"type":"x","data":}`, `{"type":"x","data":{}}}`, `{"type":"x","data":{"a":"}"}}`,
	`{"type":"x","data":{"a":"\""}}`, `{"type":"x","data":{"a":"\\"}}`, `{"type":"x","data":{"\\\"":"{"}}`,
	`{"type":"x","data":{},"later":{}}`, `{"type":"x","data":{"a":1},"later":{"b":2}}`, `{"type":"x","data":{"a":1} }`,
	`{"type":"x","data": {}}`, `{"type":"x","data":1}`, `{"type":"x","data":null}`, `{"type":"x","data":[{}]}`, `{"type":"x","data":"}"}`,
	`{"type":"x","type":"y","data":{}}`, `{"type":"x","v":1,"v":2,"data":{}}`, `{"type":"x","data":{},"data":{"a":1}}`,
	`{"v":1,"type":"x","data":{}}`, `{ "type":"x","data":{}}`, `{"type" :"x","data":{}}`, `{"type":"x" ,"data":{}}`,
	`{"typ\u0065":"x","data":{}}`, `{"type":"\u0078","data":{}}`, `{"type":"","data":{}}`, `{"type":null,"data":{}}`, `{"type":1,"data":{}}`,
	`{"type":"x","v":1e3,"data":{}}`, `{"type":"x","v":-1,"data":{}}`, `{"type":"x","v":01,"data":{}}`, `{"type":"x","v":0,"data":{}}`,
	`{"type":"x","v":1.0,"data":{}}`, `{"type":"x","v":1.5,"data":{}}`, `{"type":"x","v":null,"data":{}}`, `{"type":"x","v":"1","data":{}}`,
	`{"type":"x","seq":999999999999999999,"data":{}}`, `{"type":"x","seq":9223372036854775807,"data":{}}`,
	`{"type":"x","seq":9223372036854775808,"data":{}}`, `{"type":"x","seq":1e999999,"data":{}}`,
	`{"type":"x","tenant":null,"data":{}}`, `{"type":"x","tenant":"","data":{}}`, `{"type":"x","job":"é","data":{}}`,
	`{"type":"x","conversation":"","batch":null,"data":{}}`, `{"type":"x","lane":"urgent","data":{}}`, `{"type":"x","lane":null,"data":{}}`,
	`{"type":"x","time":"yesterday","data":{}}`, `{"type":"x","time":7,"data":{}}`, `{"type":"x","other":1,"data":{}}`,
	"{\"type\":\"x\",\"job\":\"\xff\",\"data\":{}}", "{\"type\":\"x\",\"job\":\"\x7f\",\"data\":{}}", "{\"type\":\"x\",\"job\":\"\x01\",\"data\":{}}",
}

func FuzzScanHead(f *testing.F) {
	for _, s := range awkward {
		f.Add([]byte(s))
	}
	files, err := filepath.Glob("testdata/golden/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden files: %v", err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw[:len(raw)-1])
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		before := bytes.Clone(value)
		var fast View
		ok := fast.scan(value)
		if !bytes.Equal(before, value) {
			t.Fatal("the scan changed the value")
		}
		if !ok || !jsontext.Value(value).IsValid() {
			return
		}
		slow, err := decodeView(value)
		if err != nil {
			t.Fatalf("the fast scan took %q, decoding did not: %v", value, err)
		}
		if diff := cmp.Diff(slow, fast); diff != "" {
			t.Fatalf("%q (-slow +fast):\n%s", value, diff)
		}
	})
}

func TestFastScanTakesWhatOthersWriteInTheSameOrder(t *testing.T) {
	for _, s := range []string{
		`{"type":"x","data":{}}`,
		`{"type":"x","data":{"a":"}"}}`,
		`{"type":"x","data":{"a":"\""}}`,
		`{"type":"x","data":{"a":"\\"}}`,
		`{"type":"output.delta","seq":7,"lane":"urgent","data":{}}`,
	} {
		if v := (View{}); !v.scan([]byte(s)) {
			t.Errorf("gave up on %s", s)
		}
	}
}

func TestScanHeadReadsWhatTheFastScanDoesNot(t *testing.T) {
	want := View{Type: OutputDelta, V: 1, Seq: 1000, Lane: Batch, Job: []byte("é"), Data: []byte(`{"a":1}`)}
	for _, s := range []string{
		`{"type":"output.delta","v":1,"job":"é","seq":1000,"lane":"batch","data":{"a":1},"later":{"b":2}}`,
		`{ "data" : {"a":1} , "lane":"batch", "seq":1e3, "job":"\u00e9", "v":1.0, "typ\u0065":"output.delta"}`,
		`{"type":"output.delta","unknown":[1,{}],"v":10e-1,"tenant":null,"job":"é","conversation":null,"attempt":null,"seq":1000.00,"lane":"batch","data":{"a":1}}`,
	} {
		got, err := ScanHead([]byte(s))
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s, diff)
		}
	}
}

func TestScanHeadSaysWhyAValueIsNoEvent(t *testing.T) {
	for value, want := range map[string]string{
		``:                           "it is not JSON at byte 0: unexpected EOF",
		`{"type":"x","v":-}`:         "it is not JSON at byte 17: invalid character '}' in number (expecting digit)",
		`{"type":"x","v":`:           "it is not JSON at byte 16: unexpected EOF",
		`{"type":"x"`:                "it is not JSON at byte 11: unexpected EOF",
		`[]`:                         "a JSON array: it must be an object",
		`null`:                       "type: it is missing: an event must say what it is",
		`{}`:                         "type: it is missing: an event must say what it is",
		`{"type":null}`:              "type: it is missing: an event must say what it is",
		`{"type":7}`:                 "type: a JSON number: it must be a string",
		`{"type":"x","v":"1"}`:       "v: a JSON string: it must be a whole number",
		`{"type":"x","v":1.5}`:       "v: 1.5: it must be a whole number",
		`{"type":"x","seq":1e30}`:    "seq: 1e30: it must be a whole number",
		`{"type":"x","lane":true}`:   "lane: a JSON boolean: it must be a string",
		`{"type":"x","type":"x"}`:    "type: the name stands twice in its object: it must stand once",
		"{\"type\":\"\xff\"}":        "it is not JSON at byte 9: invalid UTF-8",
		`{"type":"x","v":1,"v":2}`:   "v: the name stands twice in its object: it must stand once",
		`{"type":"x","data":{}} {}`:  "it is not JSON at byte 23: invalid character '{' after top-level value",
		`{"type":"x","tenant":[]}`:   "tenant: a JSON array: it must be a string",
		`{"type":"x","seq":01}`:      "it is not JSON at byte 19: invalid character '1' after object value (expecting ',' or '}')",
		`{"type":"x","epoch":{}}`:    "epoch: a JSON object: it must be a whole number",
		`{"type":"x","attempt":"1"}`: "attempt: a JSON string: it must be a whole number",
	} {
		_, err := ScanHead([]byte(value))
		if err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", value, err, want)
		}
	}
}

// anyHead draws a head with the fields that its type has.
func anyHead(t *rapid.T, str *rapid.Generator[string]) Head {
	h := Head{
		Type: rapid.SampledFrom(allTypes).Draw(t, "type"),
		V:    rapid.IntRange(0, 9).Draw(t, "v"),
		Time: time.UnixMilli(rapid.Int64Range(0, 250_000_000_000_000).Draw(t, "ms")).UTC(),
	}
	f := h.Type.form()
	if f != formLane {
		h.Tenant, h.Job = str.Draw(t, "tenant"), str.Draw(t, "job")
		h.Conversation, h.Batch = str.Draw(t, "conversation"), str.Draw(t, "batch")
	}
	if f == formOutput || f == formFact {
		h.Attempt = rapid.Int().Draw(t, "attempt")
	}
	if f == formOutput {
		h.Seq = rapid.Int64().Draw(t, "seq")
	}
	if f != formRequest {
		h.Lane = rapid.SampledFrom(append(Lanes(), NoLane)).Draw(t, "lane")
	}
	if f == formOutput || f == formLane {
		h.Epoch = rapid.Int64().Draw(t, "epoch")
	}
	return h
}

func TestScanHeadGivesBackWhatAppendWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := anyHead(t, rapid.String())
		data := Encode(Delta{Content: rapid.String().Draw(t, "content")})
		v, err := ScanHead(Append(nil, &h, data))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(h, v.Head()); diff != "" {
			t.Fatalf("(-written +read):\n%s", diff)
		}
		if !bytes.Equal(data, v.Data) {
			t.Fatalf("data: wrote %s, read %s", data, v.Data)
		}
	})
}

func TestInvalidUTF8IsWrittenAsReplacementCharacters(t *testing.T) {
	replaced := func(s string) string { return string([]rune(s)) }
	rapid.Check(t, func(t *rapid.T) {
		h := anyHead(t, rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 8), func(b []byte) string { return string(b) }))
		value := Append(nil, &h, []byte("{}"))
		if !jsontext.Value(value).IsValid() {
			t.Fatalf("not JSON: %q", value)
		}
		v, err := ScanHead(value)
		if err != nil {
			t.Fatal(err)
		}
		want := h
		want.Tenant, want.Job = replaced(h.Tenant), replaced(h.Job)
		want.Conversation, want.Batch = replaced(h.Conversation), replaced(h.Batch)
		if diff := cmp.Diff(want, v.Head()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestTimesAreWrittenAsTimeLayoutHasThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(-70_000_000_000, 260_000_000_000).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
		at = at.In(time.FixedZone("", rapid.IntRange(-86_000, 86_000).Draw(t, "zone")))
		if got, want := string(appendTime(nil, at)), at.UTC().Format(TimeLayout); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

func TestAViewWithAnUnreadableTimeHasTheZeroTime(t *testing.T) {
	v := View{Type: OutputDelta, Time: []byte("yesterday")}
	if h := v.Head(); !h.Time.IsZero() {
		t.Errorf("got %v", h.Time)
	}
}

func TestTheFastPathAllocatesNothing(t *testing.T) {
	value := golden(t, OutputDelta)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := ScanHead(value); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("ScanHead allocates %v times", n)
	}
	h, buf := goldenHead(OutputDelta), make([]byte, 0, 4096)
	delta := Delta{Content: " world", Reasoning: "\"quoted\" and naïve"}
	if n := testing.AllocsPerRun(100, func() {
		data := AppendDelta(buf[2048:2048], &delta)
		_ = Append(buf, &h, data)
	}); n != 0 {
		t.Errorf("AppendDelta and Append allocate %v times", n)
	}
}

func TestAppendAppends(t *testing.T) {
	h := goldenHead(OutputDelta)
	got := string(Append([]byte("before "), &h, []byte("{}")))
	if !strings.HasPrefix(got, `before {"type":"output.delta",`) {
		t.Errorf("got %s", got)
	}
}

func TestPlainSeesEverySpecialByteAtEveryPlace(t *testing.T) {
	for place := range 8 {
		for c := range 256 {
			word := []byte("abcdefgh")
			word[place] = byte(c)
			want := c >= 0x20 && c < 0x7f && c != '"' && c != '\\'
			if got := plain(binary.LittleEndian.Uint64(word)); got != want {
				t.Fatalf("%q: got %v", word, got)
			}
		}
	}
}

func TestPlainNeverPassesASpecialByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "word")
		special := false
		for _, c := range word {
			special = special || c < 0x20 || c >= 0x7f || c == '"' || c == '\\'
		}
		if special && plain(binary.LittleEndian.Uint64(word)) {
			t.Fatalf("%q was passed", word)
		}
	})
}
