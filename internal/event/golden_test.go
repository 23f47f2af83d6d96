package event

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

const mintedID = "job_06f3k2m8q0000000000000000000000a"

// allTypes is every type that this build writes.
var allTypes = []Type{
	JobRequested, JobCancelRequested, LaneClaimed, OutputStarted, OutputDelta, OutputToolResult, OutputSuperseded,
	OutputCompleted, OutputFailed, OutputCancelled, JobStarted, JobProgress, JobRetrying, JobCompleted, JobFailed,
	JobCancelled, JobExpired, LanePulse,
}

var stream = true

// goldenData is what stands as data in the golden file of each type. A pointer,
// so that a test can decode into a new one; nil is an empty object.
var goldenData = map[Type]any{
	JobRequested: &Request{
		Endpoint: DefaultEndpoint, Body: jsontext.Value(`{"model":"sim","messages":[{"role":"user","content":"hi"}]}`),
		Deadline: time.Date(2026, 11, 22, 15, 5, 5, 0, time.UTC), CustomID: "row-17", Stream: &stream,
		Metadata: map[string]string{"ticket": "4711"}, Repeat: true,
	},
	LaneClaimed:   &Claim{Owner: "processor-1", Bound: 1200, Watermark: 340},
	OutputStarted: &Started{Model: "sim", Provider: "sim"},
	OutputDelta: &Delta{
		Index: 1, Content: " wörld\n", Reasoning: "hm", Refusal: "no",
		ToolCalls: jsontext.Value(`[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]`),
		Logprobs:  jsontext.Value(`{"content":[]}`),
	},
	OutputToolResult: &ToolResult{CallID: "call_1", Content: "42", IsError: true},
	OutputSuperseded: &Superseded{Reason: "the owner was replaced"},
	OutputCompleted: &Completed{
		Model: "sim", Choices: []Choice{{Index: 0, FinishReason: "stop"}},
		Usage: &Usage{PromptTokens: 9, CompletionTokens: 2, TotalTokens: 11},
	},
	OutputFailed: &Failed{Code: "provider_error", Message: "the model's provider failed", Retryable: true},
	JobStarted:   &Started{Model: "sim", Provider: "sim"},
	JobCompleted: &Fact{
		Model: "sim", Output: []OutputChoice{{Message: Message{
			Role: "assistant", Content: "Hello.", Reasoning: "hm", Refusal: "no", ToolCalls: jsontext.Value(`[]`),
		}, FinishReason: "stop"}},
		Usage: &Usage{PromptTokens: 9, CompletionTokens: 2, TotalTokens: 11},
	},
	JobFailed:  &Failed{Code: "provider_rejected", Message: "the prompt is too long"},
	JobExpired: &Failed{Code: "expired", Message: "the request is older than what the log still holds"},
	LanePulse: &Pulse{
		Partition: 3, Owner: "processor-1", Member: "penstock-7", Bound: 1200, Watermark: 340, Consumed: 352,
		InFlight: 12, Running: 7, Waiting: 3, Rate: 3.5, Breaker: "closed", Released: true,
	},
}

func goldenHead(t Type) Head {
	h := Head{Type: t, V: 1, Time: time.Date(2026, 11, 22, 15, 4, 5, 123e6, time.UTC)}
	f := t.form()
	if f != formLane {
		h.Tenant, h.Job, h.Conversation = "default", mintedID, "c-17"
	}
	if f == formOutput || f == formFact {
		h.Attempt = 2
	}
	if f == formOutput {
		h.Seq = 7
	}
	if f != formRequest {
		h.Lane = Interactive
	}
	if f == formOutput || f == formLane {
		h.Epoch = 812
	}
	return h
}

func golden(tb testing.TB, t Type) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", string(t)+".v1.json"))
	if err != nil {
		tb.Fatalf("every type has a golden file, which is written once and never changed: %v", err)
	}
	return b[:len(b)-1] // the newline
}

func encodeGolden(t Type) []byte {
	data := []byte("{}")
	if payload := goldenData[t]; payload != nil {
		data = Encode(payload)
	}
	h := goldenHead(t)
	return Append(nil, &h, data)
}

func TestGoldenFilesAreWhatIsWritten(t *testing.T) {
	for _, typ := range allTypes {
		if diff := cmp.Diff(string(golden(t, typ)), string(encodeGolden(typ))); diff != "" {
			t.Errorf("%s is no longer written as its golden file has it (-file +written):\n%s", typ, diff)
		}
	}
}

func TestGoldenFilesDecodeForEver(t *testing.T) {
	for _, typ := range allTypes {
		file := golden(t, typ)
		var fast View
		if !fast.scan(file) {
			t.Errorf("%s: the fast scan gave up on its golden file", typ)
			continue
		}
		slow, err := decodeView(file)
		if err != nil {
			t.Errorf("%s: %v", typ, err)
			continue
		}
		if diff := cmp.Diff(slow, fast); diff != "" {
			t.Errorf("%s: fast scan and decoding differ (-slow +fast):\n%s", typ, diff)
		}
		if diff := cmp.Diff(goldenHead(typ), fast.Head()); diff != "" {
			t.Errorf("%s: head (-want +got):\n%s", typ, diff)
		}
		if want := goldenData[typ]; want != nil {
			got := newPayload(typ)
			if err := DecodeData(fast.Data, got); err != nil {
				t.Errorf("%s: %v", typ, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: data (-want +got):\n%s", typ, diff)
			}
		}
	}
}

// TestAnEndThatHoldsAllThatWasSaidDecodesForEver is of the second form that an
// end has, that of an unwatched job.
func TestAnEndThatHoldsAllThatWasSaidDecodesForEver(t *testing.T) {
	want := Completed{
		Model: "sim", Choices: []Choice{{FinishReason: "stop"}}, Usage: &Usage{PromptTokens: 9, CompletionTokens: 2, TotalTokens: 11},
		Deltas: []Delta{{Content: "When the"}, {Index: 1, Content: " wörld\n", Reasoning: "hm"}},
	}
	h := goldenHead(OutputCompleted)
	file, err := os.ReadFile(filepath.Join("testdata", "unwatched", "output.completed.v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(file), string(Append(nil, &h, Encode(&want)))+"\n"); diff != "" {
		t.Errorf("it is no longer written as it was (-file +written):\n%s", diff)
	}
	v, err := ScanHead(file[:len(file)-1])
	if err != nil {
		t.Fatal(err)
	}
	var got Completed
	if err := DecodeData(v.Data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
}

func newPayload(t Type) any {
	switch t {
	case JobRequested:
		return new(Request)
	case LaneClaimed:
		return new(Claim)
	case OutputStarted, JobStarted:
		return new(Started)
	case OutputDelta:
		return new(Delta)
	case OutputToolResult:
		return new(ToolResult)
	case OutputSuperseded:
		return new(Superseded)
	case OutputCompleted:
		return new(Completed)
	case OutputFailed, JobFailed, JobExpired:
		return new(Failed)
	case JobCompleted:
		return new(Fact)
	case LanePulse:
		return new(Pulse)
	default:
		return nil
	}
}

func TestNoGoldenFileIsOfAnUnknownType(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ScanHead(raw[:len(raw)-1])
		if err != nil || !strings.HasPrefix(filepath.Base(f), string(v.Type)+".v") {
			t.Errorf("%s: holds a %s, error %v", f, v.Type, err)
		}
	}
	if len(files) < len(allTypes) {
		t.Errorf("%d golden files for %d types", len(files), len(allTypes))
	}
}
