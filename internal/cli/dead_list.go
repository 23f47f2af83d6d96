package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// maxDeadLimit bounds how many letters a list holds in memory.
const maxDeadLimit = 10_000

// DeadListCmd lists dead letters.
type DeadListCmd struct {
	DeadFilter
	Limit int    `default:"20" help:"How many, 10000 at most."`
	Order string `default:"desc" enum:"asc,desc" help:"Newest first (desc) or oldest first (asc)."`
	KafkaFlags
	OutputFlags
}

// Run implements the command.
func (c *DeadListCmd) Run(ctx context.Context, sys *System, common *Common) error {
	if c.Limit < 1 || c.Limit > maxDeadLimit {
		return usagef("--limit must be 1 to %d", maxDeadLimit)
	}
	since, err := c.since(time.Now())
	if err != nil {
		return err
	}
	g, err := c.visit(ctx, sys, common)
	if err != nil {
		return err
	}
	defer g.cluster.Close()
	from, end, err := g.begin(ctx, since)
	if err != nil {
		return err
	}
	kept, more, err := c.collect(ctx, g, from, end)
	if err != nil {
		return err
	}
	if c.Order == "desc" {
		slices.Reverse(kept)
	}
	if err := c.write(sys, kept); err != nil {
		return err
	}
	if more > 0 && c.Output == asTable {
		fmt.Fprintf(sys.Stderr, "There are %d more: --limit, --since and --order choose others.\n", more)
	}
	return nil
}

// collect reads the topic and keeps as many letters as are wanted, oldest
// first, without their bytes; more counts the others. Notes stand behind their
// letters, so that all have to be read.
func (c *DeadListCmd) collect(ctx context.Context, g *graveyard, from, end int64) (kept []letter, more int, err error) {
	err = g.each(ctx, from, end, func(l letter) {
		if !c.matches(&l, c.Prefix) {
			return
		}
		if len(kept) == c.Limit {
			more++
			if c.Order == "asc" {
				return
			}
			kept = kept[1:]
		}
		kept = append(kept, l.light())
	}, func(r event.Redriven, at time.Time) {
		i, ok := slices.BinarySearchFunc(kept, r.Letter, func(l letter, offset int64) int { return int(l.offset - offset) })
		if ok {
			kept[i].back, kept[i].backAt = &r, at
		}
	})
	return kept, more, err
}

// light is the letter without what a list does not show.
func (l *letter) light() letter {
	light := *l
	light.Omitted = max(len(l.Value), l.Omitted)
	light.Key, light.Value = nil, nil
	light.Headers = nil
	if l.Redrives() > 0 {
		light.Headers = slices.Clone(l.Headers[len(l.Headers)-1:])
	}
	return light
}

func (c *DeadListCmd) write(sys *System, letters []letter) error {
	cells := make([][]string, 0, len(letters))
	for i := range letters {
		row := letters[i].row()
		if c.Output != asTable {
			if err := writeJSON(sys.Stdout, c.Output, row); err != nil {
				return err
			}
			continue
		}
		cells = append(cells, []string{
			row.Position, clock(row.Refused), strings.TrimPrefix(row.Topic, c.Prefix), fmt.Sprintf("%d:%d", row.Partition, row.Offset),
			row.Stage, strconv.Itoa(row.Bytes), strconv.Itoa(row.Redrives), fate(&row), cut(row.Reason),
		})
	}
	if c.Output == asTable {
		table(sys.Stdout, []string{"POSITION", "REFUSED", "TOPIC", "STOOD AT", "BY", "BYTES", "REDRIVES", "NOW", "REASON"}, cells)
	}
	return nil
}

// fate is what became of a letter.
func fate(row *deadRow) string {
	if row.Redriven == nil {
		return "dead"
	}
	return "redriven"
}

// cut is the beginning of a reason, in one line.
func cut(reason string) string {
	const most = 100
	reason = strings.Join(strings.Fields(reason), " ")
	if runes := []rune(reason); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return reason
}

// DeadGetCmd shows one dead letter.
type DeadGetCmd struct {
	Position string `arg:"" help:"Where it lies, as list shows it: 0:17."`
	Raw      bool   `help:"Write the value's bytes as they were, and nothing else."`
	KafkaFlags
	OutputFlags
}

// Run implements the command.
func (c *DeadGetCmd) Run(ctx context.Context, sys *System, common *Common) error {
	offset, err := parsePosition(c.Position)
	if err != nil {
		return err
	}
	g, err := c.visit(ctx, sys, common)
	if err != nil {
		return err
	}
	defer g.cluster.Close()
	l, err := g.at(ctx, offset)
	if err != nil {
		return err
	}
	if err := g.whole(ctx, l); err != nil {
		if c.Raw {
			return err
		}
		fmt.Fprintf(sys.Stderr, "penstock: %v\n", err)
	}
	switch {
	case c.Raw:
		_, err := sys.Stdout.Write(l.Value)
		return err //nolint:wrapcheck // of stdout
	case c.Output != asTable:
		return writeJSON(sys.Stdout, c.Output, l.show())
	}
	l.describe(sys)
	return nil
}

// describe writes a letter for people.
func (l *letter) describe(sys *System) {
	row := l.row()
	tw := tabwriter.NewWriter(sys.Stdout, 0, 0, 2, ' ', 0)
	put := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	put("position", "%s", row.Position)
	put("refused", "%s, by %s", clock(row.Refused), row.Stage)
	put("reason", "%s", row.Reason)
	put("stood at", "%s, partition %d, offset %d", row.Topic, row.Partition, row.Offset)
	if !l.Time.IsZero() {
		put("written", "%s", clock(job.Time{Time: l.Time}))
	}
	put("redrives", "%d before it came here", row.Redrives)
	if b := row.Redriven; b != nil {
		put("written back", "%s, to %s, partition %d, offset %d", clock(b.At), b.Topic, b.Partition, b.Offset)
	}
	put("key", "%s", shown(l.Key))
	for _, h := range l.Headers {
		put("header", "%s: %s", strconv.QuoteToGraphic(h.Key), shown(h.Value))
	}
	put("value", "%d bytes", row.Bytes)
	_ = tw.Flush() // to a terminal
	fmt.Fprintf(sys.Stdout, "\n%s\n", shown(l.Value))
}

// shown is bytes as a terminal can show them, whole.
func shown(b []byte) string {
	if b == nil {
		return "none"
	}
	return strconv.QuoteToGraphic(string(b))
}
