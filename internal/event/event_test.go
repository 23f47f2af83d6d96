package event

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLanesAndTheirNames(t *testing.T) {
	if diff := cmp.Diff([]Lane{Interactive, Standard, Batch}, Lanes()); diff != "" {
		t.Error(diff)
	}
	for _, l := range append(Lanes(), NoLane) {
		text, err := l.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Lane = 9
		if err := back.UnmarshalText(text); err != nil || back != l {
			t.Errorf("%v became %v, error %v", l, back, err)
		}
		if int(l) >= LaneCount {
			t.Errorf("%v has no place in an array of %d", l, LaneCount)
		}
	}
	var l Lane
	want := `unknown lane "urgent": it is interactive, standard or batch`
	if err := l.UnmarshalText([]byte("urgent")); err == nil || err.Error() != want || l != NoLane {
		t.Errorf("got %v, %v", l, err)
	}
	if _, err := ParseLane(""); err == nil {
		t.Error("an empty name is no lane")
	}
}

func TestKnownTypesAreKnownByName(t *testing.T) {
	for _, typ := range append(allTypes, "later") {
		if got := typeOf([]byte(typ)); got != typ {
			t.Errorf("%s became %s", typ, got)
		}
	}
}

func TestWhichTypesAreOutputAndWhichTerminal(t *testing.T) {
	output := map[Type]bool{
		OutputStarted: true, OutputDelta: true, OutputToolResult: true, OutputSuperseded: true,
		OutputCompleted: true, OutputFailed: true, OutputCancelled: true,
	}
	terminal := map[Type]bool{
		OutputCompleted: true, OutputFailed: true, OutputCancelled: true,
		JobCompleted: true, JobFailed: true, JobCancelled: true, JobExpired: true,
	}
	for _, typ := range append(allTypes, "later") {
		if typ.Output() != output[typ] || typ.Terminal() != terminal[typ] {
			t.Errorf("%s: output %v, terminal %v", typ, typ.Output(), typ.Terminal())
		}
	}
}

func TestHeaderIsTheFirstOfItsKey(t *testing.T) {
	r := Record{Headers: []Header{{"a", []byte("1")}, {"b", []byte("2")}, {"b", []byte("3")}}}
	if got := string(r.Header("b")); got != "2" {
		t.Errorf("got %q", got)
	}
	if got := r.Header("c"); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestCloudEventsHeaders(t *testing.T) {
	h := Head{Type: JobCompleted, Time: time.Date(2026, 11, 22, 16, 4, 5, 123456789, time.FixedZone("", 3600)), Tenant: "acme", Job: "invoice-17"}
	want := []Header{
		{"ce_specversion", []byte("1.0")},
		{"ce_type", []byte("io.penstock.job.completed")},
		{"ce_source", []byte("/penstock")},
		{"ce_id", []byte("acme/invoice-17/job.completed")},
		{"ce_time", []byte("2026-11-22T15:04:05.123Z")},
		{"content-type", []byte("application/json")},
	}
	if diff := cmp.Diff(want, CloudEvents(&h, FactID(&h), "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want = append(want, Header{"traceparent", []byte("00-aa-bb-01")})
	if diff := cmp.Diff(want, CloudEvents(&h, FactID(&h), "00-aa-bb-01")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFactsOfOneJobHaveTheSameIDHoweverOftenWritten(t *testing.T) {
	a := Head{Type: JobFailed, Tenant: "acme", Job: "a", Attempt: 1, Time: time.Unix(1, 0)}
	b := Head{Type: JobFailed, Tenant: "acme", Job: "a", Attempt: 1, Time: time.Unix(2, 0)}
	if FactID(&a) != FactID(&b) {
		t.Errorf("%s is not %s", FactID(&a), FactID(&b))
	}
	ids := map[string]bool{}
	for _, h := range []Head{
		a,
		{Type: JobCompleted, Tenant: "acme", Job: "a"},
		{Type: JobFailed, Tenant: "b", Job: "a"},
		{Type: JobFailed, Tenant: "acme", Job: "b"},
		{Type: JobStarted, Tenant: "acme", Job: "a", Attempt: 1},
		{Type: JobStarted, Tenant: "acme", Job: "a", Attempt: 2},
	} {
		ids[FactID(&h)] = true
	}
	if len(ids) != 6 {
		t.Errorf("different facts share an id: %v", ids)
	}
}
