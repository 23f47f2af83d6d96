package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// lateTail is a tail of which nothing is heard while it is held.
type lateTail struct {
	Tail
	held *sync.Mutex
}

func (t *lateTail) Poll(ctx context.Context) ([]kafka.Chunk, error) {
	chunks, err := t.Tail.Poll(ctx)
	t.held.Lock()
	defer t.held.Unlock()
	return chunks, err
}

// late is a ground whose gateway's tail is silent while held is locked.
func late(t *testing.T, cfg Config, held *sync.Mutex) *ground {
	t.Helper()
	g := onOne(t, cfg)
	g.stop()
	g.gateway = newGateway(g.gateway.cfg, g.cluster, func(tc kafka.TailConfig) (Tail, error) {
		tail, err := g.cluster.NewTail(tc)
		return &lateTail{tail, held}, err
	})
	g.run()
	return g
}

// recreate makes the token topic anew, and a producer that knows it.
func (g *ground) recreate() {
	g.Helper()
	g.no(g.cluster.DeleteTopics(g.Context(), g.names.Tokens()))
	g.create()
	var err error
	g.producer, err = g.cluster.NewProducer(kafka.ProducerConfig{})
	g.no(err)
	g.Cleanup(g.producer.Close)
}

// TestOneWhoIsBehindGetsNothingOfAnotherTopic has a topic made anew of which the tail
// has not told yet.
func TestOneWhoIsBehindGetsNothingOfAnotherTopic(t *testing.T) {
	var held sync.Mutex
	g := late(t, Config{BudgetBytes: 1, CatchUpBytes: 1}, &held)
	a := g.author()
	write := func() {
		a.head.Seq = 0
		for range 6 { // a batch each
			a.say("x")
		}
	}
	write()
	c := g.dial()
	c.say(fmt.Sprintf(`{"op":"subscribe","sub":"p","topic":"tokens","partition":%d,"credit":2}`, a.part))
	c.want("subscribed")
	c.atLeast(2)
	held.Lock()
	t.Cleanup(held.Unlock)
	g.recreate()
	write()
	c.say(`{"op":"credit","sub":"p","n":2}`)
	if all, status := c.untilEnd(); len(all) != 1 || all[0].Data.Reason != gapRecreated || status != "error" {
		t.Errorf("got %v and %s, want a gap for the recreated topic", all, status)
	}
}

// TestACursorOfARecreatedTopicIsGoodBeforeTheTailHasTold has a client come back with
// what another gateway gave it, which knew of the new topic first.
func TestACursorOfARecreatedTopicIsGoodBeforeTheTailHasTold(t *testing.T) {
	var held sync.Mutex
	g := late(t, Config{}, &held)
	old := g.author()
	old.started()
	stale := g.open(events(old)).must().id // from here on the partition is followed
	held.Lock()
	t.Cleanup(held.Unlock)
	g.recreate()
	a := g.authorOf("outside", old.part)
	a.whole(2)
	id, err := g.cluster.TopicID(t.Context(), g.names.Tokens())
	g.no(err)
	behind := cursor.Cursor{Topic: id, Partition: a.part, LeaderEpoch: -1, Next: 2}.String()
	for _, path := range []string{
		fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part),
		fmt.Sprintf("%s?partition=%d", events(a), a.part),
	} {
		c := g.open(path, "Last-Event-ID", behind)
		if c.resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", path, c.status(http.StatusOK))
		}
		if e := c.must(); e.Seq != 2 || e.Job != "outside" {
			t.Errorf("%s: got %s, want seq 2", path, e.data)
		}
		g.open(path, "Last-Event-ID", stale).status(http.StatusBadRequest)
	}
}

// stillTail is a tail that is not equal to another.
type stillTail struct {
	still
	_ int
}

// remade is a Kafka whose topic a test makes anew.
type remade struct {
	still
	id *atomic.Int32
}

func (r remade) TopicID(context.Context, string) ([16]byte, error) {
	return [16]byte{byte(r.id.Load())}, nil
}

func TestWhatATailHasOfTheOldTopicIsNotTakenForTheNewOnes(t *testing.T) {
	log := remade{id: new(atomic.Int32)}
	log.id.Store(1)
	gw := newGateway(Config{Partitions: 1}, log, func(kafka.TailConfig) (Tail, error) { return &stillTail{}, nil })
	h := gw.hub
	p, err := h.acquire(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	old := h.tail
	log.id.Store(2)
	if err := h.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.follow(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	h.take(t.Context(), old, &kafka.Chunk{Records: []event.Record{{Value: []byte("old")}}, Next: 1})
	if end, _ := p.end(); end != 0 {
		t.Errorf("the window ends at %d, want 0: nothing came of the new topic", end)
	}
	h.take(t.Context(), h.tail, &kafka.Chunk{Records: []event.Record{{Value: []byte("new")}}, Next: 1})
	if end, _ := p.end(); end != 1 {
		t.Errorf("the window ends at %d, want 1", end)
	}
}

// renamed is a Kafka whose topics are others from some read on.
type renamed struct {
	Log
	left atomic.Int32
}

func (r *renamed) Fetch(ctx context.Context, tp kafka.TopicPartition, from int64, most int32, wait time.Duration) (kafka.Fetched, error) {
	got, err := r.Log.Fetch(ctx, tp, from, most, wait)
	if r.left.Add(-1) < 0 {
		got.TopicID[0]++
	}
	return got, err //nolint:wrapcheck // the log's own
}

// TestASearchThatMeetsATopicThatWasMadeAnewDoesNotTakeItForTheOneItBeganIn is of the
// searches for a job: in its output, and among the requests.
func TestASearchThatMeetsATopicThatWasMadeAnewDoesNotTakeItForTheOneItBeganIn(t *testing.T) {
	g := onOne(t, Config{CatchUpBytes: 1})
	g.stop()
	r := &renamed{Log: g.cluster}
	g.gateway = newGateway(g.gateway.cfg, r, func(tc kafka.TailConfig) (Tail, error) { return g.cluster.NewTail(tc) })
	g.run()
	a := g.author()
	for range 3 { // a batch each
		a.say("x")
	}
	g.authorOf("other-1", a.part).request(event.Standard)
	g.authorOf("other-2", a.part).request(event.Standard)
	p, err := g.gateway.hub.acquire(t.Context(), a.part)
	g.no(err)
	defer g.gateway.hub.release(p)
	end, _ := p.end()
	topic, _ := g.gateway.hub.born()
	r.left.Store(1)
	q := question{tenant: "default", id: a.head.Job, place: place{partition: a.part}, part: p, topic: topic, start: end}
	if _, _, err := g.gateway.earlier(t.Context(), q); !errors.Is(err, kafka.ErrRecreated) {
		t.Errorf("the output is looked for in another topic: %v", err)
	}
	r.left.Store(1)
	if _, _, err := g.gateway.requestOn(t.Context(), event.Standard, "default", "nobody's", place{partition: a.part}); !errors.Is(err, kafka.ErrRecreated) {
		t.Errorf("the request is looked for in another topic: %v", err)
	}
}
