package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// DeadCmd is about dead letters. It reads and writes Kafka itself, as the
// commands about topics do: a redrive must work while no server runs, and needs
// the right to write requests, which the server's clients do not have.
type DeadCmd struct {
	List    DeadListCmd    `cmd:"" help:"List the records that were refused, newest first."`
	Get     DeadGetCmd     `cmd:"" help:"Show one, with its bytes as they were."`
	Redrive DeadRedriveCmd `cmd:"" help:"Write records back to where they stood, to be tried again."`
}

// AfterApply is as TopicCmd's.
func (*DeadCmd) AfterApply(common *Common, set *settings) error {
	common.begin("error", set)
	return nil
}

// DeadFilter chooses letters.
type DeadFilter struct {
	Topic  []string `help:"Only those that stood on these topics, with or without the prefix."`
	Reason string   `placeholder:"TEXT" help:"Only those whose reason has this in it."`
	Since  string   `placeholder:"TIME" help:"Only those refused since: an RFC 3339 time, or a duration before now such as 2h."`
}

// letter is a dead letter and where it lies.
type letter struct {
	event.DeadLetter

	offset  int64 // on the dead topic
	refused time.Time
	back    *event.Redriven // the newest note that it was written back
	backAt  time.Time
}

// graveyard reads the dead topic, which has one partition.
type graveyard struct {
	cluster *kafka.Cluster
	tp      kafka.TopicPartition
	sys     *System
	prefix  string
}

// visit opens the graveyard; the cluster is the caller's to close.
func (f *KafkaFlags) visit(ctx context.Context, sys *System, common *Common) (*graveyard, error) {
	cluster, err := f.open(ctx, sys, common)
	if err != nil {
		return nil, err
	}
	names := topics.Names{Prefix: f.Prefix}
	return &graveyard{cluster: cluster, tp: kafka.TopicPartition{Topic: names.Dead()}, sys: sys, prefix: f.Prefix}, nil
}

// position is how people name a letter: partition and offset on the dead topic.
func position(offset int64) string { return "0:" + strconv.FormatInt(offset, 10) }

// parsePosition takes the offset alone as well.
func parsePosition(s string) (int64, error) {
	offset, err := strconv.ParseInt(strings.TrimPrefix(s, "0:"), 10, 64)
	if err != nil || offset < 0 {
		return 0, usagef("%q is no position of a dead letter: it must be as `penstock dead list` shows it, such as 0:17", s)
	}
	return offset, nil
}

// since is from where on the filter's letters lie.
func (f *DeadFilter) since(now time.Time) (kafka.At, error) {
	if f.Since == "" {
		return kafka.Start(), nil
	}
	t, err := time.Parse(time.RFC3339, f.Since)
	if err != nil {
		ago, err := time.ParseDuration(f.Since)
		if err != nil || ago < 0 {
			return kafka.At{}, usagef("--since: %q is none: it must be an RFC 3339 time such as 2026-11-23T08:00:00Z, or a duration such as 2h", f.Since)
		}
		t = now.Add(-ago)
	}
	return kafka.AtTime(t), nil
}

// begin is where the letters from a place on begin, and where the topic ends now.
func (g *graveyard) begin(ctx context.Context, at kafka.At) (from, end int64, err error) {
	if end, err = g.cluster.Offset(ctx, g.tp, kafka.End()); err == nil {
		from, err = g.cluster.Offset(ctx, g.tp, at)
	}
	if errors.Is(err, kafka.ErrUnknownTopic) {
		return 0, 0, fmt.Errorf("there is no %s: `penstock topic list` shows what there is", g.tp.Topic)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find where %s begins and ends: %w", g.tp.Topic, err)
	}
	return from, end, nil
}

// each gives every letter in [from, end), and every note. What is neither is
// told and left out.
func (g *graveyard) each(ctx context.Context, from, end int64, take func(l letter), note func(r event.Redriven, at time.Time)) error {
	for recs, err := range g.cluster.Scan(ctx, g.tp, from, end) {
		if gone, ok := errors.AsType[*kafka.OutOfRangeError](err); ok && gone.Earliest > from {
			return g.each(ctx, gone.Earliest, end, take, note) // retention was quicker
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", g.tp.Topic, err)
		}
		for i := range recs {
			rec := &recs[i]
			if r, ok := event.ParseRedriven(rec); ok {
				note(r, rec.Time)
				continue
			}
			d, err := event.ParseDeadLetter(rec)
			if err != nil {
				fmt.Fprintf(g.sys.Stderr, "penstock: %s is left out: %v\n", position(rec.Offset), err)
				continue
			}
			take(letter{DeadLetter: d, offset: rec.Offset, refused: rec.Time})
		}
	}
	return nil
}

// at reads one letter, and whether it was written back.
func (g *graveyard) at(ctx context.Context, offset int64) (*letter, error) {
	from, end, err := g.begin(ctx, kafka.Start())
	if err != nil {
		return nil, err
	}
	if offset < from || offset >= end {
		return nil, fmt.Errorf("there is no dead letter at %s: the earliest is %s, the end %s", position(offset), position(from), position(end))
	}
	var found *letter
	err = g.each(ctx, offset, end, func(l letter) {
		if l.offset == offset {
			found = &l
		}
	}, func(r event.Redriven, at time.Time) {
		if found != nil && r.Letter == offset {
			found.back, found.backAt = &r, at
		}
	})
	if err == nil && found == nil {
		err = fmt.Errorf("there is no dead letter at %s: what stands there is something else", position(offset))
	}
	return found, err
}

// whole fetches what did not fit on the dead topic from where the record stood.
func (g *graveyard) whole(ctx context.Context, l *letter) error {
	if l.Omitted == 0 {
		return nil
	}
	tp := kafka.TopicPartition{Topic: l.Topic, Partition: l.Partition}
	got, err := g.cluster.Fetch(ctx, tp, l.Offset, 1, 0)
	switch {
	case err != nil:
		return fmt.Errorf("%d bytes of %s did not fit on the dead topic, and cannot be read from where they stood, %s at offset %d: %w",
			l.Omitted, position(l.offset), tp, l.Offset, err)
	case len(got.Records) == 0 || got.Records[0].Offset != l.Offset || got.Records[0].Defect != "":
		return fmt.Errorf("%d bytes of %s did not fit on the dead topic, and are gone from where they stood, %s at offset %d",
			l.Omitted, position(l.offset), tp, l.Offset)
	}
	rec := &got.Records[0]
	l.Key, l.Value, l.Headers = rec.Key, rec.Value, rec.Headers
	return nil
}

// matches tells whether the filter lets a letter through.
func (f *DeadFilter) matches(l *letter, prefix string) bool {
	wanted := len(f.Topic) == 0
	for _, t := range f.Topic {
		wanted = wanted || l.Topic == t || l.Topic == prefix+t
	}
	return wanted && strings.Contains(l.Reason, f.Reason)
}

// deadRow is a letter as it is listed; deadWhole as it is shown.
type deadRow struct {
	Position  string   `json:"position"`
	Refused   job.Time `json:"refused_at"`
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Stage     string   `json:"stage"`
	Reason    string   `json:"reason"`
	Bytes     int      `json:"bytes"` // of the value
	Redrives  int      `json:"redrives"`
	// Redriven is where it was last written back to.
	Redriven *deadBack `json:"redriven,omitzero"`
}

type deadBack struct {
	At        job.Time `json:"at"`
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
}

type deadWhole struct {
	deadRow

	Time    job.Time     `json:"time,omitzero"`
	Key     *deadBytes   `json:"key"` // null: it had none
	Headers []deadHeader `json:"headers"`
	Value   *deadBytes   `json:"value"`
}

type deadHeader struct {
	Key   string     `json:"key"`
	Value *deadBytes `json:"value"`
}

// deadBytes are bytes as JSON can say them: text where they are UTF-8.
type deadBytes struct {
	Text   *string `json:"text,omitzero"`
	Base64 string  `json:"base64,omitzero"`
}

func bytesOf(b []byte) *deadBytes {
	switch {
	case b == nil:
		return nil
	case utf8.Valid(b):
		text := string(b)
		return &deadBytes{Text: &text}
	default:
		return &deadBytes{Base64: base64.StdEncoding.EncodeToString(b)}
	}
}

// plainly is text that does nothing to a terminal and can stand in JSON: whoever
// may write to the dead topic may write anything.
func plainly(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

func (l *letter) row() deadRow {
	row := deadRow{
		Position: position(l.offset), Refused: job.Time{Time: l.refused}, Topic: plainly(l.Topic), Partition: l.Partition, Offset: l.Offset,
		Stage: plainly(l.Stage), Reason: plainly(l.Reason), Bytes: max(len(l.Value), l.Omitted), Redrives: l.Redrives(),
	}
	if l.back != nil {
		row.Redriven = &deadBack{job.Time{Time: l.backAt}, plainly(l.back.Topic), l.back.Partition, l.back.Offset}
	}
	return row
}

func (l *letter) show() deadWhole {
	whole := deadWhole{deadRow: l.row(), Time: job.Time{Time: l.Time}, Key: bytesOf(l.Key), Value: bytesOf(l.Value), Headers: []deadHeader{}}
	for _, h := range l.Headers {
		whole.Headers = append(whole.Headers, deadHeader{strings.ToValidUTF8(h.Key, "\uFFFD"), bytesOf(h.Value)})
	}
	return whole
}
