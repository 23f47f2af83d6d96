package gateway

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

func TestASocketSeesAJobFromItsFirstEventToItsLast(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.request(event.Standard)
		c := g.dialRaw()
		if f := c.want("welcome"); f.Version != 1 || f.Limits.Subscriptions != 1000 || f.Limits.FrameBytes != 1<<20 || f.PingMS != 25000 || f.Connection == "" {
			t.Errorf("the welcome is %s", f.raw)
		}
		c.say(subscribeJob("a", a))
		if f := c.want("subscribed"); f.Ref != "r-a" || f.Sub != "a" {
			t.Errorf("got %s", f.raw)
		}
		a.started()
		for i := range 20 {
			a.say(fmt.Sprint(i, " "))
		}
		a.complete()
		all, status := c.untilEnd()
		seqs(t, all, 0)
		if len(all) != 22 || status != "completed" {
			t.Fatalf("%d events and %q, want 22 and completed", len(all), status)
		}
		// As they stand: the same bytes as over SSE.
		for i, e := range g.open(events(a)).rest() {
			if e.data != all[i].data {
				t.Errorf("event %d is %s, and over SSE %s", i, all[i].data, e.data)
			}
		}
		// The name is free again; behind the end there is nothing.
		c.say(subscribeJob("a", a))
		c.want("subscribed")
		f := c.want("events")
		if len(f.Events) != 22 {
			t.Errorf("%d events in one frame, want 22", len(f.Events))
		}
		c.want("end")
		c.say(subscribeJob("a", a, `,"cursor":"`, f.Cursor, `"`))
		c.want("subscribed")
		if f := c.want("end"); f.Status != "completed" {
			t.Errorf("behind the end: %s", f.raw)
		}
	})
}

func TestASocketThatLeavesAndRejoinsByCursorEndsWithTheSameText(t *testing.T) { //nolint:tparallel // on one broker after the other
	t.Parallel()
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.request(event.Standard)
		stays := g.dial()
		stays.say(subscribeJob("s", a))
		stays.want("subscribed")
		const deltas = 400
		rejoined := make(chan struct{})
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			a.started()
			for i := range deltas {
				if i == deltas/2 {
					<-rejoined
				}
				a.say(fmt.Sprint(i, " "))
			}
			a.complete()
		})
		var all []got
		at, ended, rejoins, random := "", false, 0, dice(t)
		for ; !ended; rejoins++ {
			c := g.dial()
			more := ""
			if at != "" {
				more = `,"cursor":"` + at + `"`
			}
			c.say(subscribeJob("x", a, more))
			c.want("subscribed")
			frames := 1 + random.IntN(4)
			if rejoins == 0 {
				frames = 1 // the first is what there is, and may be all, if the rest is late
			}
			for range frames {
				f := c.next()
				if ended = f.Op == "end"; ended {
					break
				}
				all, at = append(all, f.list(t)...), f.Cursor
			}
			c.close()
			if rejoins == 0 {
				close(rejoined) // so that not all is there before it has
			}
		}
		want, _ := stays.untilEnd()
		seqs(t, all, 0)
		if text(all) != text(want) || len(all) != deltas+2 || rejoins < 2 {
			t.Fatalf("%d events over %d connections, want %d", len(all), rejoins, deltas+2)
		}
	})
}

func TestSubscriptionsTakeTurns(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{})
	busy := g.author()
	busy.started()
	filler := strings.Repeat("x", 1000)
	for i := 0; i < 4000; i += 200 {
		var recs []event.Record
		for range 200 {
			recs = append(recs, busy.next(event.OutputDelta, event.Delta{Content: filler}))
		}
		g.append(recs...)
	}
	busy.complete()
	quiet := g.author()
	quiet.whole(2)
	c := g.dial()
	c.say(subscribeJob("busy", busy))
	c.say(subscribeJob("quiet", quiet))
	before, seen, subscribed := 0, int64(0), false
	for done := 0; done < 2; {
		f := c.next()
		switch {
		case f.Op == "subscribed" && f.Sub == "quiet":
			subscribed = true // and from here on they take turns
		case f.Op == "end":
			done++
		case f.Op == "events" && f.Sub == "busy":
			for _, e := range f.list(t) {
				if e.Seq != seen {
					t.Fatalf("seq %d, want %d", e.Seq, seen)
				}
				seen++
			}
			if subscribed && done == 0 {
				before++
			}
			if len(f.raw) > 2*flushBytes {
				t.Errorf("a frame of %d bytes", len(f.raw))
			}
		}
	}
	if total := 4 << 20 / flushBytes; before > total/2 {
		t.Errorf("the quiet one ended behind %d frames of the busy one, of some %d", before, total)
	}
}

func TestASubscriptionGetsNoMoreThanItsCredit(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.whole(8) // ten events
	c := g.dial()
	c.say(subscribeJob("a", a, `,"credit":2`))
	c.want("subscribed")
	if f := c.want("events"); len(f.Events) != 2 {
		t.Fatalf("%d events for a credit of 2", len(f.Events))
	}
	ping := func() {
		t.Helper()
		c.say(`{"op":"ping","ref":"p"}`)
		if f := c.want("pong"); f.Ref != "p" { // nothing came before it
			t.Errorf("got %s", f.raw)
		}
	}
	ping()
	c.say(`{"op":"credit","sub":"a","n":3}`)
	if f := c.want("events"); len(f.Events) != 3 {
		t.Fatalf("%d events for a credit of 3", len(f.Events))
	}
	ping()
	c.say(`{"op":"credit","sub":"a","n":5}`)
	all, status := c.untilEnd() // the end needs no credit
	seqs(t, all, 5)
	if len(all) != 5 || status != "completed" {
		t.Errorf("%d events, %q", len(all), status)
	}
	c.say(`{"op":"credit","ref":"x","sub":"a","n":1}`)
	c.refused(fault.InvalidRequest, "x", "sub")
	b := g.author()
	b.started()
	c.say(subscribeJob("b", b))
	c.want("subscribed")
	c.want("events")
	c.say(`{"op":"credit","ref":"y","sub":"b","n":1}`)
	c.refused(fault.InvalidRequest, "y", "sub")
}

func TestASnapshotAndItsTailJoinOnASocketToo(t *testing.T) { //nolint:tparallel // on one broker after the other
	t.Parallel()
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.started()
		var want strings.Builder
		for i := range 300 {
			fmt.Fprint(&want, i, " ")
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 300 {
				a.say(fmt.Sprint(i, " "))
			}
			a.complete()
		})
		join := func() {
			c := g.dial()
			defer c.close()
			c.say(subscribeJob("a", a, `,"snapshot":true`))
			c.want("subscribed")
			all, status := c.untilEnd()
			if all[0].Type != streamSnapshot || text(all) != want.String() || status != "completed" {
				t.Errorf("%q, want %q", text(all), want.String())
				return
			}
			seqs(t, all[1:], all[0].Data.ThroughSeq+1)
		}
		for range 20 {
			join()
		}
		wg.Wait()
		join()
	})
}

func TestAPartitionIsSubscribedToFromAnyOffset(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.whole(5)
	c := g.dial()
	at := func(sub, more string) gotFrame {
		t.Helper()
		c.say(fmt.Sprintf(`{"op":"subscribe","sub":%q,"topic":"tokens","partition":%d%s}`, sub, a.part, more))
		if f := c.want("subscribed"); f.Cursor == "" {
			t.Errorf("got %s", f.raw)
		}
		return c.want("events")
	}
	for more, first := range map[string]int64{"": 0, `,"offset":"earliest"`: 0, `,"offset":3`: 3, `,"offset":null`: 0} {
		f := at("s"+more[:min(len(more), 1)]+fmt.Sprint(first, len(more)), more)
		if got := f.list(t); got[0].Seq != first {
			t.Errorf("%s: the first event is %s", more, got[0].data)
		}
		c.say(fmt.Sprintf(`{"op":"unsubscribe","sub":%q}`, f.Sub))
		c.want("end")
	}
	f := at("x", `,"offset":2,"credit":2`)
	c.say(`{"op":"unsubscribe","ref":"u","sub":"x"}`)
	if f := c.want("end"); f.Ref != "u" {
		t.Errorf("got %s", f.raw)
	}
	if got := at("y", `,"cursor":"`+f.Cursor+`"`).list(t); got[0].Seq != 4 {
		t.Errorf("behind seq 3 comes %s", got[0].data)
	}
	c.say(fmt.Sprintf(`{"op":"subscribe","sub":"z","topic":"tokens","partition":%d,"offset":"latest"}`, a.part))
	c.want("subscribed")
	b := g.authorOf("tail", a.part)
	b.started()
	for range 2 { // y and z
		if got := c.want("events").list(t); got[0].Job != "tail" {
			t.Errorf("got %s", got[0].data)
		}
	}
}

func TestAnEndedJobWhoseEventsAreGoneIsAGapOnASocketToo(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	g.rows.set(event.DefaultTenant, &job.Resource{ID: a.head.Job, Status: job.Completed}, nil)
	c := g.dial()
	c.say(subscribeJob("a", a))
	c.want("subscribed")
	all, status := c.untilEnd()
	if len(all) != 1 || all[0].Type != streamGap || all[0].Data.Reason != gapRetention || status != "error" {
		t.Fatalf("got %v and %q, want one gap for retention", all, status)
	}
}

func TestARecordThatIsNoJSONIsAGapOnASocket(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.started()
	for _, data := range []string{`{"content":nonsense}`, "{\"content\":\"\xff\"}"} {
		a.head.Type, a.head.Time = event.OutputDelta, time.Now()
		rec := g.record(a.part, a.head, event.Delta{})
		rec.Value = event.Append(nil, &a.head, []byte(data))
		g.append(rec)
		a.head.Seq++
	}
	a.complete()
	c := g.dial()
	c.say(subscribeJob("a", a))
	c.want("subscribed")
	all, status := c.untilEnd()
	if len(all) != 4 || all[1].Data.Reason != gapUnreadable || all[2].Data.Reason != gapUnreadable || status != "completed" {
		t.Fatalf("got %v, %q", all, status)
	}
}
