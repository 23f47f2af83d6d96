package gateway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

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

// TestOneWhoIsBehindGetsNothingOfAnotherTopic has a topic made anew of which the tail
// has not told yet.
func TestOneWhoIsBehindGetsNothingOfAnotherTopic(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1, CatchUpBytes: 1})
	g.stop()
	var held sync.Mutex
	g.gateway = newGateway(g.gateway.cfg, g.cluster, func(tc kafka.TailConfig) (Tail, error) {
		tail, err := g.cluster.NewTail(tc)
		return &lateTail{tail, &held}, err
	})
	g.run()
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
	g.no(g.cluster.DeleteTopics(t.Context(), g.names.Tokens()))
	g.create()
	var err error
	g.producer, err = g.cluster.NewProducer(kafka.ProducerConfig{}) // which knows the new one
	g.no(err)
	t.Cleanup(g.producer.Close)
	write()
	c.say(`{"op":"credit","sub":"p","n":2}`)
	if all, status := c.untilEnd(); len(all) != 1 || all[0].Data.Reason != gapRecreated || status != "error" {
		t.Errorf("got %v and %s, want a gap for the recreated topic", all, status)
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
