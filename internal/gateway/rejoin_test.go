package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/event"
)

// dice is a source of randomness whose seed is told where the test fails.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// restless is a watcher that never stays: what it has of a job is what it would
// show to a person.
type restless struct {
	g     *ground
	a     *author
	text  string
	last  string // the cursor behind what it has
	next  int64  // seq
	ended bool
	joins int
	had   chan struct{} // it has taken something
}

// take takes an event in.
func (r *restless) take(e *got, cursor string) {
	r.g.Helper()
	r.last = cursor
	select {
	case r.had <- struct{}{}:
	default:
	}
	if e.Type == streamSnapshot {
		r.text, r.next = e.Data.Text, e.Data.ThroughSeq+1
		return
	}
	if e.Seq != r.next {
		r.g.Fatalf("seq %d after %d joins, where %d should be", e.Seq, r.joins, r.next)
	}
	r.next++
	if e.Type == event.OutputDelta {
		r.text += e.Data.Content
	}
	r.ended = r.ended || e.Type == event.OutputCompleted
}

// overSSE joins where it was, or with a snapshot, stays for n events at most, and
// leaves.
func (r *restless) overSSE(snapshot bool, n int) {
	r.g.Helper()
	path, headers := events(r.a), []string(nil)
	if snapshot {
		path += "?snapshot=1"
	} else if r.last != "" {
		headers = []string{"Last-Event-ID", r.last}
	}
	c := r.g.open(path, headers...)
	defer c.close()
	if c.resp.StatusCode == http.StatusNoContent {
		r.ended = true // there is nothing behind what it has
		return
	}
	if c.resp.StatusCode != http.StatusOK {
		r.g.Fatalf("%s: %s", path, c.resp.Status)
	}
	for range n {
		e, err := c.next()
		if err != nil {
			return
		}
		r.take(&e, e.id)
	}
}

// overSocket does the same on a connection that stays: it subscribes anew.
func (r *restless) overSocket(c *wsClient, snapshot bool, n int) {
	r.g.Helper()
	from := ""
	if snapshot {
		from = `,"snapshot":true`
	} else if r.last != "" {
		from = `,"cursor":"` + r.last + `"`
	}
	name := fmt.Sprint("s", r.joins)
	c.say(subscribeJob(name, r.a, from, fmt.Sprintf(`,"credit":%d`, n)))
	left := n
	for left > 0 {
		switch f := c.next(); f.Op {
		case "events":
			for _, e := range f.list(r.g) {
				r.take(&e, f.Cursor)
				left--
			}
		case "end":
			r.ended = true
			return
		case "error":
			r.g.Fatalf("%s", f.raw)
		}
	}
	c.say(`{"op":"unsubscribe","sub":"` + name + `"}`)
	for {
		f := c.next()
		for _, e := range f.list(r.g) { // that were under way: a notice costs no credit
			r.take(&e, f.Cursor)
		}
		if f.Op == "end" {
			return
		}
	}
}

func TestAWatcherThatRejoinsAThousandTimesEndsWithTheSameText(t *testing.T) {
	t.Parallel()
	const deltas, seldom, lead = 1800, 12, 50
	g := onOne(t, Config{Quiet: time.Millisecond, BudgetBytes: 64 << 10}) // a snapshot finds the beginning gone from memory
	a := g.author()
	a.started()
	var want strings.Builder
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &restless{g: g, a: a, had: make(chan struct{}, 1)}
	wg.Go(func() { // it is written while the watcher comes and goes
		for i := range deltas {
			if i >= lead {
				select {
				case <-r.had:
				case <-ctx.Done():
					return
				}
			}
			a.say(fmt.Sprint(i, " ")) //nolint:contextcheck // it has the test's
		}
		a.complete() //nolint:contextcheck // the same
	})
	for i := range deltas {
		fmt.Fprint(&want, i, " ")
	}
	c, random := g.dial(), dice(t)
	for !r.ended {
		r.joins++
		snapshot, n := random.IntN(seldom) == 0, 1+random.IntN(2)
		if random.IntN(2) == 0 {
			r.overSSE(snapshot, n)
		} else {
			r.overSocket(c, snapshot, n)
		}
	}
	if r.text != want.String() || r.joins < 1000 {
		t.Errorf("%d bytes of text after %d joins, want %d after a thousand", len(r.text), r.joins, want.Len())
	}
}

// TestASnapshotBehindACursorThatTheLogLostIsWhole has a job that goes on: no row has
// its text, and the log has all of it.
func TestASnapshotBehindACursorThatTheLogLostIsWhole(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.started()
		c := g.open(events(a))
		c.must()
		a.say("one ")
		a.say("two ")
		lost, err := cursor.Parse(c.must().id)
		g.no(err)
		c.must() // so the gateway has it
		lost.LeaderEpoch += 7
		snap := g.open(events(a) + "?snapshot=1&cursor=" + lost.String())
		if e := snap.must(); e.Type != streamSnapshot || e.Data.Text != "one two " || e.Data.ThroughSeq != 2 {
			t.Errorf("got %s, want a snapshot of all", e.data)
		}
		a.complete()
		seqs(t, snap.rest(), 3)
	})
}
