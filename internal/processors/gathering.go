package processors

import (
	"strings"

	"github.com/penstock-io/penstock/internal/event"
)

// gathering is a delta in the making: what waits to be written as one event, and
// has no seq yet. Text stays in the pieces that it came in, and is joined once.
type gathering struct {
	waits              bool        // it holds something
	delta              event.Delta // but for the text
	content, reasoning []string
	bytes              int // of both
}

// joins tells whether d can be added to what waits: text of the same choice,
// and thinking never behind visible text, which would change their order.
func (g *gathering) joins(d *event.Delta) bool {
	return !g.waits || plain(d) && d.Index == g.delta.Index && (d.Reasoning == "" || len(g.content) == 0)
}

// add takes a piece that joins.
func (g *gathering) add(d *event.Delta) {
	if !g.waits {
		g.waits, g.delta = true, *d
		g.delta.Content, g.delta.Reasoning = "", ""
	}
	if d.Content != "" {
		g.content = append(g.content, d.Content)
	}
	if d.Reasoning != "" {
		g.reasoning = append(g.reasoning, d.Reasoning)
	}
	g.bytes += len(d.Content) + len(d.Reasoning)
}

// take is what waited; nothing waits any more.
func (g *gathering) take() event.Delta {
	d := g.delta
	d.Content, d.Reasoning = strings.Join(g.content, ""), strings.Join(g.reasoning, "")
	g.drop()
	return d
}

// drop forgets what waits.
func (g *gathering) drop() {
	clear(g.content) // else they would be held as long as the room for the next
	clear(g.reasoning)
	*g = gathering{content: g.content[:0], reasoning: g.reasoning[:0]}
}
