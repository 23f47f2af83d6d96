package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
)

func TestDrainEndsStreamsAndTheyGoOnElsewhere(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.started()
	a.say("one")
	c := g.open(events(a))
	first, second := c.must(), c.must()
	_ = first
	g.gateway.Drain()
	if rest := c.rest(); len(rest) != 0 || len(c.retries) != 2 || c.retries[0] != "1000" || !soonBack(c.retries[1]) {
		t.Errorf("events at the drain: %v; told to come back after %s ms", rest, c.retries)
	}
	for _, path := range []string{events(a), fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part)} {
		late := g.open(path) // an EventSource would stop for good at an error
		late.rest()
		if n := len(late.retries); late.resp.StatusCode != http.StatusOK || n == 0 || !soonBack(late.retries[n-1]) {
			t.Errorf("a late-comer: %s, told to come back after %s ms", late.resp.Status, late.retries)
		}
	}
	g.stop()
	g.gateway = New(g.gateway.cfg)
	g.run()
	a.say("two")
	a.complete()
	seqs(t, g.open(events(a), "Last-Event-ID", second.id).rest(), 2)
}

// soonBack tells whether a time in milliseconds is one at which a client may come
// back who was sent away with few others.
func soonBack(ms string) bool {
	n, err := strconv.Atoi(ms)
	return err == nil && n >= 100 && n < 500
}
