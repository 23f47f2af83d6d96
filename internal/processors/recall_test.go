package processors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// written is the token partition of a test: a record an offset.
func written(heads ...event.Head) []event.Record {
	recs := make([]event.Record, len(heads))
	for i := range heads {
		h := &heads[i]
		h.V, h.Time, h.Tenant, h.Attempt = 1, time.UnixMilli(1_700_000_000_000), "t", 1
		data := fmt.Appendf(nil, `{"index":0,"content":"%s%d "}`, h.Job, h.Seq)
		if h.Type != event.OutputDelta {
			data = []byte("{}")
		}
		recs[i] = event.Record{Offset: int64(i), Value: event.Append(nil, h, data)}
	}
	return recs
}

func asking(id string, to int64) *engine.Start {
	return &engine.Start{
		LP:      engine.LP{Lane: event.Batch},
		Request: &engine.Request{Head: event.Head{Tenant: "t", Job: id}}, Resume: &engine.Resume{To: to},
	}
}

// TestAllThatAskAtOnceShareOneReading has three jobs that were under way when
// their owner went, of which a zombie wrote on, and one that waits for the next
// reading.
func TestAllThatAskAtOnceShareOneReading(t *testing.T) {
	delta := func(id string, seq, epoch int64) event.Head {
		return event.Head{Type: event.OutputDelta, Job: id, Seq: seq, Lane: event.Batch, Epoch: epoch}
	}
	claim := func(epoch int64) event.Head {
		return event.Head{Type: event.LaneClaimed, Lane: event.Batch, Epoch: epoch}
	}
	log := written(
		delta("a", 0, 4), delta("b", 0, 4), claim(5), delta("a", 1, 4) /* a zombie's */, delta("a", 1, 5), delta("c", 0, 5), delta("b", 1, 4),
	)
	synctest.Test(t, func(t *testing.T) {
		readings := 0
		r := &recaller{scan: func(_ context.Context, lane event.Lane, b *recallBatch) error {
			readings++
			var f fence.Filter
			f.Epochs[lane] = b.epoch
			if b.from != 0 || b.to != 7 || b.epoch != 4 {
				t.Errorf("reads [%d, %d) from epoch %d on", b.from, b.to, b.epoch)
			}
			b.apply(lane, &f, log[b.from:b.to])
			return nil
		}}
		want := map[string]string{"c": "c0 ", "a": "a0 a1 ", "b": "b0 "}
		first := map[string]int64{"c": 5, "a": 0, "b": 1}
		epoch := map[string]int64{"c": 5, "a": 4, "b": 4}
		var wg sync.WaitGroup
		for id, text := range want {
			wg.Go(func() {
				got, err := r.ask(t.Context(), asking(id, 7), first[id], epoch[id])
				if err != nil || got.Text() != text {
					t.Errorf("%s: %q and %v", id, got.Text(), err)
				}
			})
		}
		wg.Wait()
		if readings != 1 {
			t.Errorf("%d readings", readings)
		}
		if got, err := r.ask(t.Context(), asking("a", 7), 0, 4); err != nil || got.Text() != "a0 a1 " || readings != 2 {
			t.Errorf("the next one: %v, %v after %d readings", got, err, readings)
		}
	})
}

func TestAReadingThatFailsFailsAllAndABrokenEventItsJobAlone(t *testing.T) {
	log := written(
		event.Head{Type: event.OutputDelta, Job: "good", Lane: event.Batch, Epoch: 1},
		event.Head{Type: event.OutputDelta, Job: "bad", Lane: event.Batch, Epoch: 1},
	)
	bad := event.Head{Type: event.OutputDelta, V: 1, Time: time.UnixMilli(1), Tenant: "t", Job: "bad", Attempt: 1, Lane: event.Batch, Epoch: 1}
	log[1].Value = event.Append(nil, &bad, []byte(`{"index":-1,"content":"x"}`))
	broken := errors.New("the broker is away")
	synctest.Test(t, func(t *testing.T) {
		for _, fails := range []error{nil, broken} {
			r := &recaller{scan: func(_ context.Context, lane event.Lane, b *recallBatch) error {
				b.apply(lane, &fence.Filter{}, log)
				return fails
			}}
			errs := map[string]error{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for _, id := range []string{"good", "bad"} {
				wg.Go(func() {
					_, err := r.ask(t.Context(), asking(id, 2), 0, 1)
					mu.Lock()
					defer mu.Unlock()
					errs[id] = err
				})
			}
			wg.Wait()
			if !errors.Is(errs["good"], fails) || errs["bad"] == nil {
				t.Errorf("a reading that ends with %v: %v", fails, errs)
			}
		}
	})
}

func TestWhoeverAsksWaitsNoLongerThanItsLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recaller{scan: func(ctx context.Context, _ event.Lane, _ *recallBatch) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		ctx, shut := context.WithTimeout(t.Context(), time.Second)
		defer shut()
		var wg sync.WaitGroup
		for range 2 { // who leads, and who waits for it
			wg.Go(func() {
				if _, err := r.ask(ctx, asking("j", 1), 0, 1); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
	})
}

func TestARecallOfNothingReadsNothing(t *testing.T) {
	p, g := &Processor{}, &gate{}
	s := asking("j", 1)
	s.Resume = nil
	if got, err := p.recall(g, s); err != nil || got.NextSeq != 0 {
		t.Errorf("%v, %v", got, err)
	}
	s.Again = &engine.Again{Progress: job.Progress{Attempt: 2, NextSeq: 3}}
	if got, err := p.recall(g, s); err != nil || got.NextSeq != 3 || got.Attempt != 2 {
		t.Errorf("%v, %v", got, err)
	}
}
