package gateway

import (
	"context"
	"fmt"
	"sync"
	"testing"

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
