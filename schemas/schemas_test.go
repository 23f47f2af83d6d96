package schemas_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/schemas"
)

func compile(tb testing.TB, name string) *jsonschema.Schema {
	tb.Helper()
	s, err := schemas.Compile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// validate gives the validator's answer, or that the bytes are not JSON.
func validate(s *jsonschema.Schema, raw []byte) error {
	v, err := schemas.Parse(raw)
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func TestEverySchemaCompilesAndIsNamedByItsID(t *testing.T) {
	id := regexp.MustCompile(`"\$id": "([^"]*)"`)
	for _, name := range schemas.Names() {
		compile(t, name)
		raw, err := fs.ReadFile(schemas.FS(), name)
		if err != nil {
			t.Fatal(err)
		}
		if m := id.FindSubmatch(raw); m == nil || string(m[1]) != schemas.BaseURL+name {
			t.Errorf("%s: its $id is %q", name, m)
		}
	}
}

func TestCompileNamesWhatThereIs(t *testing.T) {
	_, err := schemas.Compile("events/nothing.v1.json")
	if err == nil || !strings.Contains(err.Error(), `schema "events/nothing.v1.json": it must be one of events/common.v1.json, `) {
		t.Errorf("got %v", err)
	}
}

func goldenFiles(tb testing.TB) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob("../internal/event/testdata/golden/*.json")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no golden files: %v", err)
	}
	golden := map[string][]byte{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		golden["events/"+filepath.Base(f)] = raw
	}
	return golden
}

func TestEveryGoldenFileIsValidUnderItsSchemaAndNoOther(t *testing.T) {
	golden := goldenFiles(t)
	for _, name := range schemas.Names() {
		if !strings.HasPrefix(name, "events/") || strings.HasPrefix(name, "events/common.") {
			continue
		}
		if golden[name] == nil {
			t.Errorf("%s has no golden file", name)
		}
		s := compile(t, name)
		for file, raw := range golden {
			err := validate(s, raw)
			if file == name && err != nil {
				t.Errorf("%s: %v", file, err)
			}
			if file != name && err == nil {
				t.Errorf("%s is valid under %s", file, name)
			}
		}
	}
}

func TestAnUnwatchedJobsEndIsValid(t *testing.T) {
	raw, err := os.ReadFile("../internal/event/testdata/unwatched/output.completed.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	s := compile(t, "events/output.completed.v1.json")
	if err := validate(s, raw); err != nil {
		t.Error(err)
	}
	if err := validate(s, []byte(strings.Replace(string(raw), `"deltas":[{"index":0`, `"deltas":[{"index":-1`, 1))); err == nil {
		t.Error("a delta of choice -1 is valid")
	}
}

func TestEveryGoldenFileHasASchema(t *testing.T) {
	for file, raw := range goldenFiles(t) {
		v, err := event.ScanHead(raw[:len(raw)-1])
		if err != nil {
			t.Fatal(err)
		}
		if name := schemas.Event(string(v.Type), v.V); name != file {
			t.Errorf("%s is a %s", file, name)
		}
		compile(t, file)
	}
}

// requests are documents on both sides of the line between good and bad.
var requests = []string{
	`{"job":"a","data":{"body":{"model":"sim"}}}`,
	`{"type":"job.requested","v":1,"time":"2026-11-22T15:04:05.123Z","tenant":"default","job":"a","conversation":null,"batch":null,"data":{"endpoint":"/v1/chat/completions","body":{"model":"sim"},"deadline":"2026-11-22T15:05:05Z","custom_id":null,"stream":true,"metadata":{}}}`,
	`{"type":null,"v":null,"time":null,"tenant":null,"job":"a","data":{"endpoint":null,"body":{"model":"sim"},"deadline":null,"custom_id":null,"stream":null,"metadata":null,"repeat":null}}`,
	`{"job":"a","conversation":"","batch":"","data":{"endpoint":"","body":{"model":"sim"},"custom_id":"","metadata":{"":"","k":null}}}`,
	`{"job":"a","v":1.0,"data":{"body":{"model":"sim"}}}`, `{"job":"a","v":10e-1,"data":{"body":{"model":"sim"}}}`,
	`{"job":"a","v":1.00000000000000000001,"data":{"body":{"model":"sim"}}}`, `{"job":"a","v":1e999999999999,"data":{"body":{"model":"sim"}}}`,
	`{"job":"a","v":0,"data":{"body":{"model":"sim"}}}`, `{"job":"a","v":2,"data":{"body":{"model":"sim"}}}`, `{"job":"a","v":"1","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","type":"job.started","data":{"body":{"model":"sim"}}}`, `{"job":"a","type":"","data":{"body":{"model":"sim"}}}`, `{"job":"a","type":1,"data":{"body":{"model":"sim"}}}`,
	`{"job":"a","type":"later","data":{"body":{"model":"sim"},"data":}}`,
	`{"job":"job_06f3k2m8q0000000000000000000000a","data":{"body":{"model":"sim"}}}`, `{"job":"job_06f3k2m8q0000000000000000000000","data":{"body":{"model":"sim"}}}`,
	`{"job":"job_06f3k2m8q0000000000000000000000u","data":{"body":{"model":"sim"}}}`, `{"job":"resp_a","data":{"body":{"model":"sim"}}}`, `{"job":"chatcmpl-a","data":{"body":{"model":"sim"}}}`,
	`{"job":"batch_a","data":{"body":{"model":"sim"}}}`, `{"job":"file_a","data":{"body":{"model":"sim"}}}`, `{"job":"","data":{"body":{"model":"sim"}}}`, `{"job":"a b","data":{"body":{"model":"sim"}}}`,
	`{"job":"a\n","data":{"body":{"model":"sim"}}}`, `{"job":"é","data":{"body":{"model":"sim"}}}`, `{"job":null,"data":{"body":{"model":"sim"}}}`,
	`{"job":"a","tenant":"","data":{"body":{"model":"sim"}}}`, `{"job":"a","tenant":"A","data":{"body":{"model":"sim"}}}`, `{"job":"a","tenant":"a:b","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","conversation":"-","data":{"body":{"model":"sim"}}}`, `{"job":"a","batch":7,"data":{"body":{"model":"sim"}}}`, `{"job":"a","lane":7,"seq":"x","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","time":"2026-11-22T15:04:05+01:00","data":{"body":{"model":"sim"}}}`, `{"job":"a","time":"2026-11-22t15:04:05z","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","time":"2026-11-22 15:04:05Z","data":{"body":{"model":"sim"}}}`, `{"job":"a","time":"2026-11-22T15:04:60Z","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","time":"2016-12-31T23:59:60Z","data":{"body":{"model":"sim"}}}`, `{"job":"a","time":"2026-02-29T00:00:00Z","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","time":"2028-02-29T00:00:00.1234567890Z","data":{"body":{"model":"sim"}}}`, `{"job":"a","time":"2026-11-22T24:00:00Z","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","time":"2026-11-22T15:04:05+24:00","data":{"body":{"model":"sim"}}}`, `{"job":"a","time":"2026-11-22T15:04:05+23:60","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","time":"2026-11-22T15:04:05-00:00","data":{"body":{"model":"sim"}}}`, `{"job":"a","time":"0001-01-01T00:00:00Z","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","time":"9999-12-31T23:59:59-23:59","data":{"body":{"model":"sim"}}}`, `{"job":"a","time":"2026-11-22T15:04:05,5Z","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","time":1763823845,"data":{"body":{"model":"sim"}}}`, `{"job":"a","time":"","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"deadline":"0000-01-01T00:00:00+01:00"}}`, `{"job":"a","data":{"body":{"model":"sim"},"deadline":"tomorrow"}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"endpoint":"/v1/embeddings"}}`, `{"job":"a","data":{"body":{"model":"sim"},"endpoint":"/v1/completions"}}`, `{"job":"a","data":{"body":{"model":"sim"},"stream":"true"}}`, `{"job":"a","data":{"body":{"model":"sim"},"repeat":1}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"metadata":[]}}`, `{"job":"a","data":{"body":{"model":"sim"},"metadata":{"k":1}}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"k":"1","k":"2"}}}`, `{"job":"a","data":{"body":{"model":""}}}`, `{"job":"a","data":{"body":{"model":null}}}`,
	`{"job":"a","data":{"body":{"model":7}}}`, `{"job":"a","data":{"body":{"Model":"sim"}}}`, `{"job":"a","data":{"body":{}}}`, `{"job":"a","data":{"body":[]}}`, `{"job":"a","data":{"body":null}}`,
	`{"job":"a","data":{"body":{"model":"sim","n":1e400,"x":[1,{"y":-0}]}}}`, `{"job":"a","data":{"body":{"model":"sim","x":{"y":1,"y":2}}}}`,
	`{"job":"a","data":{}}`, `{"job":"a","data":null}`, `{"job":"a","data":[]}`, `{"job":"a"}`, `{"data":{"body":{"model":"sim"}}}`, `{}`, `[]`, `null`, `1`, `"a"`, ``, `{`,
	`{"job":"a","data":{"body":{"model":"sim"}}} {}`, ` {"job" : "a" , "data" : {"body":{"model":"sim"}}} `, "{\"job\":\"a\",\"data\":{\"body\":{\"model\":\"\xff\"}}}",
	`{"job":"a","data":{"body":{"model":"\ud800"}}}`, `{"job":"a","job":"a","data":{"body":{"model":"sim"}}}`, `{"Job":"a","data":{"body":{"model":"sim"}}}`,
	"\xef\xbb\xbf" + `{"job":"a","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","data":{"body":{"model":"` + strings.Repeat("é", event.MaxModelLength) + `"}}}`, `{"job":"a","data":{"body":{"model":"` + strings.Repeat("é", event.MaxModelLength+1) + `"}}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"custom_id":"` + strings.Repeat("é", event.MaxCustomID) + `"}}`, `{"job":"a","data":{"body":{"model":"sim"},"custom_id":"` + strings.Repeat("é", event.MaxCustomID+1) + `"}}`,
	`{"job":"` + strings.Repeat("a", event.MaxIDLength) + `","data":{"body":{"model":"sim"}}}`, `{"job":"` + strings.Repeat("a", event.MaxIDLength+1) + `","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","tenant":"` + strings.Repeat("a", event.MaxTenantLength) + `","data":{"body":{"model":"sim"}}}`, `{"job":"a","tenant":"` + strings.Repeat("a", event.MaxTenantLength+1) + `","data":{"body":{"model":"sim"}}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"` + strings.Repeat("é", event.MaxMetadataKey) + `":"` + strings.Repeat("é", event.MaxMetadataValue) + `"}}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"` + strings.Repeat("é", event.MaxMetadataKey+1) + `":""}}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"k":"` + strings.Repeat("é", event.MaxMetadataValue+1) + `"}}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"a":"","b":"","c":"","d":"","e":"","f":"","g":"","h":"","i":"","j":"","k":"","l":"","m":"","n":"","o":"","p":""}}}`,
	`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"a":"","b":"","c":"","d":"","e":"","f":"","g":"","h":"","i":"","j":"","k":"","l":"","m":"","n":"","o":"","p":"","q":""}}}`,
}

// FuzzSchemaAgrees holds the schema of a request and its decoder to one answer.
func FuzzSchemaAgrees(f *testing.F) {
	for _, r := range requests {
		f.Add([]byte(r))
	}
	f.Add(goldenFiles(f)["events/job.requested.v1.json"])
	s := compile(f, "events/job.requested.v1.json")
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, parseErr := schemas.Parse(raw)
		_, _, decodeErr := event.DecodeRequest(&event.Record{Value: raw})
		if _, bad := errors.AsType[*event.Invalid](decodeErr); decodeErr != nil && !bad && !errors.Is(decodeErr, event.ErrSkip) {
			t.Fatalf("%q: an error of a kind that is not promised: %v", raw, decodeErr)
		}
		if parseErr != nil {
			if decodeErr == nil || errors.Is(decodeErr, event.ErrSkip) {
				t.Fatalf("%q is not JSON (%v), and the decoder says %v", raw, parseErr, decodeErr)
			}
			return
		}
		if err := s.Validate(doc); (err == nil) != (decodeErr == nil) {
			t.Fatalf("%q\nschema:  %v\ndecoder: %v", raw, err, decodeErr)
		}
	})
}

// FuzzCancelSchemaAgrees holds the schema of a cancel and its decoder to one answer.
func FuzzCancelSchemaAgrees(f *testing.F) {
	for _, c := range cancels {
		f.Add([]byte(c))
	}
	for _, r := range requests {
		f.Add([]byte(r))
	}
	f.Add(goldenFiles(f)["events/job.cancel_requested.v1.json"])
	s := compile(f, "events/job.cancel_requested.v1.json")
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, parseErr := schemas.Parse(raw)
		_, decodeErr := event.DecodeCancel(&event.Record{Value: raw})
		if _, bad := errors.AsType[*event.Invalid](decodeErr); decodeErr != nil && !bad && !errors.Is(decodeErr, event.ErrSkip) {
			t.Fatalf("%q: an error of a kind that is not promised: %v", raw, decodeErr)
		}
		if parseErr != nil {
			if decodeErr == nil || errors.Is(decodeErr, event.ErrSkip) {
				t.Fatalf("%q is not JSON (%v), and the decoder says %v", raw, parseErr, decodeErr)
			}
			return
		}
		if err := s.Validate(doc); (err == nil) != (decodeErr == nil) {
			t.Fatalf("%q\nschema:  %v\ndecoder: %v", raw, err, decodeErr)
		}
	})
}

// cancels are documents on both sides of the line between good and bad.
var cancels = []string{
	`{"job":"a"}`, `{"type":"job.cancel_requested","job":"a"}`, `{"type":null,"v":null,"time":null,"tenant":null,"job":"a","conversation":null,"batch":null,"data":null}`,
	`{"job":"a","conversation":"","batch":"","data":{"why":1},"unknown":[]}`, `{"job":"a","v":1.0}`, `{"job":"a","v":2}`, `{"job":"a","v":0}`, `{"job":"a","v":"1"}`,
	`{"type":"job.requested","job":"a"}`, `{"type":"later","data":7}`, `{"type":7,"job":"a"}`, `{}`, `[]`, `null`, `{"job":null}`, `{"job":""}`, `{"job":"a b"}`, `{"job":7}`,
	`{"job":"job_06f3k2m8q0000000000000000000000a"}`, `{"job":"job_1"}`, `{"job":"resp_1"}`, `{"job":"a","tenant":"A"}`, `{"job":"a","tenant":"acme"}`,
	`{"job":"a","conversation":"-"}`, `{"job":"a","batch":7}`, `{"job":"a","data":[]}`, `{"job":"a","data":"x"}`, `{"job":"a","data":7}`, `{"job":"a","time":"now"}`,
	`{"job":"a","time":"2026-11-22T15:04:05Z"}`, `{"job":"a","job":"b"}`, `{"Job":"a"}`, `{"job":"a"} {}`, "{\"job\":\"\xff\"}", ``, `{`,
}

func TestTheRequestsAreOnBothSides(t *testing.T) {
	s, good := compile(t, "events/job.requested.v1.json"), 0
	for _, r := range requests {
		if validate(s, []byte(r)) == nil {
			good++
		}
	}
	if good < 15 || len(requests)-good < 50 {
		t.Errorf("%d of %d are good", good, len(requests))
	}
}

func TestExplainSaysWhichFieldOfANewJobIsWrong(t *testing.T) {
	s := compile(t, "http/create_job.json")
	for body, want := range map[string]string{
		`{"body":{"model":"sim"}}`: "",
		`{"lane":null,"conversation":null,"endpoint":null,"body":{"model":"sim"},"deadline":null,"metadata":null}`:                                            "",
		`{"lane":"batch","conversation":"c","endpoint":"/v1/chat/completions","body":{"model":"sim"},"deadline":"2026-11-22T15:04:05Z","metadata":{"k":"v"}}`: "",
		`{}`:                                     "body: it is missing",
		`[]`:                                     ": a JSON array: it must be of type object",
		`{"body":7}`:                             "body: a JSON number: it must be of type object",
		`{"body":{}}`:                            "body.model: it is missing",
		`{"body":{"model":""}}`:                  "body.model: it must not be empty",
		`{"body":{"model":"a"},"job":1}`:         "job: there is no such field",
		`{"body":{"model":"a"},"custom_id":"x"}`: "custom_id: there is no such field",
		`{"body":{"model":"a"},"lane":"urgent"}`: "lane: it must be one of interactive, standard, batch",
		`{"body":{"model":"a"},"endpoint":"/v1/embeddings"}`:                 "",
		`{"body":{"model":"a"},"endpoint":"/v1/completions"}`:                "endpoint: it must be one of /v1/chat/completions, /v1/embeddings",
		`{"body":{"model":"a"},"deadline":"soon"}`:                           `deadline: "soon" is no date-time, such as 2026-11-22T15:04:05Z`,
		`{"body":{"model":"a"},"deadline":1e999999999}`:                      "deadline: a JSON number: it must be of type string",
		`{"body":{"model":"a"},"conversation":""}`:                           `conversation: "" does not have the right form: ^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`,
		`{"body":{"model":"a"},"metadata":{"k":1}}`:                          "metadata.k: a JSON number: it must be of type string",
		`{"body":{"model":"a"},"metadata":{"k":null}}`:                       "metadata.k: a JSON null: it must be of type string",
		`{"body":{"model":"` + strings.Repeat("m", 257) + `"}}`:              "body.model: it has 257 characters: 256 at most",
		`{"body":{"model":"a"},"metadata":` + manyPairs(17) + `}`:            "metadata: it has 17 pairs: 16 at most",
		`{"body":{"model":"a"},"metadata":{"` + manyPairs(9) + `":"v"}}`:     "not JSON",
		`{"body":{"model":"a","model":"b"}}`:                                 "not JSON",
		`{"body":{"model":"a"},"metadata":{"` + longKey() + `":"too long"}}`: "metadata: a name in it has 65 characters: 64 at most",
	} {
		err := validate(s, []byte(body))
		got := ""
		if err != nil {
			field, reason := schemas.Explain(err)
			got = field + ": " + reason
		}
		if got != want && (want != "not JSON" || !strings.HasPrefix(got, ": not JSON: ")) {
			t.Errorf("%.120s\n got %s\nwant %s", body, got, want)
		}
	}
}

func longKey() string { return strings.Repeat("k", 65) }

func manyPairs(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"` + string(rune('a'+i)) + `":"v"`)
	}
	return "{" + b.String()[1:] + "}"
}

func TestExplainFallsBackToTheValidatorsWords(t *testing.T) {
	s := compile(t, "events/lane.pulse.v1.json")
	raw := strings.Replace(string(goldenFiles(t)["events/lane.pulse.v1.json"]), `"in_flight":12`, `"in_flight":-1`, 1)
	if field, reason := schemas.Explain(validate(s, []byte(raw))); field != "data.in_flight" || reason != "minimum: got -1, want 0" {
		t.Errorf("%s: %s", field, reason)
	}
	raw = strings.Replace(raw, `"type":"lane.pulse"`, `"type":"lane.claimed"`, 1)
	raw = strings.Replace(raw, `"in_flight":-1`, `"in_flight":1`, 1)
	if field, reason := schemas.Explain(validate(s, []byte(raw))); field != "type" || reason != "it must be lane.pulse" {
		t.Errorf("%s: %s", field, reason)
	}
}

func BenchmarkValidateNewJob(b *testing.B) {
	s := compile(b, "http/create_job.json")
	raw := []byte(`{"lane":"batch","body":{"model":"sim","messages":[{"role":"user","content":"hi"}]},"metadata":{"k":"v"}}`)
	for b.Loop() {
		if err := validate(s, raw); err != nil {
			b.Fatal(err)
		}
	}
}

// What an embeddings job writes is as much a delta and an output as any.
func TestAnEmbeddingsJobsEventsAreValid(t *testing.T) {
	golden := goldenFiles(t)
	for name, data := range map[string][2]string{
		"events/output.delta.v1.json": {
			`{"index":2047,"embedding":[0.5,-1e-3]}`, `{"index":0,"embedding":["a"]}`,
		},
		"events/job.completed.v1.json": {
			`{"model":"m","output":[{"index":0,"embedding":"AACAPw=="}],"usage":{"prompt_tokens":2,"completion_tokens":0,"total_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}`,
			`{"model":"m","output":[{"index":0}]}`,
		},
	} {
		s := compile(t, name)
		head, _, _ := strings.Cut(string(golden[name]), `"data":`)
		if err := validate(s, []byte(head+`"data":`+data[0]+"}")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := validate(s, []byte(head+`"data":`+data[1]+"}")); err == nil {
			t.Errorf("%s: %s is valid", name, data[1])
		}
	}
}
