package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

func TestSubmitSubscribesFromBeforeTheJob(t *testing.T) {
	g := onOne(t, Config{})
	in := &jobsIn{g: g, keys: map[string]*job.Resource{}}
	g.restart(func(c *Config) { c.Intake = in })
	c := g.dial()
	c.say(`{"op":"submit","ref":"1","idempotency_key":"k","job":{"body":{"model":"sim"}},"sub":"a"}`)
	f := c.want("accepted")
	var res job.Resource
	g.no(json.Unmarshal(f.Job, &res))
	if f.Ref != "1" || f.ID == "" || res.ID != f.ID || res.Object != "job" {
		t.Fatalf("got %s", f.raw)
	}
	if f := c.want("subscribed"); f.Ref != "1" || f.Sub != "a" {
		t.Errorf("got %s", f.raw)
	}
	m, _ := job.ParseID(f.ID)
	a := g.authorOf(f.ID, m.Partition)
	a.whole(3)
	all, _ := c.untilEnd()
	seqs(t, all, 0)
	if len(all) != 5 {
		t.Errorf("%d events, want 5", len(all))
	}
	// The same key is the same job, whole again.
	c.say(`{"op":"submit","ref":"2","idempotency_key":"k","job":{"body":{"model":"sim"}},"sub":"a"}`)
	if again := c.want("accepted"); again.ID != f.ID {
		t.Errorf("got %s", again.raw)
	}
	c.want("subscribed")
	if all, _ := c.untilEnd(); len(all) != 5 {
		t.Errorf("%d events, want 5", len(all))
	}
	// One that was made long ago, and whose output is gone.
	old := g.author()
	in.keys["old"] = &job.Resource{Object: "job", ID: old.head.Job, CreatedAt: job.Time{Time: time.Now().Add(-time.Hour)}, Status: job.Queued}
	g.rows.set(event.DefaultTenant, &job.Resource{ID: old.head.Job, Status: job.Completed}, nil)
	c.say(`{"op":"submit","ref":"3","idempotency_key":"old","job":{"body":{"model":"sim"}},"sub":"a"}`)
	c.want("accepted")
	c.want("subscribed")
	if all, status := c.untilEnd(); len(all) != 1 || status != "error" {
		t.Errorf("%v, %q; want a gap", all, status)
	}
	// Without sub nothing is subscribed to; a refused one leaves its name free.
	c.say(`{"op":"submit","ref":"4","job":{"body":{"model":"sim"}}}`)
	c.want("accepted")
	c.say(`{"op":"submit","ref":"5","job":{"body":{"model":"bad"}},"sub":"a"}`)
	if f := c.refused(fault.InvalidRequest, "5", "job.body.model"); f.Sub != "a" {
		t.Errorf("got %s", f.raw)
	}
	in.err = &fault.Error{Code: fault.IdempotencyMismatch, Param: "Idempotency-Key", Message: "another body"}
	c.say(`{"op":"submit","ref":"6","job":{"body":{"model":"sim"}},"sub":"a"}`)
	c.refused(fault.IdempotencyMismatch, "6", "idempotency_key")
	in.err = errors.New("secret")
	c.say(`{"op":"submit","ref":"7","job":{"body":{"model":"sim"}}}`)
	if f := c.refused(fault.Internal, "7", ""); strings.Contains(f.raw, "secret") {
		t.Errorf("got %s", f.raw)
	}
}

// TestASubmitOfAJobThatAClockAheadOfOursMadeHasAllOfIt has a job of another process
// that has ended before its key comes here.
func TestASubmitOfAJobThatAClockAheadOfOursMadeHasAllOfIt(t *testing.T) {
	g := onOne(t, Config{})
	in := &jobsIn{g: g, keys: map[string]*job.Resource{}}
	g.restart(func(c *Config) { c.Intake = in })
	first := g.author()
	first.whole(1)
	g.open(events(first)).rest() // the partition is followed from here on
	ahead := time.Now().Add(30 * time.Second)
	id, err := job.Mint(ahead, conversationIn(first.part), testPartitions, zeros{})
	g.no(err)
	a := g.authorOf(id, first.part)
	a.requestAt(event.Standard, ahead)
	recs := []event.Record{a.next(event.OutputDelta, event.Delta{Content: "x"}), a.next(event.OutputCompleted, event.Completed{Model: "sim"})}
	for i := range recs {
		recs[i].Time = ahead // of the same process
	}
	g.append(recs...)
	in.keys["k"] = &job.Resource{Object: "job", ID: id, Status: job.Queued, CreatedAt: job.Time{Time: ahead}, Links: job.LinksOf(id)}
	probe := g.authorOf("probe", a.part)
	sub := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events?offset=latest", a.part))
	probe.started()
	sub.must() // so what was written before is in memory, and the window has moved on
	c := g.dial()
	c.say(`{"op":"submit","ref":"1","idempotency_key":"k","job":{"body":{"model":"sim"}},"sub":"a"}`)
	c.want("accepted")
	c.want("subscribed")
	all, status := c.untilEnd()
	seqs(t, all, 0)
	if len(all) != 2 || status != "completed" {
		t.Errorf("%d events and %q, want 2 and completed", len(all), status)
	}
}

type canceller struct {
	Intake // takes nothing in

	got chan string
	err error
}

func (c *canceller) Cancel(_ context.Context, tenant, id string, _ *int32) error {
	c.got <- tenant + "/" + id
	return c.err
}

func TestAFramesWholeNumbersAreTakenInWhateverFormTheyAreWritten(t *testing.T) {
	f, err := decodeFrame([]byte(`{"op":"subscribe","sub":"a","topic":"tokens","partition":1.0,"offset":1.2e1,"credit":300e-2}`))
	if err != nil || *f.partition != 1 || f.from != "12" || f.credit != 3 {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err = decodeFrame([]byte(`{"op":"credit","sub":"a","n":1e2}`)); err != nil || f.credit != 100 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestCancelIsHandedOn(t *testing.T) {
	g := onOne(t, Config{})
	by := &canceller{got: make(chan string, 2)}
	g.restart(func(c *Config) { c.Intake = by })
	c := g.dial()
	c.say(`{"op":"cancel","ref":"1","job":"some-job","partition":2.0}`)
	if f := c.want("accepted"); f.ID != "some-job" || f.Ref != "1" || f.Job != nil {
		t.Errorf("got %s", f.raw)
	}
	by.err = noJob("some-job")
	c.say(`{"op":"cancel","ref":"2","job":"some-job"}`)
	c.refused(fault.NotFound, "2", "")
	if got := <-by.got; got != "default/some-job" {
		t.Errorf("cancelled %s", got)
	}
}
