package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm" //nolint:depguard // takes records from the log, as retention does
	"github.com/twmb/franz-go/pkg/kgo"  //nolint:depguard // the same

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// retain takes what is before an offset from the log.
func (g *ground) retain(part int32, from int64) {
	g.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(g.addr))
	g.no(err)
	defer cl.Close()
	var os kadm.Offsets
	os.AddOffset(g.names.Tokens(), part, from, -1)
	_, err = kadm.NewClient(cl).DeleteRecords(g.Context(), os)
	g.no(err)
}

func TestWhatRetentionTookIsToldInTheStream(t *testing.T) {
	onBoth(t, Config{BudgetBytes: 1}, func(g *ground) { // nothing stays in memory
		a := g.author()
		acks := a.whole(10)
		all := g.open(events(a)).rest()
		seqs(t, all, 0)
		g.retain(a.part, acks[5].Offset)
		// One who was cut off before the hole.
		c := g.open(events(a), "Last-Event-ID", all[2].id)
		rest := c.rest()
		if len(rest) < 2 || rest[0].Type != streamGap || rest[0].Data.Reason != gapRetention {
			t.Fatalf("got %v, want a gap first", rest)
		}
		seqs(t, rest[1:], 5)
		seqs(t, g.open(events(a)+"?cursor="+rest[0].Data.Cursor).rest(), 5)
		// One who comes anew.
		rest = g.open(events(a)).rest()
		if len(rest) != 8 || rest[0].Data.Reason != gapRetention {
			t.Fatalf("got %v, want a gap and seven events", rest)
		}
		seqs(t, rest[1:], 5)
		body := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events?offset=0", a.part)).status(http.StatusBadRequest)
		if want := fmt.Sprintf("the earliest offset is %d, the end is %d", acks[5].Offset, acks[11].Offset+1); !strings.Contains(body, want) {
			t.Errorf("%s does not say %q", body, want)
		}
	})
}

func TestARecreatedTopicIsToldAndOldCursorsAreRefused(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.started()
		c := g.open(events(a))
		first := c.must()
		g.no(g.cluster.DeleteTopics(t.Context(), g.names.Tokens()))
		g.create()
		rest := c.rest()
		if len(rest) != 1 || rest[0].Data.Reason != gapRecreated {
			t.Fatalf("got %v, want a gap for the recreated topic", rest)
		}
		body := g.open(events(a), "Last-Event-ID", first.id).status(http.StatusBadRequest)
		if !strings.Contains(body, "invalid_cursor") {
			t.Errorf("the body is %s", body)
		}
		b := g.author()
		var err error
		g.producer, err = g.cluster.NewProducer(kafka.ProducerConfig{})
		g.no(err)
		defer g.producer.Close()
		b.whole(3)
		seqs(t, g.open(events(b)).rest(), 0)
	})
}

func TestASlowReaderBeyondTheBudgetCatchesUpAndRejoins(t *testing.T) { //nolint:tparallel // on one broker after the other
	t.Parallel()
	onBoth(t, Config{BudgetBytes: 64 << 10, CatchUpBytes: 16 << 10}, func(g *ground) {
		a := g.author()
		a.started()
		slow := g.open(events(a)) // holds on after the first event
		slow.must()
		quick := g.open(events(a))
		var all []got
		var wg sync.WaitGroup
		wg.Go(func() { all = quick.rest() })
		const deltas = 3000
		filler := strings.Repeat("x", 1000)
		for i := 0; i < deltas; i += 100 {
			recs := make([]event.Record, 0, 100)
			for range 100 {
				recs = append(recs, a.next(event.OutputDelta, event.Delta{Content: filler}))
			}
			g.append(recs...)
		}
		h := g.gateway.hub
		h.mu.Lock()
		if h.bytes > 64<<10 {
			t.Errorf("%d bytes are held, the budget is %d", h.bytes, 64<<10)
		}
		h.mu.Unlock()
		a.complete()
		seqs(t, slow.rest(), 1)
		wg.Wait()
		seqs(t, all, 0)
		if len(all) != deltas+2 {
			t.Errorf("the quick one got %d events, want %d", len(all), deltas+2)
		}
	})
}

func TestAClientThatStopsReadingIsLetGo(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{WriteTimeout: time.Second})
	a := g.author()
	a.started()
	c := g.open(events(a))
	c.must()
	filler := strings.Repeat("x", 100_000)
	for range 200 { // more than the sockets' buffers hold
		a.say(filler)
	}
	eventually(t, func() bool {
		h := g.gateway.hub
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.parts[a.part].refs == 0
	})
}

func TestCursorsThatAreNoGoodAreRefusedWithOneThatIs(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.whole(2)
	good, err := cursor.Parse(g.open(events(a)).must().id)
	g.no(err)
	alien, elsewhere, beyond := good, good, good
	alien.Topic[0]++
	elsewhere.Partition = (a.part + 1) % testPartitions
	beyond.Next = 1000
	for name, text := range map[string]string{
		"no cursor": "abc", "another topic's": alien.String(), "another partition's": elsewhere.String(), "beyond the end": beyond.String(),
	} {
		for _, path := range []string{events(a), fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part)} {
			body := g.open(path + "?cursor=" + text).status(http.StatusBadRequest)
			_, earliest, ok := strings.Cut(body, "the earliest good one is ")
			if !ok || !strings.Contains(body, `"invalid_cursor"`) {
				t.Errorf("%s: the body is %s", name, body)
				continue
			}
			earliest, _, _ = strings.Cut(earliest, `"`)
			g.open(path + "?cursor=" + earliest).status(http.StatusOK)
		}
	}
	// A leader epoch that is not that of the record tells of a truncation.
	lost := good
	lost.LeaderEpoch += 7
	for _, path := range []string{events(a), fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part)} {
		if e := g.open(path + "?cursor=" + lost.String()).must(); e.Data.Reason != gapTruncated {
			t.Errorf("got %s, want a gap for a truncation", e.data)
		}
	}
}

func TestAPartitionIsReadFromAnyOffset(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.whole(5)
	base := fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part)
	for query, want := range map[string]int64{"": 0, "?offset=earliest": 0, "?offset=3": 3} {
		if e := g.open(base + query).must(); e.Seq != want {
			t.Errorf("%s begins with seq %d, want %d", query, e.Seq, want)
		}
	}
	c := g.open(base + "?offset=latest")
	again := g.open(base + "?offset=7") // the end
	b := g.authorOf("tail", a.part)
	b.started()
	for _, c := range []*client{c, again} {
		if e := c.must(); e.Job != "tail" {
			t.Errorf("the newest is %s, want the one written since", e.data)
		}
	}
	id := c.g.open(base + "?offset=3").must().id
	if e := g.open(base, "Last-Event-ID", id).must(); e.Seq != 4 {
		t.Errorf("behind seq 3 comes %d", e.Seq)
	}
	for query, status := range map[string]int{"?offset=-1": 400, "?offset=99": 400, "?offset=x": 400, "?cursor=x": 400} {
		g.open(base + query).status(status)
	}
	for _, p := range []string{"3", "-1", "x", "99999999999"} {
		g.open("/v1/topics/tokens/partitions/" + p + "/events").status(http.StatusNotFound)
	}
}

func TestLookupTellsOfJobsFromTheLogAlone(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		ctx, look := t.Context(), g.gateway.Lookup()
		a := g.author()
		if _, err := look.Job(ctx, a.head.Tenant, a.head.Job, nil); !notFound(err) {
			t.Errorf("an unknown job: %v, want not found", err)
		}
		if _, err := look.Await(ctx, a.head.Tenant, a.head.Job, nil); !notFound(err) {
			t.Errorf("waiting for an unknown job: %v, want not found", err)
		}
		a.request(event.Interactive)
		check := func(status job.Status, output string) {
			t.Helper()
			res, err := look.Job(ctx, a.head.Tenant, a.head.Job, nil)
			if err != nil {
				t.Fatal(err)
			}
			said := ""
			if len(res.Output) > 0 {
				said = res.Output[0].Message.Content
			}
			if res.Status != status || said != output || res.Lane != event.Interactive || res.Request == nil || res.Model != "sim" {
				t.Errorf("got %+v that says %q, want %s and %q", res, said, status, output)
			}
		}
		check(job.Queued, "")
		short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		defer cancel()
		if res, err := look.Await(short, a.head.Tenant, a.head.Job, nil); err != nil || res.Status != job.Queued {
			t.Errorf("waiting in vain: %v, %v; want a queued job", res, err)
		}
		a.started()
		eventually(t, func() bool {
			res, err := look.Job(ctx, a.head.Tenant, a.head.Job, nil)
			return err == nil && res.Status == job.Running
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			res, err := look.Await(ctx, a.head.Tenant, a.head.Job, nil)
			if err != nil || res.Status != job.Completed {
				t.Errorf("waiting: %v, %v; want a completed job", res, err)
			}
		})
		a.say("done")
		a.complete()
		wg.Wait()
		check(job.Completed, "done")
		other := g.author() // output without a request, of which the row tells
		other.whole(1)
		g.rows.set(other.head.Tenant, &job.Resource{ID: other.head.Job, Status: job.Queued}, nil)
		if res, err := look.Job(ctx, other.head.Tenant, other.head.Job, nil); err != nil || res.Status != job.Completed || res.Lane != event.Standard {
			t.Errorf("without a request: %+v, %v", res, err)
		}
		named := int32(1)
		for id, c := range map[string]struct {
			named *int32
			want  int32
		}{other.head.Job: {nil, other.part}, "outside": {nil, job.Partition("outside", testPartitions)}, "elsewhere": {&named, named}} {
			if got, err := look.Partition(ctx, "default", id, c.named); err != nil || got != c.want {
				t.Errorf("%s lies on %d, %v, want %d", id, got, err, c.want)
			}
		}
		if _, err := look.Partition(ctx, "default", "a b", nil); !notFound(err) {
			t.Errorf("no id: %v", err)
		}
		if _, err := look.Job(ctx, "somebody", other.head.Job, nil); !notFound(err) {
			t.Errorf("another tenant's: %v, want not found", err)
		}
	})
}

func TestTheCursorOfA202StandsBeforeTheJob(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	if c := g.gateway.TokensCursor(a.part); c != "" {
		t.Errorf("a cursor %q of a partition that nobody has watched", c)
	}
	if g.gateway.TokensCursor(-1)+g.gateway.TokensCursor(testPartitions) != "" {
		t.Error("a cursor of no partition")
	}
	a.request(event.Standard)
	g.open(events(a)).status(http.StatusOK)
	at := g.gateway.TokensCursor(a.part)
	a.whole(3)
	seqs(t, g.open(events(a)+"?cursor="+at).rest(), 0)
}

// broken is a Kafka that is away.
type broken struct{ Log }

var errAway = fmt.Errorf("test: %w", kafka.ErrUnavailable)

func (broken) Fetch(context.Context, kafka.TopicPartition, int64, int32, time.Duration) (kafka.Fetched, error) {
	return kafka.Fetched{}, errAway
}

func (broken) Offset(context.Context, kafka.TopicPartition, kafka.At) (int64, error) {
	return 0, errAway
}

func (broken) TopicID(context.Context, string) ([16]byte, error) { return [16]byte{}, errAway }

func TestWithKafkaAwayTheAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{})
	g.stop()
	cfg := g.gateway.cfg
	g.gateway = newGateway(cfg, broken{}, func(kafka.TailConfig) (Tail, error) { return nil, errAway })
	g.run()
	a := g.author()
	for _, path := range []string{events(a), "/v1/topics/tokens/partitions/0/events"} {
		if body := g.open(path).status(http.StatusServiceUnavailable); !strings.Contains(body, `"unavailable"`) {
			t.Errorf("the body is %s", body)
		}
	}
	_, err := g.gateway.Lookup().Await(t.Context(), "default", a.head.Job, nil)
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != fault.Unavailable {
		t.Errorf("waiting: %v, want unavailable", err)
	}
	g.stop()
	if _, err := g.gateway.hub.acquire(t.Context(), 0); err == nil {
		t.Error("a partition could be had after the end")
	}
}

func FuzzCursorParam(f *testing.F) {
	g := onOne(f, Config{Patience: 10 * time.Second})
	a := g.author()
	a.whole(3)
	good := cursor.Cursor{Partition: a.part, LeaderEpoch: -1, Epochs: fence.Epochs{}}
	good.Topic, _ = g.cluster.TopicID(f.Context(), g.names.Tokens())
	for _, s := range []string{"", "abc", good.String(), good.String() + "A", strings.Repeat("A", 5000), "\x00", "a b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := &jobStream{tenant: "default", id: a.head.Job, to: nobody{}}
		err := g.gateway.openJob(t.Context(), s, nil, text)
		if err == nil {
			s.close()
			return
		}
		if fe, ok := errors.AsType[*fault.Error](err); !ok || fe.Code != fault.InvalidCursor {
			t.Errorf("%q: %v, want an invalid cursor", text, err)
		}
	})
}
