package gateway

import (
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// little is less than what deep puts into a partition, and more than a few events.
const little = 100_000

// deep fills a partition with what was written hours ago, and gives a cursor behind
// that. Nothing of it stays in memory.
func (g *ground) deep(part int32) (at string) {
	g.Helper()
	o := g.authorOf("other", part)
	junk := make([]event.Record, 30)
	for i := range junk {
		junk[i] = o.next(event.OutputDelta, event.Delta{Content: strings.Repeat("x", 30_000)})
		junk[i].Time = time.Now().Add(-2 * time.Hour)
	}
	g.append(junk...)
	o.say("the newest")
	p, err := g.gateway.hub.acquire(g.Context(), part) // so that the topic's id is known
	g.no(err)
	defer g.gateway.hub.release(p)
	topic, _ := g.gateway.hub.born()
	return cursor.Cursor{Topic: topic, Partition: part, LeaderEpoch: -1, Next: endOf(g, part)}.String()
}

func TestNoPartitionIsReadForAJobThatNobodyKnows(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1})
	part := job.Partition("nonsense", testPartitions)
	at := g.deep(part)
	mistyped, err := job.Mint(time.Now().Add(-3*time.Hour), conversationIn(part), testPartitions, rand.Reader)
	g.no(err)
	for _, id := range []string{"nonsense", mistyped} {
		before := g.bytesRead()
		if _, err := g.gateway.Lookup().Job(t.Context(), event.DefaultTenant, id, nil); !notFound(err) {
			t.Errorf("%s: %v, want not found", id, err)
		}
		g.open(events(g.authorOf(id, part)) + "?cursor=" + at).status(http.StatusNotFound)
		if n := g.bytesRead() - before; n > little {
			t.Errorf("%v bytes were read for %s", n, id)
		}
		g.rows.set("", nil, errors.New("away"))
		_, err := g.gateway.Lookup().Job(t.Context(), event.DefaultTenant, id, nil)
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != fault.Unavailable {
			t.Errorf("%s, while the rows are away: %v, want unavailable", id, err)
		}
		g.rows.set("", nil, nil)
	}
	if n := len(g.gateway.folding); n != 0 {
		t.Errorf("%d transcripts are held", n)
	}
}

// TestAnOutsideJobWithoutARowIsReadFromItsRequestOn is of a job whose row is late,
// which its producer asks for at once.
func TestAnOutsideJobWithoutARowIsReadFromItsRequestOn(t *testing.T) {
	for name, now := range map[string]time.Time{"": time.Now(), "by a clock ahead of ours": time.Now().Add(time.Hour)} {
		g := onOne(t, Config{BudgetBytes: 1})
		a := g.authorOf("outside", job.Partition("outside", testPartitions))
		g.deep(a.part)
		a.requestAt(event.Batch, now)
		before := g.bytesRead()
		look := func(status job.Status, text string) {
			t.Helper()
			res, err := g.gateway.Lookup().Job(t.Context(), event.DefaultTenant, "outside", nil)
			if err != nil || res.Status != status || res.Lane != event.Batch || len(res.Output) > 0 && res.Output[0].Message.Content != text {
				t.Errorf("%s: got %+v, %v; want it %s", name, res, err, status)
			}
		}
		look(job.Queued, "")
		a.whole(1)
		look(job.Completed, "0 ")
		if n := g.bytesRead() - before; n > little {
			t.Errorf("%s: %v bytes were read", name, n)
		}
	}
}

// TestBehindACursorTheLogTellsOfAnEndThatNoRowKnows is of jobs that exist, as their
// request or a late row tells, and have ended before the cursor.
func TestBehindACursorTheLogTellsOfAnEndThatNoRowKnows(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1})
	for name, known := range map[string]func(a *author){
		"requested": func(a *author) { a.request(event.Standard) },
		"running": func(a *author) {
			g.rows.set(a.head.Tenant, &job.Resource{
				ID: a.head.Job, Status: job.Running, CreatedAt: job.Time{Time: time.Now()}, Request: &job.Position{Partition: a.part},
			}, nil)
		},
		"ended": func(a *author) { a.row("0 ") },
	} {
		outside := "outside-" + name
		for _, a := range []*author{g.author(), g.authorOf(outside, job.Partition(outside, testPartitions))} {
			known(a)
			a.whole(1)
			at := g.deep(a.part)
			g.open(events(a) + "?cursor=" + at).status(http.StatusNoContent)
		}
	}
}
