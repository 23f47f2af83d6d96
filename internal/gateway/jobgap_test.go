package gateway

import (
	"errors"
	"testing"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// row makes the row of a job that has ended.
func (a *author) row(text string) {
	res := &job.Resource{ID: a.head.Job, Status: job.Completed}
	if text != "" {
		res.Output = []event.OutputChoice{{Message: event.Message{Role: "assistant", Content: text}, FinishReason: "stop"}}
	}
	a.g.rows.set(a.head.Tenant, res, nil)
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
