package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

const (
	// redriveTimeout bounds how long Kafka gets to take one record back.
	redriveTimeout = 30 * time.Second
	// maxRedriven bounds a record that is written back, in bytes: no larger one
	// can be read.
	maxRedriven = 65 << 20
)

// DeadRedriveCmd writes dead letters back.
type DeadRedriveCmd struct {
	Position []string `arg:"" optional:"" help:"Where they lie, as list shows it: 0:17."`
	All      bool     `help:"All that the filters let through and that were not written back yet."`
	DeadFilter
	Again bool `help:"Also those that were written back before."`
	Yes   bool `help:"Do not ask."`
	KafkaFlags
	OutputFlags
}

// redriven is the result line of a letter that was written back.
type redriven struct {
	Position  string `json:"position"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Run implements the command.
func (c *DeadRedriveCmd) Run(ctx context.Context, sys *System, common *Common) error {
	filtered := len(c.Topic) > 0 || c.Reason != "" || c.Since != ""
	switch {
	case c.All == (len(c.Position) > 0):
		return usagef("say which: positions as `penstock dead list` shows them, or --all, with filters or without")
	case filtered && !c.All:
		return usagef("--topic, --reason and --since choose among --all")
	}
	var offsets []int64
	for _, p := range c.Position {
		offset, err := parsePosition(p)
		if err != nil {
			return err
		}
		offsets = append(offsets, offset)
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
	todo, err := c.choose(ctx, g, since, offsets)
	if err != nil {
		return err
	}
	if len(todo) == 0 {
		fmt.Fprintln(sys.Stderr, "There is nothing to write back.")
		return nil
	}
	if err := confirm(sys, c.Yes, fmt.Sprintf("Write %d record(s) back to where they stood, to be tried again?", len(todo))); err != nil {
		return err
	}
	return c.redrive(ctx, g, todo)
}

// chosen is a letter to write back, by where it lies, and whether it was before.
type chosen struct {
	offset int64
	back   *event.Redriven
	backAt time.Time
}

// choose finds the letters that are meant, in the order of the topic. It holds
// their places alone.
func (c *DeadRedriveCmd) choose(ctx context.Context, g *graveyard, since kafka.At, offsets []int64) ([]chosen, error) {
	from, end, err := g.begin(ctx, since)
	if err != nil {
		return nil, err
	}
	if !c.All {
		from = max(from, slices.Min(offsets))
	}
	var all []chosen
	place := map[int64]int{}
	err = g.each(ctx, from, end, func(l letter) {
		if c.All && c.matches(&l, c.Prefix) || slices.Contains(offsets, l.offset) {
			place[l.offset] = len(all)
			all = append(all, chosen{offset: l.offset})
		}
	}, func(r event.Redriven, at time.Time) {
		if i, ok := place[r.Letter]; ok {
			all[i].back, all[i].backAt = &r, at
		}
	})
	if err != nil {
		return nil, err
	}
	for _, offset := range offsets {
		if _, ok := place[offset]; !ok {
			return nil, fmt.Errorf("there is no dead letter at %s, so nothing was done: `penstock dead list` shows what there is", position(offset))
		}
	}
	if !c.All || c.Again {
		return all, nil
	}
	todo := slices.DeleteFunc(slices.Clone(all), func(t chosen) bool { return t.back != nil })
	if skipped := len(all) - len(todo); skipped > 0 {
		fmt.Fprintf(g.sys.Stderr, "%d were written back before and are left out: --again takes them too.\n", skipped)
	}
	return todo, nil
}

// redrive writes letters back, one after the other, and fails where any was not.
func (c *DeadRedriveCmd) redrive(ctx context.Context, g *graveyard, todo []chosen) error {
	// Packed, since a record may have come in a packed batch and be larger than
	// its topic's limit; the broker says where it does not fit.
	producer, err := g.cluster.NewProducer(kafka.ProducerConfig{
		MaxRecordBytes: maxRedriven, MaxBufferedBytes: maxRedriven, Compression: kafka.Zstd, DeliveryTimeout: redriveTimeout,
	})
	if err != nil {
		return fmt.Errorf("write records back: %w", err)
	}
	defer producer.Close()
	shown := newProgress(g.sys.Stderr, int64(len(todo)))
	shown.what = "records"
	failed := 0
	for _, t := range todo {
		err := c.one(ctx, g, producer, t)
		if ctx.Err() != nil {
			shown.clear()
			fmt.Fprintf(g.sys.Stderr, "%d of %d were written back before it was interrupted.\n", shown.done-failed, len(todo))
			return ctx.Err()
		}
		if err != nil {
			failed++
			shown.clear()
			fmt.Fprintf(g.sys.Stderr, "penstock: %v\n", err)
		}
		shown.add(1, err != nil)
	}
	shown.clear()
	fmt.Fprintf(g.sys.Stderr, "%d written back, %d not.\n", len(todo)-failed, failed)
	if failed > 0 {
		return errSilent
	}
	return nil
}

// one writes a letter back and then notes that, on the dead topic: a note that
// is lost with this process costs a second redrive, never the record.
func (c *DeadRedriveCmd) one(ctx context.Context, g *graveyard, producer *kafka.Producer, t chosen) error {
	at := position(t.offset)
	if t.back != nil && !c.Again {
		return fmt.Errorf("%s was written back already, at %s, to %s, partition %d, offset %d: --again does it once more",
			at, t.backAt.UTC().Format(time.RFC3339), t.back.Topic, t.back.Partition, t.back.Offset)
	}
	got, err := g.cluster.Fetch(ctx, g.tp, t.offset, 1, 0)
	if err != nil || len(got.Records) == 0 || got.Records[0].Offset != t.offset {
		return errors.Join(fmt.Errorf("%s could not be read again", at), err)
	}
	d, err := event.ParseDeadLetter(&got.Records[0])
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	l := letter{DeadLetter: d, offset: t.offset}
	if err := g.whole(ctx, &l); err != nil {
		return err
	}
	names := topics.Names{Prefix: g.prefix}
	if _, ok := names.LaneOf(l.Topic); !ok && l.Topic != names.Control() {
		return fmt.Errorf("%s says that it stood on %.200q, which is no topic that anybody may write to: it is left where it is", at, l.Topic)
	}
	acks, err := producer.Append(ctx, l.Redrive())
	if errors.Is(err, kafka.ErrUnknownOutcome) {
		return fmt.Errorf("%s may have been written back or not, since Kafka did not answer; see `penstock topic tail`: %w", at, err)
	}
	if err != nil {
		return fmt.Errorf("%s was not written back: %w", at, err)
	}
	note := event.Redriven{Letter: t.offset, Topic: l.Topic, Partition: acks[0].Partition, Offset: acks[0].Offset}
	if _, err := producer.Append(ctx, note.Record(g.tp.Topic, time.Now())); err != nil {
		return fmt.Errorf("%s was written back to %s, partition %d, offset %d, but that could not be noted: %w",
			at, note.Topic, note.Partition, note.Offset, err)
	}
	if c.Output != asTable {
		return writeJSON(g.sys.Stdout, c.Output, redriven{at, note.Topic, note.Partition, note.Offset})
	}
	fmt.Fprintf(g.sys.Stdout, "%s is at %s, partition %d, offset %d\n", at, note.Topic, note.Partition, note.Offset)
	return nil
}
