package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// leaveTimeout bounds Close's goodbye.
	leaveTimeout = 2 * time.Second
	// commitPatience bounds how often a commit is tried again that came in the
	// middle of a rebalance.
	commitPatience = 10
)

// membership is how the group's client takes part in it.
func (g *Group) membership() []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(g.cfg.Group),
		kgo.ConsumeTopics(g.cfg.Topics...),
		// A classic group: the newer protocol's session timeout is 45 s at least.
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(g.cfg.SessionTimeout),
		kgo.HeartbeatInterval(g.cfg.HeartbeatInterval),
		kgo.RebalanceTimeout(g.cfg.RebalanceTimeout),
		kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.OnOffsetsFetched(g.onCommitsFetched),
		kgo.AdjustFetchOffsetsFn(neverFetch),
		kgo.OnPartitionsRevoked(g.onRevoked),
		kgo.OnPartitionsLost(g.onLost),
		kgo.WithHooks(manageErrors{g}),
	}
}

// neverFetch puts every partition at 0 with no epoch, so that the membership's
// client asks nothing about positions that the reader keeps.
func neverFetch(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	for _, parts := range offsets {
		for p := range parts {
			parts[p] = kgo.NewOffset().At(0)
		}
	}
	return offsets, nil
}

// onCommitsFetched is called with the commits of partitions that are new here:
// that is when they are this member's.
func (g *Group) onCommitsFetched(_ context.Context, client *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	assigned := map[TopicPartition]*ownership{}
	member, _ := client.GroupMetadata() // g has no client yet where this is quick
	for _, group := range resp.Groups {
		for _, t := range group.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					continue // the client tells and drops it
				}
				tp := TopicPartition{t.Topic, p.Partition}
				own := &ownership{start: Assignment{TopicPartition: tp, Member: member, Next: -1}, epoch: -1}
				if p.Offset >= 0 {
					own.start.Next, own.start.Committed, own.epoch = p.Offset, true, p.LeaderEpoch
				}
				if p.Metadata != nil {
					own.start.Metadata = *p.Metadata
				}
				assigned[tp] = own
			}
		}
	}
	if len(assigned) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.Copy(g.owned, assigned)
	g.changes = append(g.changes, change{assigned: assigned})
	signal(g.changed)
	return nil
}

// onRevoked holds the rebalance until the partitions' reader is done with them.
func (g *Group) onRevoked(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
	gone := g.release(parts, true) //nolint:contextcheck // a reader has a life of its own
	if len(gone) == 0 {
		return
	}
	rev := &Revocation{Partitions: gone, done: make(chan struct{}), once: &sync.Once{}}
	g.push(change{revoked: rev})
	defer g.handedOver(gone)
	timer := time.NewTimer(g.cfg.RebalanceTimeout)
	defer timer.Stop()
	select {
	case <-rev.done:
	case <-g.ctx.Done():
	case <-timer.C:
		g.c.log.WarnContext(ctx, "a hand-over did not wait for its partitions to be released",
			"group", g.cfg.Group, "partitions", len(gone), "waited", g.cfg.RebalanceTimeout)
	}
}

// onLost tells of partitions that are others' already.
func (g *Group) onLost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	if gone := g.release(parts, false); len(gone) > 0 { //nolint:contextcheck // a reader has a life of its own
		g.push(change{lost: gone})
	}
}

func (g *Group) push(ch change) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changes = append(g.changes, ch)
	signal(g.changed)
}

// handedOver ends the time in which revoked partitions may still be committed.
func (g *Group) handedOver(gone []TopicPartition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, tp := range gone {
		delete(g.leaving, tp)
	}
}

// release ends the reading of partitions, and returns those that Poll has told
// of; where they are to be handed over, they may be committed until then.
func (g *Group) release(parts map[string][]int32, handOver bool) []TopicPartition {
	g.mu.Lock()
	defer g.mu.Unlock()
	var gone []TopicPartition
	for topic, ps := range parts {
		for _, p := range ps {
			tp := TopicPartition{topic, p}
			if own := g.owned[tp]; own != nil && own.delivered {
				gone = append(gone, tp)
				if handOver {
					g.leaving[tp] = struct{}{}
				}
			}
			delete(g.owned, tp)
			g.reader.unfollow(tp)
		}
	}
	slices.SortFunc(gone, compare)
	return gone
}

// manageErrors says what keeps a member out of its group.
type manageErrors struct{ g *Group }

// OnGroupManageError implements kgo.HookGroupManageError.
func (m manageErrors) OnGroupManageError(err error) {
	m.g.c.log.Warn("the group's session ended, joining again", "group", m.g.cfg.Group, "error", err)
}

// Member is this member's id in the group, and "" before it has one.
func (g *Group) Member() string {
	id, _ := g.client.GroupMetadata()
	return id
}

// Rejoin takes part in a rebalance that is known of, as after an eviction, and
// does not wait for the next heartbeat to be told of it.
func (g *Group) Rejoin() { g.client.ForceRebalance() }

// Heartbeat asks the group's coordinator whether this member stands, in about
// one round trip, and returns which member that is. A rebalance under way is no
// error; ErrNotMember says that the member was removed, or has not joined.
func (g *Group) Heartbeat(ctx context.Context) (member string, err error) {
	doing := "send a heartbeat to group " + g.cfg.Group
	member, generation := g.client.GroupMetadata()
	if member == "" || generation < 0 {
		return member, fmt.Errorf("%s: %w: it has not joined", doing, ErrNotMember)
	}
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = g.cfg.Group, member, generation
	resp, err := req.RequestWith(ctx, g.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if errors.Is(err, kerr.RebalanceInProgress) {
		return member, nil
	}
	return member, unavailable(doing, err)
}

// MaxMetadataBytes is the most metadata that a commit may carry.
const MaxMetadataBytes = 4096

// Commit is how far a group has come in a partition.
type Commit struct {
	TopicPartition
	Next        int64 // the first offset that is not done
	LeaderEpoch int32 // of the record before it; -1 or 0 where it is not known
	Metadata    string
}

// Commit writes commits for partitions that this member has. ErrNotMember says
// that a partition is not, or no longer, this member's; ErrMetadataTooLarge
// that nothing was sent.
func (g *Group) Commit(ctx context.Context, commits ...Commit) error {
	if len(commits) == 0 {
		return nil
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = g.cfg.Group
	index := map[string]int{}
	for _, cm := range commits {
		if err := g.committable(cm); err != nil {
			return err
		}
		i, ok := index[cm.Topic]
		if !ok {
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic = cm.Topic
			if m := g.c.cached(cm.Topic); m != nil {
				t.TopicID = m.id
			}
			i = len(req.Topics)
			index[cm.Topic] = i
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch = cm.Partition, cm.Next, cm.LeaderEpoch
		p.Metadata = new(cm.Metadata)
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	for tries := 1; ; tries++ {
		err := patiently(ctx, func() error { return g.commit(ctx, req) })
		// Between a join and its assignment, and for the moment in which the
		// client does not know its new generation, a commit is refused that is
		// good a little later.
		passing := errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.IllegalGeneration)
		if !passing || tries >= commitPatience || !wait(ctx, backoff(tries)) {
			return unavailable("commit to group "+g.cfg.Group, err)
		}
	}
}

func (g *Group) commit(ctx context.Context, req *kmsg.OffsetCommitRequest) error {
	req.MemberID, req.Generation = g.client.GroupMetadata()
	resp, err := req.RequestWith(ctx, g.c.client)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("%s/%d: %w", t.Topic, p.Partition, err)
			}
		}
	}
	return nil
}

func (g *Group) committable(cm Commit) error {
	if len(cm.Metadata) > MaxMetadataBytes {
		return fmt.Errorf("%w: %s: %d bytes, and %d is the most", ErrMetadataTooLarge, cm.TopicPartition, len(cm.Metadata), MaxMetadataBytes)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, leaving := g.leaving[cm.TopicPartition]
	if own := g.owned[cm.TopicPartition]; !leaving && (own == nil || !own.delivered) {
		return fmt.Errorf("commit %s to group %s: %w: the partition is not assigned to this member", cm.TopicPartition, g.cfg.Group, ErrNotMember)
	}
	return nil
}

// Leave ends the membership: the partitions go to others at once. Commit first,
// since it waits for no Revocation. Poll then returns ErrClosed.
func (g *Group) Leave(ctx context.Context) error {
	g.cancel()
	if err := g.client.LeaveGroupContext(ctx); err != nil {
		return unavailable("leave group "+g.cfg.Group, err)
	}
	return nil
}

// Close leaves the group, where that has not been done, and ends all that
// belongs to it.
func (g *Group) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := g.Leave(ctx); err != nil {
		g.c.log.Warn("the group was not left in order", "group", g.cfg.Group, "error", err)
	}
	g.reader.close()
	g.client.Close()
}
