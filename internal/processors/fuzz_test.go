package processors

import (
	"errors"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// steps is an engine that owns a lane, or is about to.
func steps() (*engine.Engine, engine.LP) {
	lp := engine.LP{Lane: event.Standard}
	e := engine.New(engine.Config{Owner: "me", MaxInFlight: 4})
	now := time.Unix(1_790_000_000, 0)
	e.Step(now, engine.LeaseRenewed{Sent: now, Member: "m"})
	e.Step(now, engine.Assigned{LP: lp, Life: 1, Member: "m"})
	return e, lp
}

// FuzzPulse reads a record of the pulse topic and tells the engine.
func FuzzPulse(f *testing.F) {
	f.Add([]byte(`{"type":"lane.pulse","v":1,"lane":"standard","epoch":5,"data":{"partition":0,"owner":"x","released":true}}`))
	f.Add([]byte(`{"type":"lane.pulse","lane":"batch","epoch":-1,"data":{"partition":-7}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		in, ok := (&Processor{}).pulseInput(&event.Record{Value: value})
		if !ok {
			return
		}
		if in.Lane == event.NoLane {
			t.Fatalf("%q is of no lane", value)
		}
		e, _ := steps()
		e.Step(time.Unix(1_790_000_001, 0), in)
	})
}

// FuzzTokensRecord reads a record of the token topic, claims among them, and
// tells the engine.
func FuzzTokensRecord(f *testing.F) {
	f.Add([]byte(`{"type":"lane.claimed","v":1,"lane":"standard","epoch":5,"data":{"owner":"x","bound":0,"watermark":0}}`))
	f.Add([]byte(`{"type":"output.delta","v":1,"tenant":"default","job":"j","attempt":1,"seq":9223372036854775807,"lane":"standard","epoch":9223372036854775807,"data":{}}`))
	f.Add([]byte(`{"type":"output.completed","v":1,"tenant":"","job":"","attempt":-1,"seq":-1,"lane":"batch","epoch":-1,"data":7}`))
	m, err := newMetrics(nil)
	if err != nil {
		f.Fatal(err)
	}
	p := &Processor{cfg: Config{}.withDefaults(), metrics: m}
	f.Fuzz(func(t *testing.T, value []byte) {
		in, err := p.tokensInput(&kafka.Chunk{Records: []event.Record{{Value: value}}, Next: 1, HighWatermark: 1})
		if err != nil {
			t.Fatal(err)
		}
		e, lp := steps()
		now := time.Unix(1_790_000_001, 0)
		e.Step(now, engine.Located{LP: lp, Gen: 1, End: 1})
		e.Step(now, in)
	})
}

// FuzzIntake reads a record of a request topic: it is run, skipped or refused,
// and nothing else.
func FuzzIntake(f *testing.F) {
	f.Add([]byte(`{"job":"a","data":{"body":{"model":"sim"}}}`))
	f.Add([]byte(`{"type":"job.requested","v":2}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		r := decode(&event.Record{Value: value, Time: time.Unix(1_790_000_000, 0)})
		if r.Poison == "" != (r.PoisonPart == "") || r.Skip && r.Poison != "" || r.Poison == "" && !r.Skip && r.Head.Job == "" {
			t.Fatalf("%+v", r)
		}
		d := event.Bury(&r.Record, stage, r.Poison, 1<<20)
		rec := d.Record("dead", time.Unix(0, 0))
		if _, err := event.ParseDeadLetter(&rec); err != nil {
			t.Fatal(err)
		}
	})
}

// TestARecordThatCannotBeReadIsRefusedByItsDefect is for what no fuzzing makes.
func TestARecordThatCannotBeReadIsRefusedByItsDefect(t *testing.T) {
	r := decode(&event.Record{Defect: "it unpacks to too much"})
	if r.Poison != "it unpacks to too much" || r.PoisonPart != "value" {
		t.Errorf("%+v", r)
	}
	_, err := (&Processor{}).tokensInput(&kafka.Chunk{Err: kafka.ErrRecreated})
	if !errors.Is(err, kafka.ErrRecreated) {
		t.Error(err)
	}
}
