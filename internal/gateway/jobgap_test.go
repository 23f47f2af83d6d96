package gateway

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// row makes the row of a job that has ended.
func (a *author) row(text string) *job.Resource {
	res := &job.Resource{ID: a.head.Job, Status: job.Completed}
	if text != "" {
		res.Output = []event.OutputChoice{{Message: event.Message{Role: "assistant", Content: text}, FinishReason: "stop"}}
	}
	a.g.rows.set(a.head.Tenant, res, nil)
	return res
}

// bytesRead is how much was read from Kafka that is not in memory.
func (g *ground) bytesRead() float64 {
	g.Helper()
	var m dto.Metric
	g.no(g.gateway.metrics.catchUpByte.Write(&m))
	return m.GetCounter().GetValue()
}

// tailed waits until the tail has passed a record of a partition that is followed.
func (g *ground) tailed(part int32, offset int64) {
	g.Helper()
	eventually(g, func() bool {
		g.gateway.hub.mu.Lock()
		p := g.gateway.hub.parts[part]
		g.gateway.hub.mu.Unlock()
		end, followed := p.end()
		return followed && end > offset
	})
}

// overBoth gives a job's events as a client gets them over SSE, and over a socket
// with how the subscription ended. at is a cursor, or "".
func (g *ground) overBoth(a *author, at string) map[string][]got {
	g.Helper()
	var headers []string
	more := ""
	if at != "" {
		headers, more = []string{"Last-Event-ID", at}, `,"cursor":"`+at+`"`
	}
	all := map[string][]got{"sse": g.open(events(a), headers...).rest()}
	c := g.dial()
	defer c.close()
	c.say(subscribeJob("a", a, more))
	c.want("subscribed")
	var status string
	all["ws"], status = c.untilEnd()
	if status != "completed" {
		g.Errorf("the subscription ended as %s", status)
	}
	return all
}

func TestAGapInAJobThatHasEndedIsMendedByItsRow(t *testing.T) {
	onBoth(t, Config{BudgetBytes: 1}, func(g *ground) { // nothing stays in memory
		a := g.author()
		acks := a.whole(10)
		const whole = "the whole answer"
		a.row(whole)
		first := g.open(events(a)).rest()
		if len(first) != 12 || text(first) == whole {
			t.Fatalf("where nothing is missing, the log answers: %v", first)
		}
		mended := func(what, at, reason string) {
			t.Helper()
			for over, all := range g.overBoth(a, at) {
				if len(all) != 3 || all[0].Type != streamGap || all[0].Data.Reason != reason ||
					all[1].Type != streamSnapshot || all[1].Data.Text != whole || all[1].Data.ThroughSeq != 10 || all[2].Type != event.OutputCompleted {
					t.Errorf("%s, over %s: %v; want a gap for %s, the whole answer, the end", what, over, all, reason)
					continue
				}
				if all[1].id != "" { // behind the snapshot comes the end, and no more
					if rest := g.open(events(a), "Last-Event-ID", all[1].id).rest(); len(rest) != 1 || rest[0].Seq != 11 {
						t.Errorf("%s: behind the snapshot comes %v", what, rest)
					}
				}
			}
		}
		lost, err := cursor.Parse(first[3].id)
		g.no(err)
		lost.LeaderEpoch += 7
		mended("the record in front of the cursor is another one", lost.String(), gapTruncated)
		g.retain(a.part, acks[5].Offset)
		mended("one who was cut off before the hole", first[2].id, gapRetention)
		mended("one who comes anew", "", gapRetention)
		snap := g.open(events(a) + "?snapshot=1").rest()
		if len(snap) != 3 || snap[1].Data.Text != whole || snap[2].Type != event.OutputCompleted {
			t.Errorf("with a snapshot: %v", snap)
		}
		g.retain(a.part, acks[11].Offset+1)
		for over, all := range g.overBoth(a, "") {
			if len(all) != 2 || all[0].Data.Reason != gapRetention || all[1].Data.Text != whole || all[1].Data.Status != "completed" {
				t.Errorf("all is gone, over %s: %v", over, all)
			}
		}
	})
}

// TestAJobOfOneEventIsToldByThatBehindAGap is of an unwatched job, whose end has all
// that it said.
func TestAJobOfOneEventIsToldByThatBehindAGap(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1})
	a := g.author()
	acks := g.authorOf("other", a.part).whole(3)
	at := g.gateway.cursorAt(a.part, acks[1].Offset)
	a.complete()
	a.row("all of it")
	g.retain(a.part, acks[3].Offset)
	for over, all := range g.overBoth(a, at) {
		if len(all) != 2 || all[0].Data.Reason != gapRetention || all[1].Type != event.OutputCompleted {
			t.Errorf("over %s: %v, want a gap and the end", over, all)
		}
	}
}

func TestAnEndThatHasTextDoesNotFollowAMendWhichHasItToo(t *testing.T) {
	onBoth(t, Config{BudgetBytes: 1}, func(g *ground) { // nothing stays in memory
		a := g.author()
		acks := g.append(
			a.next(event.OutputStarted, event.Started{Model: "sim"}), a.next(event.OutputDelta, event.Delta{Content: "the "}),
			a.next(event.OutputCompleted, event.Completed{Model: "sim", Deltas: []event.Delta{{Content: "answer"}}}),
		)
		a.row("the answer")
		before := g.open(events(a)).rest()[0].id
		g.retain(a.part, acks[2].Offset)
		for over, all := range g.overBoth(a, before) {
			if len(all) != 2 || all[0].Data.Reason != gapRetention || all[1].Data.Text != "the answer" || all[1].Data.Status != "completed" {
				t.Errorf("over %s: %v; want a gap, and the answer with its status", over, all)
				continue
			}
			if id := all[1].id; id != "" { // behind the answer comes nothing
				g.open(events(a), "Last-Event-ID", id).status(http.StatusNoContent)
			}
		}
	})
}

func TestARecreatedTopicIsMendedByTheRowToo(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.started()
		sse, ws := g.open(events(a)), g.dial()
		sse.must()
		ws.say(subscribeJob("a", a))
		ws.want("subscribed")
		ws.atLeast(1)
		a.row("the whole answer")
		g.no(g.cluster.DeleteTopics(t.Context(), g.names.Tokens()))
		g.create()
		over, status := ws.untilEnd()
		if status != "completed" {
			t.Errorf("the subscription ended as %s", status)
		}
		for _, all := range [][]got{sse.rest(), over} {
			if len(all) != 2 || all[0].Data.Reason != gapRecreated || all[1].Data.Text != "the whole answer" {
				t.Errorf("got %v, want a gap and the answer", all)
			}
		}
	})
}

func TestAGapThatNoRowMendsIsToldAndTheStreamGoesOn(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1})
	a := g.author()
	acks := a.whole(10)
	g.retain(a.part, acks[5].Offset)
	for name, set := range map[string]func(){
		"no row":               func() {},
		"a row that is queued": func() { g.rows.set(a.head.Tenant, &job.Resource{ID: a.head.Job, Status: job.Queued}, nil) },
		"without an answer":    func() { a.row("") },
		"no database":          func() { g.rows.set("", nil, errors.New("away")) },
	} {
		set()
		for over, all := range g.overBoth(a, "") {
			if len(all) != 8 || all[0].Data.Reason != gapRetention {
				t.Fatalf("%s, over %s: %v, want a gap and seven events", name, over, all)
			}
			seqs(t, all[1:], 5)
		}
	}
}

// TestAMendedJobEndsWhereTheLogHasLostItsEndToo has watchers who have seen the job
// begin, and know of nothing else that would tell them of its end.
func TestAMendedJobEndsWhereTheLogHasLostItsEndToo(t *testing.T) {
	onBoth(t, Config{BudgetBytes: 1}, func(g *ground) {
		a := g.author()
		a.started()
		ws := g.dial()
		ws.say(subscribeJob("a", a, `,"credit":1`))
		ws.want("subscribed")
		ws.atLeast(1)
		a.say("lost")
		a.complete()
		other := g.authorOf("other", a.part)
		acks := other.whole(2)
		g.retain(a.part, acks[0].Offset)
		a.row("the whole answer")
		ws.say(`{"op":"credit","sub":"a","n":10}`)
		all, status := ws.untilEnd()
		if len(all) != 2 || all[0].Data.Reason != gapRetention || all[1].Data.Text != "the whole answer" || status != "completed" {
			t.Errorf("got %v, ended as %s; want a gap and the answer", all, status)
		}
		if n := len(g.gateway.folding); n != 0 {
			t.Errorf("%d answers are held", n)
		}
	})
}

// TestMoreMendsThanTranscriptsAreSentOnOneSocket has more subscriptions meet a gap
// than transcripts fit in memory, on a socket of few errands.
func TestMoreMendsThanTranscriptsAreSentOnOneSocket(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1})
	a := g.author()
	acks := a.whole(10)
	g.retain(a.part, acks[5].Offset)
	a.row("the whole answer")
	c := g.dial()
	const subs = folds + 2*maxErrands
	for i := range subs {
		c.say(subscribeJob(strconv.Itoa(i), a))
	}
	texts := 0
	for ends := 0; ends < subs; {
		f := c.next()
		for _, e := range f.list(t) {
			if e.Type == streamSnapshot && e.Data.Text == "the whole answer" {
				texts++
			}
		}
		if f.Op == "end" {
			ends++
		}
	}
	if texts != subs {
		t.Errorf("%d of %d have the answer", texts, subs)
	}
}

// TestASnapshotThatCannotBeReadMakesRoomForOthers has the log fail while a snapshot
// is gathered: it is sent once the log is back, and holds nothing until then.
func TestASnapshotThatCannotBeReadMakesRoomForOthers(t *testing.T) {
	o := &openJobs{jobs: map[string]*job.Resource{}}
	g, f := shaken(t, Config{BudgetBytes: 1, CatchUpBytes: 1, Open: o})
	a := g.turn("chat")
	o.jobs[a.head.Tenant+"/chat"] = &job.Resource{
		ID: a.head.Job, CreatedAt: job.Time{Time: time.Now().Add(-time.Minute)}, Request: &job.Position{Partition: a.part},
	}
	a.started()
	for range 5 { // in batches of their own, so that there is something to read after the first
		a.say("x")
	}
	for name, say := range map[string]string{
		"a job":          subscribeJob("s", a, `,"snapshot":true,"credit":1`),
		"a conversation": subscribeChat("s", `,"snapshot":true,"credit":1`),
	} {
		failed := make(chan struct{}, 100)
		var reads atomic.Int32
		f.set(func(int64) error {
			if reads.Add(1) == 1 {
				return nil
			}
			failed <- struct{}{}
			return errAway
		})
		c := g.dial()
		c.say(say)
		<-failed
		eventually(t, func() bool { return len(g.gateway.folding) == 0 })
		f.set(nil)
		for all := []got(nil); len(all) == 0; {
			if all = c.next().list(t); len(all) > 0 && (all[0].Type != streamSnapshot || all[0].Data.Text != "xxxxx") {
				t.Errorf("%s: got %v, want all in a snapshot", name, all)
			}
		}
		c.close()
	}
}

func TestAMendWhoseRowIsGoneGivesWhatTheLogHas(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1})
	a := g.author()
	acks := a.whole(10)
	g.retain(a.part, acks[5].Offset)
	a.row("the whole answer")
	g.restart(func(c *Config) { c.Rows, c.Grace = &fading{rows: g.rows}, time.Minute }) // nobody else asks for the row
	for over, all := range g.overBoth(a, "") {
		if len(all) != 8 || all[0].Data.Reason != gapRetention {
			t.Fatalf("over %s: %v, want a gap and seven events", over, all)
		}
		seqs(t, all[1:], 5)
	}
}

// TestOneWhoIsCutOffBetweenAGapAndItsMendGetsTheMend has the database go away when it
// is known to have the answer, and be back for those who come back.
func TestOneWhoIsCutOffBetweenAGapAndItsMendGetsTheMend(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1})
	a := g.author()
	acks := a.whole(10)
	a.row("the whole answer")
	before := g.open(events(a)).rest()[2].id
	g.retain(a.part, acks[5].Offset)
	away := &leaving{rows: g.rows, left: make(chan struct{}, 100)}
	g.restart(func(c *Config) { c.Rows, c.Grace = away, time.Minute }) // nobody else asks for the row
	c := g.open(events(a), "Last-Event-ID", before)
	<-away.left
	g.gateway.Drain()
	at := before
	for _, e := range c.rest() {
		if e.id != "" {
			at = e.id
		}
	}
	g.restart(func(c *Config) { c.Rows = g.rows })
	if all := g.open(events(a), "Last-Event-ID", at).rest(); len(all) < 2 || all[len(all)-2].Data.Text != "the whole answer" {
		t.Errorf("got %v, want the answer and the end", all)
	}
}

// leaving are rows that are asked once, and away from then on.
type leaving struct {
	*rows
	asked atomic.Int32
	left  chan struct{}
}

func (r *leaving) Find(ctx context.Context, tenant, id string) (*job.Resource, error) {
	if r.asked.Add(1) > 1 {
		r.left <- struct{}{}
		return nil, errAway
	}
	return r.rows.Find(ctx, tenant, id)
}

// fading are rows that have nothing every other time.
type fading struct {
	*rows
	asked atomic.Int32
}

func (r *fading) Find(ctx context.Context, tenant, id string) (*job.Resource, error) {
	if r.asked.Add(1)%2 == 0 {
		return nil, fault.New(fault.NotFound, "no row")
	}
	return r.rows.Find(ctx, tenant, id)
}

// TestAMendIsLookedForNearTheJobsEnd has much in the log between what retention took
// and the job's end, all of it hours older than the end.
func TestAMendIsLookedForNearTheJobsEnd(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1})
	a := g.author()
	a.started()
	first := g.open(events(a))
	at := first.must().id
	other := g.authorOf("other", a.part)
	junk := make([]event.Record, 30)
	for i := range junk {
		junk[i] = other.next(event.OutputDelta, event.Delta{Content: strings.Repeat("x", 30_000)})
		junk[i].Time = time.Now().Add(-2 * endSlack)
	}
	acks := g.append(junk...)
	a.say("x")
	a.complete()
	first.rest()                                 // it reads some of the junk, or not
	g.tailed(a.part, acks[len(acks)-1].Offset+2) // else who comes now need not read the junk
	g.retain(a.part, acks[1].Offset)
	for name, c := range map[string]struct {
		ended time.Time
		want  event.Type
	}{
		"the event is near": {time.Now(), event.OutputCompleted}, "it is far older than its row says": {time.Now().Add(2 * endSlack), streamSnapshot},
	} {
		a.row("the whole answer").EndedAt = job.Time{Time: c.ended}
		before := g.bytesRead()
		ws := g.dial()
		ws.say(subscribeJob("a", a, `,"cursor":"`+at+`"`))
		ws.want("subscribed")
		all, status := ws.untilEnd()
		last := all[len(all)-1]
		if last.Type != c.want || status != "completed" || text(all) != "the whole answer" {
			t.Errorf("%s: got %v that ends with %s", name, all, last.data)
		}
		if n := g.bytesRead() - before; n > 100_000 {
			t.Errorf("%s: %v bytes were read: all that is in the log", name, n)
		}
		ws.close()
	}
}

func TestWhoFindsNoRoomForATranscriptIsToldSoOrGetsItLater(t *testing.T) {
	t.Parallel()
	o := &openJobs{jobs: map[string]*job.Resource{}}
	g := onOne(t, Config{Patience: 2 * time.Second, Open: o})
	a := g.turn("chat")
	res := &job.Resource{ID: a.head.Job, CreatedAt: job.Time{Time: time.Now().Add(-time.Minute)}, Request: &job.Position{Partition: a.part}}
	o.jobs[a.head.Tenant+"/chat"] = res
	g.rows.set(a.head.Tenant, res, nil)
	a.started()
	a.say("said")
	for range folds {
		g.gateway.folding <- struct{}{}
	}
	_, err := g.gateway.Lookup().Job(t.Context(), a.head.Tenant, a.head.Job, nil)
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != fault.Unavailable {
		t.Errorf("looked up: %v, want unavailable", err)
	}
	g.open(events(a) + "?snapshot=1").status(http.StatusServiceUnavailable)
	c := g.dial()
	const subs = 2 * maxErrands
	for i := range subs { // more than can wait for room at once
		c.say(subscribeJob(strconv.Itoa(i), a, `,"snapshot":true,"credit":1`))
	}
	c.say(subscribeChat("chat", `,"snapshot":true`))
	c.say(subscribeJob("quick", a)) // it needs none, and waits for none of them for long
	for sub := ""; sub != "quick"; {
		if f := c.next(); f.Op == "events" {
			sub = f.Sub
		}
	}
	for range folds {
		<-g.gateway.folding
	}
	for got := map[string]bool{}; len(got) < subs+1; {
		f := c.next()
		if all := f.list(t); len(all) > 0 && !got[f.Sub] {
			got[f.Sub] = true
			if all[0].Type != streamSnapshot || all[0].Data.Text != "said" {
				t.Errorf("%s got %v first, want the snapshot", f.Sub, all)
			}
		}
	}
}
