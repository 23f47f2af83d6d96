package event

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

var recordTime = time.Date(2026, 11, 22, 15, 4, 5, 0, time.UTC)

func TestForeignRequestsTakeTheirDefaults(t *testing.T) {
	head := Head{Type: JobRequested, V: 1, Time: recordTime, Tenant: "default", Job: "invoice-17"}
	req := Request{Endpoint: DefaultEndpoint, Model: "sim", Body: jsontext.Value(`{"model":"sim"}`)}
	for _, value := range []string{
		`{"job":"invoice-17","data":{"body":{"model":"sim"}}}`,
		`{"type":null,"v":null,"time":null,"tenant":null,"job":"invoice-17","conversation":null,"batch":null,` +
			`"data":{"endpoint":null,"body":{"model":"sim"},"deadline":null,"custom_id":null,"stream":null,"metadata":null,"repeat":null}}`,
		`{"job":"invoice-17","conversation":"","batch":"","data":{"endpoint":"","body":{"model":"sim"},"custom_id":"","unknown":[]},"unknown":{}}`,
		` {"data" : {"body":{"model":"sim"}}, "job":"invoice\u002d17","v":1.0,"lane":7} `,
	} {
		h, r, err := DecodeRequest(&Record{Value: []byte(value), Time: recordTime})
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		if diff := cmp.Diff(head, h); diff != "" {
			t.Errorf("%s: head (-want +got):\n%s", value, diff)
		}
		if diff := cmp.Diff(req, r); diff != "" {
			t.Errorf("%s: request (-want +got):\n%s", value, diff)
		}
		if !r.Streams() {
			t.Errorf("%s: does not stream", value)
		}
	}
}

func TestDecodeRequestReadsTheGoldenFile(t *testing.T) {
	h, r, err := DecodeRequest(&Record{Value: golden(t, JobRequested), Time: recordTime.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goldenHead(JobRequested), h); diff != "" {
		t.Errorf("head (-want +got):\n%s", diff)
	}
	if r.Model != "sim" {
		t.Errorf("model %q", r.Model)
	}
	r.Model = "" // it stands in the body
	if diff := cmp.Diff(goldenData[JobRequested], &r); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestARequestMayTurnStreamingOff(t *testing.T) {
	_, r, err := DecodeRequest(&Record{Value: []byte(`{"job":"a","data":{"body":{"model":"sim"},"stream":false}}`)})
	if err != nil || r.Streams() {
		t.Errorf("streams: %v, error %v", r.Streams(), err)
	}
}

const idSentence = "it must be 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':' and '-', beginning with a letter or digit"

// badRequests are requests that can never be run, with what their author is told.
var badRequests = []struct{ value, want string }{
	{``, "it is not JSON at byte 0: unexpected EOF"},
	{`not json`, "it is not JSON at byte 1: invalid character 'o' in literal null (expecting 'u')"},
	{`{"job":"a"`, "it is not JSON at byte 10: unexpected EOF"},
	{`{"job":"a",}`, "it is not JSON at byte 10: invalid character ',' at start of value"},
	{`{"job":"a"} {}`, "it is not JSON at byte 12: invalid character '{' after top-level value"},
	{"{\"job\":\"\xff\"}", "it is not JSON at byte 8: invalid UTF-8"},
	{`{"type":"later","data":}`, "it is not JSON at byte 23: missing value after object name"},
	{`[]`, "a JSON array: it must be an object"},
	{`{"job":"a","job":"b"}`, "job: the name stands twice in its object: it must stand once"},
	{`{"type":1}`, "type: a JSON number: it must be a string"},
	{`{"job":"a","v":"1"}`, "v: a JSON string: it must be a whole number"},
	{`{"job":"a","v":1.5}`, "v: 1.5: it must be a whole number"},
	{`{"job":"a","v":0,"data":{"body":{"model":"sim"}}}`, "v: 0 is no version: it must be 1"},
	{`{"job":"a","v":-1,"data":{"body":{"model":"sim"}}}`, "v: -1 is no version: it must be 1"},
	{`{"job":"a","time":"now"}`, `time: "now" is no time: it must be an RFC 3339 time between 1970 and 2999, such as "2026-11-22T15:04:05Z"`},
	{`{"job":"a","time":"20`, "it is not JSON at byte 21: unexpected EOF"},
	{`{"job":"a","time":17}`, `time: a JSON number: it must be an RFC 3339 time between 1970 and 2999, such as "2026-11-22T15:04:05Z"`},
	{`{"job":"a","time":"0001-01-01T00:00:00Z"}`, `time: "0001-01-01T00:00:00Z" is no time: it must be an RFC 3339 time between 1970 and 2999, such as "2026-11-22T15:04:05Z"`},
	{`{"job":"a","tenant":"","data":{"body":{"model":"sim"}}}`, `tenant: "" is no tenant: it must be 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit`},
	{`{"job":"a","tenant":"ACME","data":{"body":{"model":"sim"}}}`, `tenant: "ACME" is no tenant: it must be 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit`},
	{`{"job":"a","tenant":"a:b","data":{"body":{"model":"sim"}}}`, `tenant: "a:b" is no tenant: it must be 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit`},
	{`{"data":{"body":{"model":"sim"}}}`, "job: it is missing: a job needs an id that is unique in its tenant"},
	{`{"job":null,"data":{"body":{"model":"sim"}}}`, "job: it is missing: a job needs an id that is unique in its tenant"},
	{`{"job":7}`, "job: a JSON number: it must be a string"},
	{`{"job":"a b","data":{"body":{"model":"sim"}}}`, `job: "a b" is no job id: ` + idSentence},
	{`{"job":"-a","data":{"body":{"model":"sim"}}}`, `job: "-a" is no job id: ` + idSentence},
	{`{"job":"job_1","data":{"body":{"model":"sim"}}}`, `job: "job_1" is no job id: ids that begin with job_ are minted by Penstock, so it must begin otherwise`},
	{`{"job":"resp_1","data":{"body":{"model":"sim"}}}`, `job: "resp_1" is no job id: ids that begin with resp_ are minted by Penstock, so it must begin otherwise`},
	{`{"job":"chatcmpl-1","data":{"body":{"model":"sim"}}}`, `job: "chatcmpl-1" is no job id: ids that begin with chatcmpl- are minted by Penstock, so it must begin otherwise`},
	{`{"job":"a","conversation":"a/b","data":{"body":{"model":"sim"}}}`, `conversation: "a/b" is no conversation id: ` + idSentence},
	{`{"job":"a","batch":"a/b","data":{"body":{"model":"sim"}}}`, `batch: "a/b" is no batch id: ` + idSentence},
	{`{"job":"a"}`, "data: it is missing: it must hold the model request as data.body"},
	{`{"job":"a","data":null}`, "data: it is missing: it must hold the model request as data.body"},
	{`{"job":"a","data":"x"}`, "data: a JSON string: it must be an object"},
	{`{"job":"a","data":{}}`, "data.body: it is missing: it must be the model request, an object"},
	{`{"job":"a","data":{"body":null}}`, "data.body: a JSON null: it must be the model request, an object"},
	{`{"job":"a","data":{"body":"{}"}}`, "data.body: a JSON string: it must be the model request, an object"},
	{`{"job":"a","data":{"body":[]}}`, "data.body: a JSON array: it must be the model request, an object"},
	{`{"job":"a","data":{"body":true}}`, "data.body: a JSON boolean: it must be the model request, an object"},
	{`{"job":"a","data":{"body":{}}}`, `data.body.model: it is missing: it must name a model, such as "sim"`},
	{`{"job":"a","data":{"body":{"model":""}}}`, `data.body.model: it is missing: it must name a model, such as "sim"`},
	{`{"job":"a","data":{"body":{"model":7}}}`, "data.body.model: a JSON number: it must be a string"},
	{`{"job":"a","data":{"body":{"model":"` + strings.Repeat("m", 257) + `"}}}`, "data.body.model: it has more than 256 characters"},
	{`{"job":"a","data":{"body":{"model":"sim","model":"b"}}}`, "data.body.model: the name stands twice in its object: it must stand once"},
	{`{"job":"a","data":{"body":{"model":"sim"},"endpoint":"/v1/completions"}}`, `data.endpoint: "/v1/completions" is not served: it must be /v1/chat/completions or /v1/embeddings`},
	{`{"job":"a","data":{"body":{"model":"sim"},"deadline":"2026-11-22"}}`, `data.deadline: "2026-11-22" is no time: it must be an RFC 3339 time between 1970 and 2999, such as "2026-11-22T15:04:05Z"`},
	{`{"job":"a","data":{"body":{"model":"sim"},"stream":"yes"}}`, "data.stream: a JSON string: it must be true or false"},
	{`{"job":"a","data":{"body":{"model":"sim"},"custom_id":"` + strings.Repeat("é", 513) + `"}}`, "data.custom_id: it has more than 512 characters"},
	{`{"job":"a","data":{"body":{"model":"sim"},"metadata":["x"]}}`, "data.metadata: a JSON array: it must be an object"},
	{`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"a/b":1}}}`, "data.metadata.a/b: a JSON number: it must be a string"},
	{`{"job":"a","data":{"body":{"model":"sim"},"metadata":` + pairs(17) + `}}`, "data.metadata: it has 17 pairs: 16 at most"},
	{`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"` + strings.Repeat("k", 65) + `":""}}}`, `data.metadata: the key "` + strings.Repeat("k", 65) + `" has more than 64 characters`},
	{`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"k":"` + strings.Repeat("v", 513) + `"}}}`, "data.metadata.k: the value has more than 512 characters"},
}

func pairs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":"v"`, i)
	}
	return "{" + b.String()[1:] + "}"
}

func TestBadRequestsAreToldWhatIsWrongAndWhatWouldBeRight(t *testing.T) {
	for _, bad := range badRequests {
		_, _, err := DecodeRequest(&Record{Value: []byte(bad.value), Time: recordTime})
		if part := InvalidPart(err); part == "other" || !strings.HasPrefix(bad.want, part) && part != "value" {
			t.Errorf("%.200s is counted as %q", bad.value, part)
		}
		if _, ok := errors.AsType[*Invalid](err); !ok || err.Error() != bad.want {
			t.Errorf("%.200s\n got %v\nwant %s", bad.value, err, bad.want)
		}
	}
}

func TestRequestsAtTheLimitsAreTaken(t *testing.T) {
	for _, value := range []string{
		`{"job":"` + strings.Repeat("j", 128) + `","tenant":"` + strings.Repeat("t", 63) + `","data":{"body":{"model":"` + strings.Repeat("é", 256) + `"}}}`,
		`{"job":"a","data":{"body":{"model":"sim"},"custom_id":"` + strings.Repeat("é", 512) + `"}}`,
		`{"job":"a","data":{"body":{"model":"sim"},"metadata":` + pairs(16) + `}}`,
		`{"job":"a","data":{"body":{"model":"sim"},"metadata":{"` + strings.Repeat("é", 64) + `":"` + strings.Repeat("é", 512) + `"}}}`,
		`{"job":"` + mintedID + `","data":{"body":{"model":"sim"},"deadline":"2999-12-31T23:59:59.999999999-23:59"}}`,
	} {
		if _, _, err := DecodeRequest(&Record{Value: []byte(value)}); err != nil {
			t.Errorf("%.200s: %v", value, err)
		}
	}
}

func TestWhatAnotherBuildMayKnowIsSkipped(t *testing.T) {
	for _, value := range []string{
		`{"type":"job.cancel_requested","job":"a"}`,
		`{"type":"job.requested","v":2,"job":"a"}`,
		`{"type":"job.requested","v":2,"job":"a","data":"now a string"}`,
		`{"type":"later","job":"?","data":[]}`,
		`{"type":""}`,
	} {
		if _, _, err := DecodeRequest(&Record{Value: []byte(value)}); !errors.Is(err, ErrSkip) {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestSkippedEventsAreNamed(t *testing.T) {
	for _, value := range []string{`{"type":"later","job":"a"}`, `{"type":"later","job":"a","data":"now a string"}`} {
		if h, _, err := DecodeRequest(&Record{Value: []byte(value)}); h.Type != "later" || h.Job != "a" {
			t.Errorf("%s: head %+v, error %v", value, h, err)
		}
	}
}

func TestADeadlineOfAnImpossibleYearIsRefused(t *testing.T) {
	r := Request{Body: jsontext.Value(`{"model":"sim"}`), Deadline: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}
	want := `data.deadline: 10000-01-01T00:00:00Z is out of range: it must be an RFC 3339 time between 1970 and 2999, such as "2026-11-22T15:04:05Z"`
	if err := r.Validate(); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestReservedIDsMustBeMinted(t *testing.T) {
	for id, ok := range map[string]bool{
		mintedID:                           true,
		"job_" + strings.Repeat("z", 32):   true,
		"job_" + strings.Repeat("z", 31):   false,
		"job_" + strings.Repeat("z", 33):   false,
		"job_" + strings.Repeat("u", 32):   false,
		"job_" + strings.Repeat("Z", 32):   false,
		"job_" + strings.Repeat("i", 32):   false,
		"job_":                             false,
		"job":                              true,
		"Job_1":                            true,
		"my-job_1":                         true,
		"batch_" + strings.Repeat("z", 32): false,
		"file_a":                           false,
		"files_a":                          true,
	} {
		err := ValidateHead(&Head{V: 1, Tenant: "default", Job: id})
		if (err == nil) != ok {
			t.Errorf("%s: %v", id, err)
		}
	}
	if err := ValidateHead(&Head{V: 1, Tenant: "default", Job: "a", Conversation: "job_1", Batch: "batch_1"}); err != nil {
		t.Errorf("only jobs' ids are reserved: %v", err)
	}
}

func TestTheBodysOwnModelIsRead(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"sim"}`: "sim",
		` { "messages" : [{"model":"not this"}], "x":{"model":"nor this"}, "model" : "openai/gpt-5" } `: "openai/gpt-5",
		`{"mo\u0064el":"s\u0069m"}`:         "sim",
		`{"a\u0062":"model","model":"sim"}`: "sim",
		`{"x":"\"model\":","model":"sim"}`:  "sim",
	} {
		r := Request{Body: jsontext.Value(body)}
		if err := r.Validate(); err != nil || r.Model != want {
			t.Errorf("%s: %q and %v, want %q", body, r.Model, err, want)
		}
	}
	for _, body := range []string{`{"model":null}`, `{"x":{"model":"sim"}}`, `{"model":["sim"]}`, `{"model":"sim"`, `["model"]`, `{"model":"sim","x":{"y":1,"y":2}}`} {
		r := Request{Body: jsontext.Value(body)}
		if err := r.Validate(); err == nil || !strings.HasPrefix(err.Error(), "data.body") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, bad := range badRequests {
		f.Add([]byte(bad.value))
	}
	for _, s := range awkward {
		f.Add([]byte(s))
	}
	f.Add(golden(f, JobRequested))
	f.Fuzz(func(t *testing.T, value []byte) {
		before := bytes.Clone(value)
		h, r, err := DecodeRequest(&Record{Value: value, Time: recordTime})
		if !bytes.Equal(before, value) {
			t.Fatal("decoding changed the value")
		}
		// A space in front has it decoded the slow way, with the same result.
		hs, rs, errs := DecodeRequest(&Record{Value: append([]byte(" "), value...), Time: recordTime})
		if diff := cmp.Diff([]any{hs, rs}, []any{h, r}); diff != "" && err == nil || (errs == nil) != (err == nil) {
			t.Fatalf("%q: %v, and the slow way %v (-slow +fast):\n%s", value, err, errs, diff)
		}
		if err != nil {
			if _, ok := errors.AsType[*Invalid](err); !ok && !errors.Is(err, ErrSkip) {
				t.Fatalf("an error of a kind that is not promised: %v", err)
			}
			return
		}
		var body struct {
			Model string `json:"model"`
		}
		if err := json.Unmarshal(r.Body, &body); err != nil || body.Model != r.Model {
			t.Fatalf("%q: the model is %q, and not %q: %v", value, body.Model, r.Model, err)
		}
		// What was taken can be written again, and says the same.
		h2, r2, err := DecodeRequest(&Record{Value: Append(nil, &h, Encode(&r))})
		if err != nil {
			t.Fatalf("%q was taken, but not once written again: %v", value, err)
		}
		h.Time = h.Time.UTC().Truncate(time.Millisecond)
		if diff := cmp.Diff(h, h2); diff != "" {
			t.Fatalf("%q: head (-first +again):\n%s", value, diff)
		}
		if err := r.Body.Compact(); err != nil {
			t.Fatal(err)
		}
		if len(r.Metadata) == 0 {
			r.Metadata, r2.Metadata = nil, nil
		}
		if diff := cmp.Diff(r, r2); diff != "" {
			t.Fatalf("%q: request (-first +again):\n%s", value, diff)
		}
	})
}

func TestABodyThatIsTooDeepIsRefusedWhereverItIsRead(t *testing.T) {
	t.Parallel()
	nested := func(n int) string {
		return `{"model":"sim","x":` + strings.Repeat("[", n) + `"]]\"]]"` + strings.Repeat("]", n) + `}`
	}
	deepest := Request{Body: jsontext.Value(nested(MaxBodyDepth - 1))}
	if err := deepest.Validate(); err != nil {
		t.Error(err)
	}
	for _, n := range []int{MaxBodyDepth, 9_997, 9_998} {
		tooDeep := Request{Body: jsontext.Value(nested(n))}
		if err := tooDeep.Validate(); err == nil || !strings.Contains(err.Error(), "data.body") {
			t.Errorf("%d deep: %v", n, err)
		}
	}
}

func TestWhatIsNoFaultOfAFieldIsCountedAsOther(t *testing.T) {
	for want, err := range map[string]error{
		"other":     errors.New("x"),
		"other ":    invalid("nobody.knows", "x"),
		"data.body": invalid("data.body.model.x", "x"),
	} {
		if got := InvalidPart(err); got != strings.TrimSpace(want) {
			t.Errorf("%v is counted as %q", err, got)
		}
	}
	if _, _, err := DecodeRequest(&Record{Defect: "it does not unpack"}); err == nil || err.Error() != "it does not unpack" || InvalidPart(err) != "value" {
		t.Errorf("a record that could not be read: %v", err)
	}
}
