package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/event"
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

// firstID reads the id that a stream begins with.
func (c *client) firstID() (id string) {
	c.g.Helper()
	for {
		line, err := c.lines.ReadString('\n')
		c.g.no(err)
		if line == "\n" {
			return id
		}
		if after, ok := strings.CutPrefix(line, "id: "); ok {
			id = strings.TrimSuffix(after, "\n")
		}
	}
}

// TestWhoComesBackBeforeTheFirstEventIsKnownToHaveBeenHere: an EventSource stops for
// good at a status that one who has never been here gets.
func TestWhoComesBackBeforeTheFirstEventIsKnownToHaveBeenHere(t *testing.T) {
	g := onOne(t, Config{MaxConnections: 1})
	a := g.author()
	a.request(event.Standard)
	waits := g.open(events(a) + "?snapshot=1")
	id := waits.firstID()
	again := g.open(events(a), "Last-Event-ID", id) // there is no room
	if again.rest(); again.resp.StatusCode != http.StatusOK || len(again.retries) != 1 {
		t.Errorf("%s, told to come back after %s ms", again.resp.Status, again.retries)
	}
	waits.close()
	g.empty()
	a.started()
	a.say("one ")
	a.say("two ")
	a.complete()
	back := g.open(events(a)+"?snapshot=1", "Last-Event-ID", id).rest() // no snapshot was sent
	if back[0].Type != streamSnapshot || text(back) != "one two " {
		t.Errorf("it begins with %s, and says %q", back[0].data, text(back))
	}
	g.empty()
	seqs(t, g.open(events(a), "Last-Event-ID", id).rest(), 0)
	third := g.open(events(a)).rest()[2].id
	if got := g.open(events(a), "Last-Event-ID", third).firstID(); got != third {
		t.Errorf("a stream behind %q begins with the id %q", third, got)
	}
}

func TestWhatWasWrittenWhileAPartitionsWatcherWasAwayIsNotMissed(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.started()
	path := fmt.Sprintf("/v1/topics/tokens/partitions/%d/events?offset=latest", a.part)
	c := g.open(path)
	id := c.firstID()
	c.close()
	a.say("meanwhile")
	if e := g.open(path, "Last-Event-ID", id).must(); e.Data.Content != "meanwhile" {
		t.Errorf("got %s", e.data)
	}
}
