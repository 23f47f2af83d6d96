package event

import (
	"bytes"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func anyText() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 8), func(b []byte) string { return string(b) }), // not always UTF-8
		rapid.StringOfN(rapid.RuneFrom([]rune("a \"\\\n\t\x00\x7f<>&\u2028é😀")), 0, 8, -1),
	)
}

func TestAppendDeltaWritesWhatEncodeDoes(t *testing.T) {
	raw := rapid.SampledFrom([]jsontext.Value{nil, nil, jsontext.Value(`[]`), jsontext.Value(`null`), jsontext.Value(`[{"index":0}]`)})
	rapid.Check(t, func(t *rapid.T) {
		d := Delta{
			Index:   rapid.SampledFrom([]int{0, 0, 0, 1, -1, 1 << 40}).Draw(t, "index"),
			Content: anyText().Draw(t, "content"), Reasoning: anyText().Draw(t, "reasoning"),
			Refusal:   rapid.SampledFrom([]string{"", "", "no"}).Draw(t, "refusal"),
			ToolCalls: raw.Draw(t, "tool_calls"), Logprobs: raw.Draw(t, "logprobs"),
		}
		got, want := AppendDelta([]byte("x"), &d), append([]byte("x"), Encode(&d)...)
		if !bytes.Equal(got, want) {
			t.Fatalf("got %s, want %s", got, want)
		}
		var back Delta
		if err := DecodeData(got[1:], &back); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*string{&d.Content, &d.Reasoning} {
			*s = string([]rune(*s)) // what is not UTF-8 became U+FFFD
		}
		if diff := cmp.Diff(d, back); diff != "" {
			t.Fatalf("(-written +read):\n%s", diff)
		}
	})
}

func TestDecodeDataIgnoresWhatItDoesNotKnowAndSaysWhatDoesNotFit(t *testing.T) {
	var c Claim
	if err := DecodeData([]byte(`{"owner":"a","later":{}}`), &c); err != nil || c.Owner != "a" {
		t.Errorf("got %+v, error %v", c, err)
	}
	for data, want := range map[string]string{
		`{"owner":7}`:    "data: owner: a JSON number: it must be a string",
		`{"bound":"7"}`:  "data: bound: a JSON string: it must be a number",
		`{"bound":1`:     "data: it is not JSON at byte 10: unexpected EOF",
		`[]`:             "data: a JSON array: it must be an object",
		`{"bound":1e99}`: "data: bound: a JSON number: it must be a number",
	} {
		if err := DecodeData([]byte(data), &c); err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", data, err, want)
		}
	}
	var out Completed
	if err := DecodeData([]byte(`{"choices":{}}`), &out); err == nil || err.Error() != "data: choices: a JSON object: it must be an array" {
		t.Errorf("got %v", err)
	}
}

func TestEncodePanicsOnWhatHasNoJSON(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Encode(make(chan int))
}

func TestADeltaKeepsAVector(t *testing.T) {
	for want, d := range map[string]Delta{
		`{"index":0,"embedding":[0.5,-1]}`:   {Embedding: []byte(`[0.5, -1]`)},
		`{"index":3,"embedding":"AACAPw=="}`: {Index: 3, Embedding: []byte(`"AACAPw=="`)},
	} {
		if got := AppendDelta(nil, &d); string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
