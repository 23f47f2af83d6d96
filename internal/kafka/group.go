package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock-io/penstock/internal/event"
)

const (
	defaultSessionTimeout    = 6 * time.Second
	defaultHeartbeatInterval = 250 * time.Millisecond
	defaultRebalanceTimeout  = 30 * time.Second
	defaultMaxPollRecords    = 1000
)

// GroupConfig says what a Group reads, and how quickly it hands over. The zero
// value of a field takes its default.
type GroupConfig struct {
	Group  string
	Topics []string
	// SessionTimeout is how long a silent member keeps its partitions; default
	// and least (on a broker's defaults) 6 s.
	SessionTimeout time.Duration
	// HeartbeatInterval is how soon a member learns of a rebalance; default
	// 250 ms, at which a hand-over took 0.14 s (at the usual 3 s, 1.35 s).
	HeartbeatInterval time.Duration
	// RebalanceTimeout bounds how long a rebalance waits for Revocation.Done;
	// default 30 s.
	RebalanceTimeout time.Duration
	// MaxPollRecords bounds what one Poll returns; default 1000.
	MaxPollRecords int
	// FetchMaxWait is how long a broker may hold a fetch that has nothing;
	// default 500 ms. It delays no record.
	FetchMaxWait time.Duration
	// FetchMaxBytes bounds a fetch, and with it what waits to be polled: four
	// times as much per broker; default 8 MiB.
	FetchMaxBytes int
	// Pace is how long a connection rests after a fetch that brought records:
	// under load the next one gathers what came in meanwhile, in place of a fetch
	// for each, and who is waited for has the broker first. It delays a record by that much
	// at most, a newly assigned partition not at all, and costs nothing when
	// idle. Default 0: none.
	Pace time.Duration
	// Stand, where set, has a partition stand still at a batch that cannot be decoded,
	// as TailConfig.Stand has it. Else it is a fault.
	Stand time.Duration
	// StartAt, where set, tells where newly assigned partitions begin, in place
	// of the group's commits; one that it leaves out begins at its commit, or at
	// the log's start. It is called within Poll.
	StartAt func(ctx context.Context, assigned []TopicPartition) (map[TopicPartition]int64, error)
}

func (cfg GroupConfig) withDefaults() GroupConfig {
	if cfg.SessionTimeout <= 0 {
		cfg.SessionTimeout = defaultSessionTimeout
	}
	if cfg.HeartbeatInterval <= 0 {
		cfg.HeartbeatInterval = defaultHeartbeatInterval
	}
	if cfg.RebalanceTimeout <= 0 {
		cfg.RebalanceTimeout = defaultRebalanceTimeout
	}
	if cfg.MaxPollRecords <= 0 {
		cfg.MaxPollRecords = defaultMaxPollRecords
	}
	return cfg
}

// Poll is what a Group has to tell. A Poll with a change of partitions holds
// nothing else, so that changes are seen in the order in which they happened.
type Poll struct {
	Assigned []Assignment
	Revoked  *Revocation
	Lost     []TopicPartition // taken away already: the member was removed
	Records  []event.Record
	Faults   []PartitionFault
}

// Assignment is a partition that this member reads from now on.
type Assignment struct {
	TopicPartition
	Member    string // of this group's members, that it was given to
	Next      int64  // where reading begins
	Committed bool   // the group has a commit for it
	Metadata  string
}

// Revocation is a hand-over that waits for this member to finish.
type Revocation struct {
	Partitions []TopicPartition
	done       chan struct{}
	once       *sync.Once
}

// Done lets the rebalance go on. It may be called more than once.
func (r *Revocation) Done() { r.once.Do(func() { close(r.done) }) }

// PartitionFault is a partition that stopped (ErrTruncated, ErrOutOfRange,
// ErrRecreated, ErrUnknownTopic, ErrCorrupt): it stays assigned, and reads nothing until
// Seek.
type PartitionFault struct {
	TopicPartition
	Err error
}

// Group is a member of a consumer group: classic protocol, cooperative-sticky.
// It commits nothing by itself, and never moves a partition by itself.
type Group struct {
	c      *Cluster
	cfg    GroupConfig
	client *kgo.Client // membership alone: it fetches no record
	reader *reader
	ctx    context.Context //nolint:containedctx // Ends when the group is left.
	cancel context.CancelFunc

	mu      sync.Mutex
	changes []change // in order, not yet polled
	owned   map[TopicPartition]*ownership
	leaving map[TopicPartition]struct{} // revoked, and not yet handed over

	changed chan struct{}
}

// ownership is one assignment of a partition to this member.
type ownership struct {
	start     Assignment // as the group's commit has it; Next is -1 without one
	epoch     int32      // of the commit
	delivered bool       // Poll has returned the Assignment
}

// change is what the group's coordinator decided.
type change struct {
	assigned map[TopicPartition]*ownership
	revoked  *Revocation
	lost     []TopicPartition
}

// NewGroup joins a group. Poll at once and often: a hand-over waits for it.
func (c *Cluster) NewGroup(cfg GroupConfig) (*Group, error) {
	if cfg.Group == "" || len(cfg.Topics) == 0 {
		return nil, errors.New("a group has a name and at least one topic")
	}
	cfg = cfg.withDefaults()
	limits := limitsOf(cfg.FetchMaxWait, cfg.FetchMaxBytes, cfg.Pace, 0)
	limits.stand = cfg.Stand
	r, err := c.newReader(limits, alone)
	if err != nil {
		return nil, err
	}
	g := &Group{
		c: c, cfg: cfg, reader: r, owned: map[TopicPartition]*ownership{},
		leaving: map[TopicPartition]struct{}{}, changed: make(chan struct{}, 1),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.client, err = c.newClient(g.membership()...)
	if err != nil {
		g.cancel()
		r.close()
		return nil, err
	}
	// Records are the reader's business: before it has joined anything, the
	// member's own client is told to fetch none.
	g.client.PauseFetchTopics(cfg.Topics...)
	return g, nil
}

// Poll waits for a change of partitions or for records, or for ctx to end.
// Where an Assignment's start cannot be found, it returns the error, and the
// next Poll tries again.
func (g *Group) Poll(ctx context.Context) (Poll, error) {
	for {
		if ch, ok := g.nextChange(); ok {
			p, err := g.apply(ctx, ch)
			if err != nil || p.Revoked != nil || len(p.Assigned) > 0 || len(p.Lost) > 0 {
				return p, err
			}
			continue
		}
		if p, ok := g.read(); ok {
			return p, nil
		}
		select {
		case <-g.changed:
		case <-g.reader.arrived:
		case <-g.ctx.Done():
			return Poll{}, fmt.Errorf("group %s: the member has left: %w", g.cfg.Group, ErrClosed)
		case <-ctx.Done():
			return Poll{}, ctx.Err()
		}
	}
}

// nextChange looks at the first change without taking it.
func (g *Group) nextChange() (change, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.changes) == 0 || g.ctx.Err() != nil {
		return change{}, false
	}
	return g.changes[0], true
}

// taken removes the first change.
func (g *Group) taken() {
	g.changes = slices.Delete(g.changes, 0, 1)
}

// apply makes a change good and says it.
func (g *Group) apply(ctx context.Context, ch change) (Poll, error) {
	if ch.assigned == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.taken()
		return Poll{Revoked: ch.revoked, Lost: ch.lost}, nil
	}
	starts, err := g.starts(ctx, ch.assigned)
	if err != nil {
		return Poll{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken()
	var p Poll
	for tp, own := range ch.assigned {
		if g.owned[tp] != own { // gone while its start was looked for
			continue
		}
		own.delivered = true
		a, epoch := own.start, own.epoch
		if at, ok := starts[tp]; ok && at != a.Next {
			a.Next, epoch = at, -1
		}
		p.Assigned = append(p.Assigned, a)
		g.reader.follow(tp, a.Next, epoch) //nolint:contextcheck // It outlives this Poll.
	}
	slices.SortFunc(p.Assigned, func(a, b Assignment) int { return compare(a.TopicPartition, b.TopicPartition) })
	return p, nil
}

// starts finds where partitions begin that have no commit, or all of them where
// StartAt is set.
func (g *Group) starts(ctx context.Context, assigned map[TopicPartition]*ownership) (map[TopicPartition]int64, error) {
	starts := make(map[TopicPartition]int64, len(assigned))
	if g.cfg.StartAt != nil {
		tps := make([]TopicPartition, 0, len(assigned))
		for tp := range assigned {
			tps = append(tps, tp)
		}
		slices.SortFunc(tps, compare)
		got, err := g.cfg.StartAt(ctx, tps)
		if err != nil {
			return nil, fmt.Errorf("group %s: find where partitions begin: %w", g.cfg.Group, err)
		}
		for _, tp := range tps {
			if at, ok := got[tp]; ok {
				starts[tp] = at
			}
		}
	}
	fresh := map[string][]int32{}
	for tp, own := range assigned {
		if _, ok := starts[tp]; !ok && !own.start.Committed {
			fresh[tp.Topic] = append(fresh[tp.Topic], tp.Partition)
		}
	}
	for topic, parts := range fresh {
		got, err := g.c.offsets(ctx, topic, parts, Start())
		if err != nil {
			return nil, err
		}
		for p, at := range got {
			starts[TopicPartition{topic, p}] = at
		}
	}
	return starts, nil
}

// read takes what the reader has. A change that comes in meanwhile has
// unfollowed its partitions before it is seen, so nothing of them is taken
// after it.
func (g *Group) read() (Poll, bool) {
	var p Poll
	for _, ch := range g.reader.take(g.cfg.MaxPollRecords) {
		if ch.err != nil {
			p.Faults = append(p.Faults, PartitionFault{ch.TopicPartition, ch.err})
			continue
		}
		if p.Records == nil {
			p.Records = ch.records
		} else {
			p.Records = append(p.Records, ch.records...)
		}
	}
	return p, len(p.Records) > 0 || len(p.Faults) > 0
}

// Pause keeps partitions from being read until Resume; what was fetched of them
// waits, within maxAside. A pause ends when its partition leaves this member.
func (g *Group) Pause(tps ...TopicPartition) {
	for _, tp := range tps {
		g.reader.pause(tp)
	}
}

// Resume ends a pause: reading goes on behind the last record that Poll returned.
func (g *Group) Resume(tps ...TopicPartition) {
	for _, tp := range tps {
		g.reader.resume(tp)
	}
}

// Seek goes on reading an assigned partition at an offset, also after a fault.
// No Poll that begins after it returns what was fetched before.
func (g *Group) Seek(tp TopicPartition, offset int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if own := g.owned[tp]; own != nil && own.delivered {
		g.reader.follow(tp, offset, -1)
	}
}

func compare(a, b TopicPartition) int {
	if a.Topic != b.Topic {
		if a.Topic < b.Topic {
			return -1
		}
		return 1
	}
	return int(a.Partition) - int(b.Partition)
}
