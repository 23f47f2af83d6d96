package job

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
)

// FuzzTranscript folds outputs whose data may be anything: whatever is taken in
// makes a fact that is JSON.
func FuzzTranscript(f *testing.F) {
	f.Add([]byte(`{"index":0,"content":"a","tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{"}}]}`), []byte(`{"model":"sim","choices":[{"index":0,"finish_reason":"stop"}]}`))
	f.Add([]byte(`{"index":127,"logprobs":{"content":[]},"reasoning":"é","embedding":[1e999]}`), []byte(`{"code":"expired","message":"","retryable":true}`))
	f.Add([]byte(`{"index":-1,"tool_calls":[{"index":99999999}]}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, delta, end []byte) {
		for _, last := range []event.Type{event.OutputCompleted, event.OutputFailed, event.OutputCancelled} {
			var tr Transcript
			for seq, e := range []struct {
				kind event.Type
				data []byte
			}{{event.OutputStarted, end}, {event.OutputDelta, delta}, {event.OutputDelta, end}, {last, end}} {
				h := event.Head{
					Type: e.kind, V: 1, Time: time.Unix(1_790_000_000, 0), Tenant: "default", Job: "j", Attempt: 1, Seq: int64(seq),
					Lane: event.Standard, Epoch: 1,
				}
				if !jsontext.Value(e.data).IsValid() {
					return
				}
				v, err := event.ScanHead(event.Append(nil, &h, e.data))
				if err != nil {
					t.Fatal(err)
				}
				_ = tr.Apply(&v) // an error says what was wrong with the data
			}
			if kind, fact := tr.Fact(); !kind.Terminal() || !fact.IsValid() {
				t.Fatalf("%s %s", kind, fact)
			}
			_ = tr.Text()
		}
	})
}
