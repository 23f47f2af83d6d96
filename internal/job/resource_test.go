package job

import (
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
)

func request() (*event.Head, *event.Request) {
	return &event.Head{Job: "j1", Tenant: "t", Conversation: "c", Batch: "b", Time: at(0)},
		&event.Request{Endpoint: "/v1/chat/completions", Body: []byte(`{"model":"sim"}`), Deadline: at(30), CustomID: "x", Metadata: map[string]string{"k": "v"}}
}

func TestANewResourceIsItsRequest(t *testing.T) {
	h, r := request()
	b, err := json.Marshal(NewResource(h, r, event.Batch, Position{"penstock.requests.batch", 3, 7}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"object":"job","id":"j1","status":"queued","lane":"batch","tenant":"t","conversation":"c","batch":"b",` +
		`"endpoint":"/v1/chat/completions","model":"sim","created_at":"2026-11-22T15:04:00.000Z","deadline":"2026-11-22T15:04:30.000Z",` +
		`"custom_id":"x","metadata":{"k":"v"},"request":{"topic":"penstock.requests.batch","partition":3,"offset":7},` +
		`"links":{"self":"/v1/jobs/j1","events":"/v1/jobs/j1/events","cancel":"/v1/jobs/j1/cancel"}}`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAResourceOfABodyWithoutAModelHasNone(t *testing.T) {
	h, r := request()
	for _, body := range []string{`{}`, `[]`, `{"model":7}`, ``} {
		r.Body = []byte(body)
		if got := NewResource(h, r, event.Standard, Position{}).Model; got != "" {
			t.Errorf("%s: %q", body, got)
		}
	}
}

func TestAResourceIsToldHowItsJobStands(t *testing.T) {
	started := out(event.OutputStarted, 1, 0, event.Started{Model: "sim", Provider: "simulated"})
	said := out(event.OutputDelta, 1, 1, event.Delta{Content: "hi"})
	usage := &event.Usage{TotalTokens: 3}
	failed := event.Failed{Code: "overloaded", Message: "m", Retryable: true}
	expired := event.Failed{Code: "expired", Message: "m"}
	for name, c := range map[string]struct {
		views []event.View
		want  func(r *Resource)
	}{
		"nothing": {nil, func(*Resource) {}},
		"running": {[]event.View{started, said}, func(r *Resource) {
			r.Status, r.Attempt, r.Provider, r.StartedAt = Running, 1, "simulated", Time{at(0)}
		}},
		"completed": {[]event.View{started, said, out(event.OutputCompleted, 1, 2, event.Completed{Choices: []event.Choice{{FinishReason: "stop"}}, Usage: usage})}, func(r *Resource) {
			r.Status, r.Attempt, r.Provider, r.StartedAt, r.EndedAt = Completed, 1, "simulated", Time{at(0)}, Time{at(2)}
			r.Output = []event.OutputChoice{{Message: event.Message{Role: "assistant", Content: "hi"}, FinishReason: "stop"}}
			r.Usage = usage
		}},
		"failed": {[]event.View{started, out(event.OutputFailed, 1, 1, failed)}, func(r *Resource) {
			r.Status, r.Attempt, r.Provider, r.StartedAt, r.EndedAt, r.Error = Failed, 1, "simulated", Time{at(0)}, Time{at(1)}, &failed
		}},
		"expired, never started": {[]event.View{out(event.OutputFailed, 1, 0, expired)}, func(r *Resource) {
			r.Status, r.Attempt, r.StartedAt, r.EndedAt, r.Error = Expired, 1, Time{at(0)}, Time{at(0)}, &expired
		}},
		"cancelled in the middle": {[]event.View{started, said, out(event.OutputCancelled, 1, 2, struct{}{})}, func(r *Resource) {
			r.Status, r.Attempt, r.Provider, r.StartedAt, r.EndedAt = Cancelled, 1, "simulated", Time{at(0)}, Time{at(2)}
			r.Output = []event.OutputChoice{{Message: event.Message{Role: "assistant", Content: "hi"}}}
		}},
		"cancelled": {[]event.View{started, out(event.OutputCancelled, 2, 1, struct{}{})}, func(r *Resource) {
			r.Status, r.Attempt, r.Provider, r.StartedAt, r.EndedAt = Cancelled, 2, "simulated", Time{at(0)}, Time{at(1)}
		}},
	} {
		h, r := request()
		got, want := NewResource(h, r, event.Batch, Position{}), NewResource(h, r, event.Batch, Position{})
		var tr Transcript
		apply(t, &tr, c.views...)
		got.Tell(&tr)
		c.want(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestEveryTypeStandsForAStatus(t *testing.T) {
	for kind, want := range map[event.Type]Status{
		event.JobRequested: Queued, event.OutputStarted: Running, event.OutputDelta: Running, event.JobRetrying: Running, "": Running,
		event.OutputCompleted: Completed, event.JobCompleted: Completed, event.OutputFailed: Failed, event.JobFailed: Failed,
		event.OutputCancelled: Cancelled, event.JobCancelled: Cancelled, event.JobExpired: Expired,
	} {
		if got := StatusOf(kind); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
	for _, s := range Statuses() {
		if want := !slices.Contains([]Status{Queued, Running}, s); s.Ended() != want {
			t.Errorf("%s: ended %v", s, s.Ended())
		}
	}
	if Status("").Ended() {
		t.Error("no status has ended")
	}
}

func TestTimesAreWrittenInUTCWithMilliseconds(t *testing.T) {
	in := Time{time.Date(2026, 11, 22, 16, 4, 5, 123_999_999, time.FixedZone("", 3600))}
	b, err := json.Marshal(in)
	if err != nil || string(b) != `"2026-11-22T15:04:05.123Z"` {
		t.Fatalf("%s, %v", b, err)
	}
	if text, err := in.MarshalText(); err != nil || `"`+string(text)+`"` != string(b) {
		t.Errorf("%s, %v", text, err)
	}
	var back Time
	if err := back.UnmarshalText([]byte("2026-11-22T16:04:05.123+01:00")); err != nil || !back.Equal(in.Truncate(time.Millisecond)) {
		t.Errorf("%v, %v", back, err)
	}
	if err := json.Unmarshal(b, &back); err != nil || !back.Equal(in.Truncate(time.Millisecond)) {
		t.Errorf("%v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`"yesterday"`), &back); err == nil {
		t.Error("yesterday was taken for a time")
	}
}
