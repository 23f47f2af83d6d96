package gateway

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// turn makes a job of a conversation.
func (g *ground) turn(conversation string) *author {
	g.Helper()
	id, err := job.Mint(time.Now(), conversation, testPartitions, rand.Reader)
	g.no(err)
	m, _ := job.ParseID(id)
	a := g.authorOf(id, m.Partition)
	a.head.Conversation = conversation
	return a
}

// openJobs are the unfinished jobs of a test's conversations.
type openJobs struct {
	mu   sync.Mutex
	jobs map[string]*job.Resource
	err  error
}

func (o *openJobs) Oldest(_ context.Context, tenant, conversation string) (*job.Resource, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.jobs[tenant+"/"+conversation], o.err
}

// subscribeChat subscribes to the conversation "chat".
func subscribeChat(sub string, more ...string) string {
	return `{"op":"subscribe","sub":"` + sub + `","conversation":"chat"` + strings.Join(more, "") + `}`
}

func TestAConversationIsSeenInOrderLiveAndFromACursor(t *testing.T) { //nolint:tparallel // on one broker after the other
	t.Parallel()
	onBoth(t, Config{}, func(g *ground) {
		before := g.turn("chat")
		before.started()
		before.say("said before ") // it goes on, and its beginning was not seen
		c := g.dial()
		c.say(subscribeChat("c"))
		at := c.want("subscribed").Cursor
		before.complete()
		var want strings.Builder
		var jobs []string
		total := 0
		for n := range 3 {
			a := g.turn("chat")
			jobs = append(jobs, a.head.Job)
			other := g.turn("another")
			other.part = a.part // it may lie beside
			foreign := g.turn("chat")
			foreign.head.Tenant = "somebody"
			a.started()
			other.whole(2)
			foreign.whole(2)
			for i := range 5 {
				text := fmt.Sprintf("%d.%d ", n, i)
				a.say(text)
				want.WriteString(text)
			}
			repeated := a.head
			repeated.Seq-- // the same event a second time
			g.append(g.record(a.part, repeated, event.Delta{Content: "again"}))
			a.complete()
			total += 7
		}
		all, end := c.atLeast(total)
		check := func(what string, all []got) {
			t.Helper()
			if len(all) != total || text(all) != want.String() {
				t.Fatalf("%s: %d events say %q, want %d that say %q", what, len(all), text(all), total, want.String())
			}
			for i, e := range all {
				if e.Job != jobs[i/7] || e.Seq != int64(i%7) {
					t.Fatalf("%s: event %d is %s", what, i, e.data)
				}
			}
		}
		check("live", all)
		// From the cursor at which it began: all that lies behind, so the end of the
		// job before as well.
		d := g.dial()
		d.say(subscribeChat("c", `,"cursor":"`, at, `"`))
		d.want("subscribed")
		again, _ := d.atLeast(total + 1)
		if again[0].Job != before.head.Job || again[0].Type != event.OutputCompleted {
			t.Errorf("the first event behind the cursor is %s", again[0].data)
		}
		check("from a cursor", again[1:])
		// In pieces of three, each on another connection.
		var pieces []got
		for cursor := at; len(pieces) < total+1; {
			e := g.dial()
			e.say(subscribeChat("c", `,"credit":3,"cursor":"`, cursor, `"`))
			e.want("subscribed")
			n := min(3, total+1-len(pieces))
			var piece []got
			piece, cursor = e.atLeast(n)
			pieces = append(pieces, piece...)
			e.close()
		}
		check("in pieces", pieces[1:])
		// Behind the end comes what is written next.
		d.say(subscribeChat("e", `,"cursor":"`, end, `"`))
		d.want("subscribed")
		g.turn("chat").started()
		if f := d.want("events"); f.list(t)[0].Seq != 0 || len(f.Events) != 1 {
			t.Errorf("got %s", f.raw)
		}
	})
}

func TestAConversationsSnapshotIsItsRunningJobsText(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		open := &openJobs{jobs: map[string]*job.Resource{}}
		g.restart(func(c *Config) { c.Open = open })
		past := g.turn("chat")
		past.whole(3)
		c := g.dial()
		c.say(subscribeChat("none", `,"snapshot":true`))
		c.want("subscribed")
		if all, _ := c.atLeast(1); all[0].Type != streamSnapshot || all[0].Job != "" || all[0].Data.ThroughSeq != -1 || all[0].Data.Text != "" {
			t.Errorf("nothing runs, and the snapshot is %s", all[0].data)
		}
		a := g.turn("chat")
		a.started()
		a.say("one ")
		a.say("two ")
		open.jobs["default/chat"] = &job.Resource{
			ID: a.head.Job, CreatedAt: job.Time{Time: time.Now()}, Request: &job.Position{Partition: a.part},
		}
		// Its log has to be known as far as the job's events.
		w := g.dial()
		w.say(subscribeJob("w", a))
		w.want("subscribed")
		w.atLeast(3)
		c.say(`{"op":"unsubscribe","sub":"none"}`)
		for f := c.next(); f.Op != "end"; f = c.next() { // it was live: the job's events came to it
			if f.Op != "events" {
				t.Fatalf("got %s", f.raw)
			}
		}
		c.say(subscribeChat("c", `,"snapshot":true`))
		c.want("subscribed")
		all, at := c.atLeast(1)
		if all[0].Type != streamSnapshot || all[0].Job != a.head.Job || all[0].Data.Text != "one two " || all[0].Data.ThroughSeq != 2 {
			t.Fatalf("the snapshot is %s", all[0].data)
		}
		a.say("three ")
		a.complete()
		b := g.turn("chat")
		b.whole(1)
		all, _ = c.atLeast(5)
		if all[0].Seq != 3 || text(all) != "three 0 " {
			t.Errorf("behind the snapshot comes %q", text(all))
		}
		c.say(subscribeChat("d", `,"cursor":"`, at, `"`)) // the snapshot's
		c.want("subscribed")
		if again, _ := c.atLeast(5); text(again) != "three 0 " {
			t.Errorf("behind the snapshot's cursor comes %q", text(again))
		}
		open.err = fault.New(fault.Unavailable, "PostgreSQL is away")
		c.say(subscribeChat("x", `,"snapshot":true`))
		c.refused(fault.Unavailable, "", "")
	})
}

func TestAnOutsideJobsConversationIsFoundByItsRowOrByThePartitionNamed(t *testing.T) {
	g := onOne(t, Config{})
	elsewhere := (job.Partition("chat", testPartitions) + 1) % testPartitions
	a := g.authorOf("outside", elsewhere)
	a.head.Conversation = "chat"
	a.started()
	open := &openJobs{jobs: map[string]*job.Resource{"default/chat": {
		ID: "outside", CreatedAt: job.Time{Time: time.Now()}, Request: &job.Position{Partition: elsewhere},
	}}}
	g.restart(func(c *Config) { c.Open = open })
	c := g.dial()
	c.say(subscribeChat("row", `,"snapshot":true`))
	c.want("subscribed")
	if all, _ := c.atLeast(1); all[0].Job != "outside" {
		t.Errorf("the snapshot is %s", all[0].data)
	}
	c.say(subscribeChat("named", `,"partition":`, strconv.Itoa(int(elsewhere))))
	c.want("subscribed")
	a.say("hello")
	a.complete()
	b := g.authorOf("outside-2", elsewhere)
	b.head.Conversation = "chat"
	b.whole(0)
	by := map[string]int{}
	for by["row"]+by["named"] < 6 {
		f := c.want("events")
		by[f.Sub] += len(f.Events)
	}
	if by["row"] != 4 || by["named"] != 2 {
		t.Errorf("got %v; want four by the row, and by name the two of a job that began since", by)
	}
}

func TestAConversationTellsOfGaps(t *testing.T) {
	onBoth(t, Config{BudgetBytes: 1}, func(g *ground) { // nothing stays in memory
		a := g.turn("chat")
		acks := a.whole(10)
		c := g.dial()
		c.say(subscribeChat("a", `,"cursor":"`, g.gateway.cursorAt(a.part, acks[2].Offset), `"`))
		c.want("subscribed")
		all, _ := c.atLeast(10)
		seqs(t, all, 2)
		c.say(`{"op":"unsubscribe","sub":"a"}`)
		c.want("end")
		g.retain(a.part, acks[5].Offset)
		c.say(subscribeChat("a", `,"cursor":"`, g.gateway.cursorAt(a.part, acks[2].Offset), `"`))
		c.want("subscribed")
		all, _ = c.atLeast(8)
		if all[0].Type != streamGap || all[0].Data.Reason != gapRetention {
			t.Fatalf("got %s, want a gap", all[0].data)
		}
		seqs(t, all[1:], 5)
		b := g.turn("chat")
		b.started()
		b.head.Seq++
		b.say("behind a hole")
		all, _ = c.atLeast(3)
		if all[1].Data.Reason != gapMissing || all[1].Job != b.head.Job {
			t.Errorf("got %v, want a gap between the two", all)
		}
		// A cursor whose leader epoch is another than the record's.
		g.no(g.cluster.DeleteTopics(t.Context(), g.names.Tokens()))
		g.create()
		f := c.want("events")
		if e := f.list(t)[0]; e.Data.Reason != gapRecreated {
			t.Errorf("got %s", f.raw)
		}
		if f := c.want("end"); f.Status != "error" {
			t.Errorf("got %s", f.raw)
		}
	})
}

// cursorAt is a cursor in front of an offset.
func (g *Gateway) cursorAt(part int32, offset int64) string {
	h := g.hub
	p, err := h.acquire(context.Background(), part)
	if err != nil {
		panic(err)
	}
	defer h.release(p)
	return g.cursor(part, offset, -1, [event.LaneCount]int64{})
}

func TestManyLaggingSubscriptionsOfASocketAreReadFromKafka(t *testing.T) { //nolint:tparallel // on one broker after the other
	t.Parallel()
	onBoth(t, Config{BudgetBytes: 1, CatchUpBytes: 4 << 10, Registry: prometheus.NewRegistry()}, func(g *ground) {
		const jobs, deltas = 20, 30
		var authors []*author
		for range jobs {
			a := g.author()
			a.whole(deltas)
			authors = append(authors, a)
		}
		c := g.dial()
		for i, a := range authors {
			c.say(subscribeJob(strconv.Itoa(i), a))
		}
		seen, ended := map[string]int64{}, 0
		for ended < jobs {
			f := c.next()
			switch f.Op {
			case "subscribed":
			case "events":
				seqs(t, f.list(t), seen[f.Sub])
				seen[f.Sub] += int64(len(f.Events))
			case "end":
				ended++
				if seen[f.Sub] != deltas+2 {
					t.Errorf("%s ended after %d events", f.Sub, seen[f.Sub])
				}
			default:
				t.Fatalf("got %s", f.raw)
			}
		}
	})
}

func TestASubscriptionOutlastsAKafkaThatIsAwayForAWhile(t *testing.T) {
	g, f := shaken(t, Config{BudgetBytes: 1, Patience: 20 * time.Second})
	a := g.author()
	a.whole(5)
	c := g.dial()
	c.say(subscribeJob("w", a)) // makes sure that the partition is followed
	c.want("subscribed")
	c.untilEnd()
	f.set(func(int64) error { return errAway })
	c.say(subscribeJob("a", a))
	time.AfterFunc(100*time.Millisecond, func() { f.set(nil) })
	c.want("subscribed")
	all, status := c.untilEnd()
	seqs(t, all, 0)
	if len(all) != 7 || status != "completed" {
		t.Errorf("%d events, %q", len(all), status)
	}
}

// cancelled writes a job of the conversation "chat" that was cancelled while it waited
// for another.
func (g *ground) cancelled() {
	g.Helper()
	g.turn("chat").write(event.OutputCancelled, event.Stopped{})
}

func TestAConversationsRunningJobIsNotForgottenForThoseThatAreCancelledBehindIt(t *testing.T) {
	g := onOne(t, Config{})
	c := g.dial()
	c.say(subscribeChat("c"))
	c.want("subscribed")
	a := g.turn("chat")
	a.started()
	for range maxTracked {
		g.cancelled()
	}
	a.say("still here")
	next := g.turn("chat")
	next.started()
	var all []got
	for len(all) == 0 || all[len(all)-1].Job != next.head.Job {
		more, _ := c.atLeast(1)
		all = append(all, more...)
	}
	if len(all) != maxTracked+3 || text(all) != "still here" {
		t.Errorf("%d events say %q, want %d with the running job's text", len(all), text(all), maxTracked+3)
	}
}

func TestAConversationsSnapshotHasAllThatItsRunningJobsSaid(t *testing.T) {
	open := &openJobs{jobs: map[string]*job.Resource{}}
	g := onOne(t, Config{Open: open})
	a, b := g.turn("chat"), g.turn("chat")
	b.head.Lane = event.Batch
	a.started()
	b.started()
	a.say("one ")
	b.say("other ")
	g.cancelled()
	a.say("two ")
	open.jobs["default/chat"] = &job.Resource{ID: a.head.Job, Request: &job.Position{Partition: a.part}}
	c := g.dial()
	c.say(subscribeChat("c", `,"snapshot":true`))
	c.want("subscribed")
	all, at := c.atLeast(2)
	texts := map[string]string{}
	for _, e := range all {
		texts[e.Job] = fmt.Sprint(e.Type, " ", e.Data.Text, e.Data.ThroughSeq)
	}
	if want := map[string]string{a.head.Job: "stream.snapshot one two 2", b.head.Job: "stream.snapshot other 1"}; !maps.Equal(texts, want) {
		t.Errorf("the snapshots are %v, want %v", texts, want)
	}
	a.say("three")
	b.say("more")
	c.say(subscribeChat("d", `,"cursor":"`, at, `"`))
	for by := map[string]string{}; len(by["c"]) < 9 || len(by["d"]) < 9; {
		f := c.next()
		by[f.Sub] += text(f.list(t))
		if got := by[f.Sub]; !strings.HasPrefix("threemore", got) {
			t.Fatalf("behind the snapshots %s gets %q", f.Sub, got)
		}
	}
}
