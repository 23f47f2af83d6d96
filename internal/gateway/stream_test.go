package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

func TestAWatcherSeesAJobFromItsFirstEventToItsLast(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		a, other := g.author(), g.author()
		a.request(event.Standard)
		acks := make(chan struct{})
		c := g.open(events(a)) // before there is any output
		go func() {
			defer close(acks)
			a.started()
			other.started()
			for i := range 20 {
				a.say(fmt.Sprint(i, " "))
			}
			a.complete()
		}()
		h := c.resp.Header
		for k, want := range map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
		} {
			if h.Get(k) != want {
				t.Errorf("%s is %q, want %q", k, h.Get(k), want)
			}
		}
		all := c.rest()
		<-acks
		seqs(t, all, 0)
		if len(all) != 22 || all[21].Type != event.OutputCompleted {
			t.Fatalf("%d events, the last %s; want 22 and output.completed", len(all), all[len(all)-1].data)
		}
		if again := g.open(events(a)).rest(); text(again) != text(all) || len(again) != len(all) {
			t.Errorf("a late joiner got %q, want %q", text(again), text(all))
		}
		g.open(events(a), "Last-Event-ID", all[21].id).status(http.StatusNoContent)
		g.open(events(a) + "?cursor=" + all[21].id).status(http.StatusNoContent)
	})
}

func TestAClientThatIsCutOffAnywhereResumesWithoutLossOrRepetition(t *testing.T) { //nolint:tparallel // on one broker after the other
	t.Parallel()
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.started()
		const deltas = 400
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for i := range deltas {
				a.say(fmt.Sprint(i, " "))
			}
			a.complete()
		})
		var all []got
		last, cuts, random := "", 0, dice(t)
		for {
			var headers []string
			if last != "" {
				headers = []string{"Last-Event-ID", last}
			}
			c := g.open(events(a), headers...)
			if c.resp.StatusCode == http.StatusNoContent {
				break
			}
			for range 1 + random.IntN(12) {
				e, err := c.next()
				if err != nil {
					break
				}
				all = append(all, e)
				last = e.id
			}
			c.close()
			cuts++
		}
		seqs(t, all, 0)
		if len(all) != deltas+2 || cuts < 30 {
			t.Fatalf("%d events over %d connections, want %d over at least 30", len(all), cuts, deltas+2)
		}
	})
}

func TestASnapshotAndItsTailJoinWithoutASeam(t *testing.T) { //nolint:tparallel // on one broker after the other
	t.Parallel()
	onBoth(t, Config{}, func(g *ground) {
		for range 4 {
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
			for range 8 {
				wg.Go(func() {
					for range 8 {
						joinOnce(g, a, want.String())
					}
				})
			}
			wg.Wait()
			joinOnce(g, a, want.String())
		}
	})
}

// joinOnce joins at whatever instant it is, and reads to the end.
func joinOnce(g *ground, a *author, want string) {
	all := g.open(events(a) + "?snapshot=1").rest()
	if len(all) < 2 || all[0].Type != streamSnapshot {
		g.Errorf("the stream begins with %v, want a snapshot", all)
		return
	}
	for i, e := range all[1:] {
		if e.Seq != all[0].Data.ThroughSeq+1+int64(i) {
			g.Errorf("behind a snapshot through %d, event %d has seq %d", all[0].Data.ThroughSeq, i, e.Seq)
			return
		}
	}
	if text(all) != want || all[len(all)-1].Type != event.OutputCompleted {
		g.Errorf("text is %q, want %q, with an end", text(all), want)
	}
}

func TestASnapshotCanBeResumedAndTakesNoNoticeOfACursor(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.started()
	a.say("one ")
	a.say("two ")
	first := g.open(events(a)).must()
	c := g.open(events(a) + "?snapshot=1&cursor=" + first.id)
	snap := c.must()
	if snap.Data.Text != "one two " || snap.Data.ThroughSeq != 2 {
		t.Fatalf("the snapshot is %s", snap.data)
	}
	c.close()
	a.say("three")
	a.complete()
	all := g.open(events(a)+"?snapshot=1", "Last-Event-ID", snap.id).rest()
	seqs(t, all, 3)
	if len(all) != 2 {
		t.Errorf("%d events behind the snapshot, want 2", len(all))
	}
}

func TestAZombiesRecordsAreNotShown(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		g.claim(a.part, event.Standard, 4)
		a.head.Epoch = 4
		a.started()
		a.say("right ")
		zombie := *a
		g.claim(a.part, event.Standard, 5)
		zombie.say("wrong ") // of epoch 4, behind the claim of 5
		a.head.Epoch = 5
		a.write(event.OutputSuperseded, event.Superseded{Reason: "taken over"})
		zombie.complete()
		a.head.Attempt = 2
		a.started()
		g.claim(a.part, event.Batch, 9) // of another lane
		a.say("again")
		repeated := a.head
		repeated.Seq-- // the same event a second time
		g.append(g.record(a.part, repeated, event.Delta{Content: "again"}))
		a.complete()
		all := g.open(events(a)).rest()
		seqs(t, all, 0)
		if got := text(all); got != "right again" || len(all) != 6 {
			t.Fatalf("%d events say %q, want 6 that say %q", len(all), got, "right again")
		}
		// From every cursor on, the same.
		for i, e := range all[:5] {
			seqs(t, g.open(events(a), "Last-Event-ID", e.id).rest(), int64(i+1))
		}
		// The partition as a whole has the claims too, and no zombie.
		c := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events?offset=0", a.part))
		var types []event.Type
		for range 10 { // three claims; the repetition is the reader's own matter
			e := c.must()
			types = append(types, e.Type)
			if strings.Contains(e.data, "wrong") {
				t.Errorf("a zombie's record on the partition's stream: %s", e.data)
			}
		}
		if types[0] != event.LaneClaimed || types[3] != event.LaneClaimed {
			t.Errorf("claims are missing: %v", types)
		}
	})
}

func TestOtherJobsAndTenantsAreNotFound(t *testing.T) {
	g := onOne(t, Config{})
	foreign := g.author()
	foreign.head.Tenant = "somebody"
	foreign.request(event.Interactive)
	foreign.whole(3)
	outside := g.authorOf("outside-1", job.Partition("outside-1", testPartitions))
	for name, path := range map[string]string{
		"another tenant's":   events(foreign),
		"never requested":    events(g.author()),
		"not an id":          "/v1/jobs/-not+one/events",
		"outside, unknown":   events(outside),
		"partition too high": events(g.authorOf(mintAt(t, 60000), 0)),
	} {
		if body := g.open(path).status(http.StatusNotFound); !strings.Contains(body, `"not_found"`) {
			t.Errorf("%s: the body is %s", name, body)
		}
	}
}

// mintAt makes an id of a partition that this deployment has not got.
func mintAt(t *testing.T, partitions int32) string {
	t.Helper()
	for i := range 100 {
		id, err := job.Mint(time.Now(), fmt.Sprint("c", i), partitions, zeros{})
		if err != nil {
			t.Fatal(err)
		}
		if m, _ := job.ParseID(id); m.Partition >= testPartitions {
			return id
		}
	}
	t.Fatal("no such id")
	return ""
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAnAcceptedJobIsNeverNotFound(t *testing.T) {
	g := onOne(t, Config{})
	for _, lane := range event.Lanes() {
		a := g.author()
		a.request(lane)
		c := g.open(events(a))
		if c.resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: status is %d, want 200", lane, c.resp.StatusCode)
		}
		a.whole(1)
		if all := c.rest(); len(all) != 3 {
			t.Errorf("%s: %d events, want 3", lane, len(all))
		}
	}
}

func TestAJobOfAnOutsideIDIsFound(t *testing.T) {
	g := onOne(t, Config{})
	hashed := g.authorOf("by-hash", job.Partition("by-hash", testPartitions))
	hashed.request(event.Batch)
	elsewhere := g.authorOf("elsewhere", (job.Partition("elsewhere", testPartitions)+1)%testPartitions)
	for _, a := range []*author{hashed, elsewhere} {
		a.whole(2)
	}
	if all := g.open(events(hashed)).rest(); len(all) != 4 {
		t.Errorf("by hash: %d events, want 4", len(all))
	}
	if all := g.open(fmt.Sprintf("%s?partition=%d", events(elsewhere), elsewhere.part)).rest(); len(all) != 4 {
		t.Errorf("by the partition named: %d events, want 4", len(all))
	}
	g.open(events(elsewhere)).status(http.StatusNotFound)
	// A HEAD asks for no event: it is answered at once, of a stream without an end too.
	for path, want := range map[string]int{
		events(hashed): 200, events(elsewhere): 404, "/v1/topics/tokens/partitions/0/events": 200, "/v1/topics/tokens/partitions/01/events": 404,
		"/v1/topics/tokens/partitions/0/events?offset=": 400, "/v1/topics/tokens/partitions/0/events?offset=0&offset=0": 400, "/v1/topics/tokens/partitions/0/events?offset=%zz": 400,
	} {
		resp, err := http.DefaultClient.Head(g.url + path)
		g.no(err)
		g.no(resp.Body.Close())
		if resp.StatusCode != want || want == 200 && resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("HEAD %s: %d %s", path, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
	}
	g.rows.set(event.DefaultTenant, &job.Resource{
		ID: "elsewhere", CreatedAt: job.Time{Time: time.Now()}, Request: &job.Position{Partition: elsewhere.part},
	}, nil)
	if all := g.open(events(elsewhere)).rest(); len(all) != 4 {
		t.Errorf("by its row: %d events, want 4", len(all))
	}
	g.open(events(hashed) + "?partition=99").status(http.StatusBadRequest)
	g.open(events(hashed) + "?partition=x").status(http.StatusBadRequest)
	for _, query := range []string{"snapshot=maybe", "snapshot=true", "snapshot=", "snapshot=1&snapshot=1", "partition=", "partition=%2B1", "partition=01", "cursor=%zz", "snapshot=1;cursor=x", "cursor=x&cursor=x"} {
		g.open(events(hashed) + "?" + query).status(http.StatusBadRequest)
	}
}

func TestWithoutRowsTheLogAnswers(t *testing.T) {
	g := onOne(t, Config{})
	g.rows.set("", nil, fault.New(fault.Unavailable, "PostgreSQL is away"))
	a, outside := g.author(), g.authorOf("lonely", job.Partition("lonely", testPartitions))
	for _, x := range []*author{a, outside} {
		x.request(event.Standard)
		c := g.open(events(x))
		x.whole(1)
		if all := c.rest(); len(all) != 3 {
			t.Errorf("%s: %d events, want 3", x.head.Job, len(all))
		}
	}
	g.open(events(g.author())).status(http.StatusNotFound)
}

func TestAnEndedJobWhoseEventsAreGoneIsToldAsAGap(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	g.rows.set(event.DefaultTenant, &job.Resource{ID: a.head.Job, Status: job.Completed}, nil)
	all := g.open(events(a)).rest()
	if len(all) != 1 || all[0].Type != streamGap || all[0].Data.Reason != gapRetention {
		t.Fatalf("got %v, want one gap for retention", all)
	}
	g.open(events(a), "Last-Event-ID", all[0].id).status(http.StatusNoContent)
}

func TestHeartbeatsFillASilence(t *testing.T) {
	g := onOne(t, Config{Heartbeat: 10 * time.Millisecond})
	a := g.author()
	a.started()
	c := g.open(events(a))
	c.must()
	for beats := 0; beats < 3; {
		line, err := c.lines.ReadString('\n')
		g.no(err)
		if line == ":\n" {
			beats++
		}
	}
	a.complete()
	if rest := c.rest(); len(rest) != 1 {
		t.Errorf("behind the silence comes %v", rest)
	}
}

func TestAMissingSeqIsTold(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.started()
	a.head.Seq++
	a.say("behind the hole")
	a.complete()
	all := g.open(events(a)).rest()
	if len(all) != 4 || all[1].Data.Reason != gapMissing {
		t.Fatalf("got %v, want a gap behind the first event", all)
	}
	again := g.open(events(a), "Last-Event-ID", all[1].id).rest() // it is told once more
	if len(again) != 3 || again[0].Data.Reason != gapMissing {
		t.Fatalf("got %v, want the gap again", again)
	}
	seqs(t, again[1:], 2)
}

func TestAJobThatBeginsBeforeItsTimeIsStillFound(t *testing.T) {
	g := onOne(t, Config{})
	id, err := job.Mint(time.Now().Add(3*time.Minute), "some", testPartitions, zeros{})
	g.no(err)
	m, _ := job.ParseID(id)
	a := g.authorOf(id, m.Partition)
	a.started() // its time is before the id's
	a.say("x")
	a.head.Seq-- // a repetition, of a time behind the id's
	a.head.Type, a.head.Time = event.OutputDelta, time.Now().Add(4*time.Minute)
	g.append(g.record(a.part, a.head, event.Delta{Content: "x"}))
	a.head.Seq++
	a.complete()
	all := g.open(events(a)).rest()
	seqs(t, all, 0)
	if len(all) != 3 {
		t.Errorf("%d events, want 3", len(all))
	}
}

func TestGoroutinesAndFollowedPartitionsComeBackToNothing(t *testing.T) {
	g := onOne(t, Config{Linger: 20 * time.Millisecond})
	a := g.author()
	a.started()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c := g.open(events(a))
			c.must()
			c.close()
		})
	}
	wg.Wait()
	eventually(t, func() bool {
		h := g.gateway.hub
		h.mu.Lock()
		defer h.mu.Unlock()
		followed := 0
		for _, p := range h.parts {
			if _, is := p.end(); is {
				followed++
			}
		}
		return followed == 0 && h.bytes == 0 && len(h.oldest) == 0 && h.parts[a.part].refs == 0
	})
	eventually(t, func() bool { // no goroutine is left
		g.gateway.mu.Lock()
		defer g.gateway.mu.Unlock()
		return len(g.gateway.tasks) == 0
	})
}

// eventually waits for what other goroutines are about to do.
func eventually(tb testing.TB, is func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	for !is() {
		if ctx.Err() != nil {
			tb.Fatal("it did not come to be within a minute")
		}
		pause(ctx, 5*time.Millisecond)
	}
}
