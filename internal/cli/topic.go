package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// TopicCmd is about the topics.
type TopicCmd struct {
	Plan  TopicPlanCmd  `cmd:"" help:"Say what would have to change for the topics to be as they should."`
	Apply TopicApplyCmd `cmd:"" help:"Make the missing topics, and change what differs."`
	List  TopicListCmd  `cmd:"" help:"List the topics as they are."`
	Tail  TopicTailCmd  `cmd:"" help:"Follow a partition of a topic, straight from Kafka."`
}

// AfterApply is kong's hook: what Kafka's client warns of while it tries, the
// command's own error says.
func (*TopicCmd) AfterApply(common *Common, set *settings) error {
	common.begin("error", set)
	return nil
}

// open connects to Kafka.
func (f *KafkaFlags) open(ctx context.Context, sys *System, common *Common) (*kafka.Cluster, error) {
	security := f.security()
	if err := security.Validate(); err != nil {
		return nil, usageError{fmt.Errorf("kafka: %w", err)}
	}
	cluster, err := kafka.Open(ctx, kafka.Config{Brokers: f.Kafka, Security: security, Log: common.logger(sys)})
	switch {
	case errors.Is(err, kafka.ErrDenied):
		return nil, fmt.Errorf("kafka does not accept who asks; see --kafka-tls and --kafka-sasl: %w", err)
	case err != nil:
		return nil, fmt.Errorf("kafka at %s does not answer; is it running? say where it is with --kafka: %w", strings.Join(f.Kafka, ", "), err)
	}
	return cluster, nil
}

// look compares the topics with what they should be.
func (f *KafkaFlags) look(ctx context.Context, cluster *kafka.Cluster) (want []topics.Topic, have []topics.Described, err error) {
	want = topics.Catalogue(f.options())
	names := make([]string, len(want))
	for i, t := range want {
		names[i] = t.Name
	}
	if have, err = cluster.Describe(ctx, names...); err != nil {
		return nil, nil, fmt.Errorf("look at the topics: %w", err)
	}
	return want, have, nil
}

// plan connects to Kafka and says what would have to change. The caller closes
// the cluster.
func (f *KafkaFlags) plan(ctx context.Context, sys *System, common *Common) (*kafka.Cluster, []topics.Change, error) {
	cluster, err := f.open(ctx, sys, common)
	if err != nil {
		return nil, nil, err
	}
	want, have, err := f.look(ctx, cluster)
	if err != nil {
		cluster.Close()
		return nil, nil, err
	}
	return cluster, topics.Plan(want, have), nil
}

// TopicPlanCmd says what would change.
type TopicPlanCmd struct{ KafkaFlags }

// Run implements the command.
func (c *TopicPlanCmd) Run(ctx context.Context, sys *System, common *Common) error {
	cluster, plan, err := c.plan(ctx, sys, common)
	if err != nil {
		return err
	}
	cluster.Close()
	tellPlan(sys, plan)
	return nil
}

func tellPlan(sys *System, plan []topics.Change) {
	if len(plan) == 0 {
		fmt.Fprintln(sys.Stdout, "Nothing to change.")
	}
	for _, change := range plan {
		fmt.Fprintln(sys.Stdout, change)
	}
}

// TopicApplyCmd makes the topics what they should be.
type TopicApplyCmd struct{ KafkaFlags }

// Run implements the command.
func (c *TopicApplyCmd) Run(ctx context.Context, sys *System, common *Common) error {
	cluster, plan, err := c.plan(ctx, sys, common)
	if err != nil {
		return err
	}
	defer cluster.Close()
	if slices.ContainsFunc(plan, func(c topics.Change) bool { return c.Kind == topics.Refuse }) {
		tellPlan(sys, plan)
		return errors.New("nothing was changed: what is refused above has to be settled first")
	}
	if err := cluster.Apply(ctx, plan); err != nil {
		return fmt.Errorf("not all was changed; `penstock topic plan` shows what is left: %w", err)
	}
	tellPlan(sys, plan)
	return nil
}

// TopicListCmd lists the topics.
type TopicListCmd struct {
	KafkaFlags
	OutputFlags
}

// topicRow is a topic as it is listed.
type topicRow struct {
	Topic      string `json:"topic"`
	Status     string `json:"status"` // ok, missing or differs
	Partitions int32  `json:"partitions,omitzero"`
	Copies     int16  `json:"copies,omitzero"`
	Records    int64  `json:"records"` // offsets between the log's starts and ends
	Purpose    string `json:"purpose"`
}

// Run implements the command.
func (c *TopicListCmd) Run(ctx context.Context, sys *System, common *Common) error {
	cluster, err := c.open(ctx, sys, common)
	if err != nil {
		return err
	}
	defer cluster.Close()
	want, have, err := c.look(ctx, cluster)
	if err != nil {
		return err
	}
	differs := map[string]bool{}
	for _, change := range topics.Plan(want, have) {
		differs[change.Topic.Name] = true
	}
	present := map[string]topics.Described{}
	for _, d := range have {
		present[d.Name] = d
	}
	var cells [][]string
	for _, t := range want {
		row := topicRow{Topic: t.Name, Status: "missing", Purpose: t.Purpose}
		if d, ok := present[t.Name]; ok {
			row.Status, row.Partitions, row.Copies = "ok", d.Partitions, d.Replication
			if differs[t.Name] {
				row.Status = "differs"
			}
			if row.Records, err = records(ctx, cluster, t.Name); err != nil {
				return err
			}
		}
		if c.Output != asTable {
			if err := writeJSON(sys.Stdout, c.Output, row); err != nil {
				return err
			}
			continue
		}
		cells = append(cells, []string{
			row.Topic, row.Status, strconv.Itoa(int(row.Partitions)), strconv.Itoa(int(row.Copies)), strconv.FormatInt(row.Records, 10), row.Purpose,
		})
	}
	if c.Output == asTable {
		table(sys.Stdout, []string{"TOPIC", "STATUS", "PARTITIONS", "COPIES", "RECORDS", "HOLDS"}, cells)
	}
	return nil
}

// records counts the offsets that a topic holds.
func records(ctx context.Context, cluster *kafka.Cluster, topic string) (n int64, err error) {
	starts, err := cluster.Offsets(ctx, topic, kafka.Start())
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", topic, err)
	}
	ends, err := cluster.Offsets(ctx, topic, kafka.End())
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", topic, err)
	}
	for p, end := range ends {
		n += end - starts[p]
	}
	return n, nil
}

// TopicTailCmd follows a partition.
type TopicTailCmd struct {
	Topic     string `arg:"" help:"The topic, with or without the prefix: tokens, jobs, requests.standard, ..."`
	Partition int32  `default:"0" help:"The partition."`
	Offset    string `default:"earliest" help:"Where to begin: an offset, earliest or latest."`
	UntilEnd  bool   `help:"Stop at the log's end in place of waiting for more."`
	KafkaFlags
	OutputFlags
}

// Run implements the command.
func (c *TopicTailCmd) Run(ctx context.Context, sys *System, common *Common) error {
	offset, err := c.offset()
	if err != nil {
		return err
	}
	cluster, err := c.open(ctx, sys, common)
	if err != nil {
		return err
	}
	defer cluster.Close()
	names := topics.Names{Prefix: c.Prefix}
	tp := kafka.TopicPartition{Topic: c.Prefix + strings.TrimPrefix(c.Topic, c.Prefix), Partition: c.Partition}
	from, err := begin(ctx, cluster, tp, offset)
	if err != nil {
		return err
	}
	tail, err := cluster.NewTail(kafka.TailConfig{Topic: tp.Topic})
	if err != nil {
		return fmt.Errorf("follow %s: %w", tp, err)
	}
	defer tail.Close()              //nolint:contextcheck // a tail has a life of its own
	tail.Follow(tp.Partition, from) //nolint:contextcheck // the tail has a life of its own, until Close
	p := recordPrinter{sys: sys, out: c.Output, fenced: tp.Topic == names.Tokens()}
	for {
		chunks, err := tail.Poll(ctx)
		if ctx.Err() != nil {
			return nil // whoever follows leaves at will
		}
		if err != nil {
			return fmt.Errorf("follow %s: %w", tp, err)
		}
		for _, chunk := range chunks {
			for i := range chunk.Records {
				if err := p.print(&chunk.Records[i]); err != nil {
					return err
				}
			}
			if chunk.Err != nil {
				return fmt.Errorf("follow %s from offset %d: %w", tp, chunk.Next, chunk.Err)
			}
			if c.UntilEnd && chunk.Next >= chunk.HighWatermark {
				return nil
			}
		}
	}
}

// The words for an offset, as numbers that none has.
const (
	earliest = -2
	latest   = -1
)

// offset reads where to begin.
func (c *TopicTailCmd) offset() (int64, error) {
	switch c.Offset {
	case "earliest":
		return earliest, nil
	case "latest":
		return latest, nil
	}
	n, err := strconv.ParseInt(c.Offset, 10, 64)
	if err != nil || n < 0 {
		return 0, usagef("--offset: %q is none: it must be a number from 0, earliest or latest", c.Offset)
	}
	return n, nil
}

// begin finds the offset to begin at, which must be in the log.
func begin(ctx context.Context, cluster *kafka.Cluster, tp kafka.TopicPartition, offset int64) (int64, error) {
	first, err := cluster.Offset(ctx, tp, kafka.Start())
	if errors.Is(err, kafka.ErrUnknownTopic) {
		return 0, fmt.Errorf("there is no %s: `penstock topic list` shows what there is", tp)
	}
	end := first
	if err == nil {
		end, err = cluster.Offset(ctx, tp, kafka.End())
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("find where %s begins: %w", tp, err)
	case offset == earliest:
		return first, nil
	case offset == latest:
		return end, nil
	case offset < first || offset > end:
		return 0, fmt.Errorf("offset %d is not in %s: the earliest is %d, the end %d", offset, tp, first, end)
	}
	return offset, nil
}

// recordPrinter writes records, a line each. Of the token topic it leaves out
// what the fence does.
type recordPrinter struct {
	sys    *System
	out    format
	fenced bool
	filter fence.Filter
}

func (p *recordPrinter) print(rec *event.Record) error {
	view, err := event.ScanHead(rec.Value)
	known := err == nil
	value := jsontext.Value(rec.Value)
	what := string(view.Job)
	switch {
	case known && p.fenced && !p.filter.Admit(&view):
		return nil
	case p.out != asTable && !value.IsValid():
		fmt.Fprintf(p.sys.Stderr, "penstock: offset %d holds no JSON and is left out\n", rec.Offset)
		return nil
	case p.out != asTable:
		return writeJSON(p.sys.Stdout, p.out, value)
	case !known:
		fmt.Fprintf(p.sys.Stdout, "%d\t-\t-\t%s\n", rec.Offset, gist(rec.Value))
		return nil
	case view.Type == event.LaneClaimed:
		what = fmt.Sprintf("%s epoch %d", view.Lane, view.Epoch)
	case view.Type.Output():
		what += fmt.Sprintf(" %d/%d", view.Attempt, view.Seq)
	}
	fmt.Fprintf(p.sys.Stdout, "%d\t%s\t%s\t%s\n", rec.Offset, view.Type, what, gist(view.Data))
	return nil
}

// gist is the beginning of a value, in one line.
func gist(value []byte) string {
	const most = 160
	if len(value) > most {
		return fmt.Sprintf("%.*q…", most, value)
	}
	if jsontext.Value(value).IsValid() {
		return string(value)
	}
	return strconv.Quote(string(value))
}
