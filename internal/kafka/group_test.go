package kafka_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/penstock-io/penstock/internal/kafka"
)

// seen is what a member was told: the partitions that it has, and the records
// of each.
type seen struct {
	assigned map[kafka.TopicPartition]kafka.Assignment
	records  map[kafka.TopicPartition][]string
}

func newSeen() *seen {
	return &seen{assigned: map[kafka.TopicPartition]kafka.Assignment{}, records: map[kafka.TopicPartition][]string{}}
}

// take notes a Poll; records of a partition that is not assigned end the test.
func (s *seen) take(g *ground, p kafka.Poll) {
	g.Helper()
	for _, a := range p.Assigned {
		if _, ok := s.assigned[a.TopicPartition]; ok {
			g.Fatalf("%s was assigned twice", a.TopicPartition)
		}
		s.assigned[a.TopicPartition] = a
	}
	var gone []kafka.TopicPartition
	gone = append(gone, p.Lost...)
	if p.Revoked != nil {
		gone = append(gone, p.Revoked.Partitions...)
	}
	for _, tp := range gone {
		if _, ok := s.assigned[tp]; !ok {
			g.Fatalf("%s was taken away and never assigned", tp)
		}
		delete(s.assigned, tp)
	}
	for _, r := range p.Records {
		tp := kafka.TopicPartition{Topic: r.Topic, Partition: r.Partition}
		if _, ok := s.assigned[tp]; !ok {
			g.Fatalf("a record of %s, which is not assigned", tp)
		}
		s.records[tp] = append(s.records[tp], string(r.Value))
	}
	for _, f := range p.Faults {
		g.Fatalf("%s stopped: %v", f.TopicPartition, f.Err)
	}
}

func (s *seen) total() int {
	n := 0
	for _, recs := range s.records {
		n += len(recs)
	}
	return n
}

func TestAGroupReadsCommitsAndHandsOver(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("work", 4)
		for p := range int32(4) {
			g.fill(topic, p, 20)
		}
		name := g.prefix + "group"
		first := g.group(kafka.GroupConfig{Group: name, Topics: []string{topic}, MaxPollRecords: 7})
		a := newSeen()
		g.until(first, "all records", func(p kafka.Poll) bool {
			if len(p.Records) > 7 {
				g.Fatalf("a Poll of %d records", len(p.Records))
			}
			a.take(g, p)
			return a.total() == 80
		})
		for tp, as := range a.assigned {
			if as.Next != 0 || as.Committed || as.Metadata != "" {
				g.Fatalf("%s begins at %+v", tp, as)
			}
		}
		var want []string
		for i := range 20 {
			want = append(want, strconv.Itoa(i))
		}
		for tp, got := range a.records {
			if diff := cmp.Diff(want, got); diff != "" {
				g.Fatalf("%s (-want +got):\n%s", tp, diff)
			}
			// Offsets 3, 5 and 7 are done out of order: what is above the
			// watermark goes into the metadata.
			g.no(first.Commit(g.ctx, kafka.Commit{TopicPartition: tp, Next: 3, Metadata: "done 5 7"}))
		}
		tp0 := kafka.TopicPartition{Topic: topic}
		g.is(first.Commit(g.ctx, kafka.Commit{TopicPartition: tp0, Next: 4, Metadata: strings.Repeat("m", kafka.MaxMetadataBytes+1)}), kafka.ErrMetadataTooLarge)
		g.no(first.Commit(g.ctx, kafka.Commit{TopicPartition: tp0, Next: 4, Metadata: strings.Repeat("m", kafka.MaxMetadataBytes)}))
		committed, err := g.c.Committed(g.ctx, name)
		g.no(err)
		if cm := committed[tp0]; len(committed) != 4 || cm.Next != 4 || len(cm.Metadata) != kafka.MaxMetadataBytes {
			g.Fatalf("committed: %+v", committed)
		}
		g.no(first.Leave(g.ctx))
		_, err = first.Poll(g.ctx)
		g.is(err, kafka.ErrClosed)

		second := g.group(kafka.GroupConfig{Group: name, Topics: []string{topic}})
		b := newSeen()
		g.until(second, "the rest", func(p kafka.Poll) bool { b.take(g, p); return b.total() == 3*17+16 })
		one := b.assigned[kafka.TopicPartition{Topic: topic, Partition: 1}]
		if one.Next != 3 || !one.Committed || one.Metadata != "done 5 7" {
			g.Fatalf("the second member begins at %+v", one)
		}
	})
}

func TestAHandOverWaitsForDone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("work", 2)
		g.fill(topic, 0, 1)
		g.fill(topic, 1, 1)
		cfg := kafka.GroupConfig{Group: g.prefix + "group", Topics: []string{topic}}
		first := g.group(cfg)
		a := newSeen()
		g.until(first, "both partitions", func(p kafka.Poll) bool { a.take(g, p); return a.total() == 2 })

		second := g.group(cfg)
		var rev *kafka.Revocation
		g.until(first, "a revocation", func(p kafka.Poll) bool { a.take(g, p); rev = p.Revoked; return rev != nil })
		if len(rev.Partitions) != 1 {
			g.Fatalf("revoked: %v", rev.Partitions)
		}
		short, cancel := context.WithTimeout(g.ctx, 700*time.Millisecond)
		defer cancel()
		p, err := second.Poll(short)
		g.is(err, context.DeadlineExceeded)
		if len(p.Assigned) != 0 {
			g.Fatalf("assigned before Done: %v", p.Assigned)
		}
		// Until Done the partition may be committed and heartbeats are answered.
		g.beats(first)
		g.no(first.Commit(g.ctx, kafka.Commit{TopicPartition: rev.Partitions[0], Next: 1, Metadata: "handed over"}))
		began := time.Now()
		rev.Done()
		rev.Done()
		b := newSeen()
		ctx, stop := context.WithCancel(g.ctx)
		defer stop()
		polled := make(chan struct{})
		go func() { // the first member polls on
			defer close(polled)
			for {
				if _, err := first.Poll(ctx); err != nil {
					return
				}
			}
		}()
		g.until(second, "its partition", func(p kafka.Poll) bool { b.take(g, p); return len(b.assigned) == 1 })
		g.Logf("assigned %v after Done", time.Since(began))
		if as := b.assigned[rev.Partitions[0]]; as.Metadata != "handed over" || as.Next != 1 {
			g.Fatalf("the second member begins at %+v", as)
		}
		g.is(first.Commit(g.ctx, kafka.Commit{TopicPartition: rev.Partitions[0], Next: 1}), kafka.ErrNotMember)
		stop()
		<-polled
	})
}

func TestARebalanceDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("work", 2)
		cfg := kafka.GroupConfig{Group: g.prefix + "group", Topics: []string{topic}, RebalanceTimeout: time.Second}
		first := g.group(cfg)
		a := newSeen()
		g.until(first, "both partitions", func(p kafka.Poll) bool { a.take(g, p); return len(a.assigned) == 2 })
		second := g.group(cfg)
		b := newSeen()
		g.until(second, "a partition that nobody released", func(p kafka.Poll) bool { b.take(g, p); return len(b.assigned) > 0 })
	})
}

// TestTheBrokerItselfRefusesLongerMetadata: the bound that Group.Commit keeps is
// the broker's own, offset.metadata.max.bytes as Apache has it by default. The
// embedded broker has none, so there Group.Commit is all that keeps it.
func TestTheBrokerItselfRefusesLongerMetadata(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("work", 1)
		admin := kadm.NewClient(g.client())
		commit := func(n int) error {
			offsets := kadm.Offsets{}
			offsets.Add(kadm.Offset{Topic: topic, At: 0, LeaderEpoch: -1, Metadata: strings.Repeat("m", n)})
			resps, err := admin.CommitOffsets(g.ctx, g.prefix+"nobody-is-in-it", offsets)
			g.no(err)
			return resps.Error()
		}
		g.no(commit(kafka.MaxMetadataBytes))
		if err := commit(kafka.MaxMetadataBytes + 1); g.real != errors.Is(err, kerr.OffsetMetadataTooLarge) {
			g.Fatalf("a byte more: %v", err)
		}
	})
}

// beats sends a heartbeat, and wants it answered to the member that there is.
func (g *ground) beats(gr *kafka.Group) {
	g.Helper()
	member, err := gr.Heartbeat(g.ctx)
	g.no(err)
	if member != gr.Member() || member == "" {
		g.Fatalf("%q was answered, and the member is %q", member, gr.Member())
	}
}

func TestEvictionReassignsAtOnceAndIsTold(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("work", 2)
		cfg := kafka.GroupConfig{Group: g.prefix + "group", Topics: []string{topic}, SessionTimeout: 45 * time.Second}
		// A silent member: its link to the brokers is frozen, first so that it
		// cannot have joined, and then while it is evicted.
		silentLink := newLink()
		silentCluster := g.open(silentLink)
		silentLink.freeze()
		silent, err := silentCluster.NewGroup(cfg)
		g.no(err)
		g.Cleanup(silent.Close)
		_, err = silent.Heartbeat(g.ctx)
		g.is(err, kafka.ErrNotMember)
		silentLink.thaw()
		a := newSeen()
		g.until(silent, "both partitions", func(p kafka.Poll) bool { a.take(g, p); return len(a.assigned) == 2 })
		g.beats(silent)
		member := silent.Member()
		silentLink.freeze()

		other := g.group(cfg)
		g.is(g.c.Evict(g.ctx, cfg.Group, "nobody"), kafka.ErrNotMember)
		began := time.Now()
		g.no(g.c.Evict(g.ctx, cfg.Group, member))
		b := newSeen()
		g.until(other, "both partitions", func(p kafka.Poll) bool { b.take(g, p); return len(b.assigned) == 2 })
		took := time.Since(began)
		g.Logf("reassigned %v after the eviction", took)
		if took > 30*time.Second {
			g.Fatalf("that is the session timeout, not the eviction")
		}
		g.beats(other)
		silentLink.thaw()
		g.until(silent, "its loss", func(p kafka.Poll) bool { a.take(g, p); return len(p.Lost) == 2 })
	})
}

func TestAPauseHoldsAndEndsWhenThePartitionLeaves(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("work", 2)
		cfg := kafka.GroupConfig{Group: g.prefix + "group", Topics: []string{topic}}
		first := g.group(cfg)
		a := newSeen()
		g.until(first, "both partitions", func(p kafka.Poll) bool { a.take(g, p); return len(a.assigned) == 2 })
		both := []kafka.TopicPartition{{Topic: topic}, {Topic: topic, Partition: 1}}
		first.Pause(both...)
		first.Pause(both[0]) // twice is once
		g.fill(topic, 0, 3)
		g.fill(topic, 1, 3)
		short, cancel := context.WithTimeout(g.ctx, 300*time.Millisecond)
		defer cancel()
		p, err := first.Poll(short)
		g.is(err, context.DeadlineExceeded)
		if len(p.Records) > 0 {
			g.Fatal("a paused partition was read")
		}
		first.Resume(both[0])
		g.until(first, "what was resumed", func(p kafka.Poll) bool { a.take(g, p); return a.total() == 3 })
		if len(a.records[both[1]]) > 0 {
			g.Fatal("the partition that is still paused was read")
		}
		// A rebalance takes one of them away and brings it back.
		second := g.group(cfg)
		var rev *kafka.Revocation
		g.until(first, "a revocation", func(p kafka.Poll) bool { a.take(g, p); rev = p.Revoked; return rev != nil })
		moved := rev.Partitions[0]
		first.Pause(moved)
		rev.Done()
		b := newSeen()
		g.until(second, "the partition", func(p kafka.Poll) bool { b.take(g, p); return len(b.records[moved]) == 3 })
		g.no(second.Leave(g.ctx))
		a.records = newSeen().records
		g.until(first, "the partition again", func(p kafka.Poll) bool { a.take(g, p); return len(a.records[moved]) == 3 })
	})
}

func TestAGroupBeginsWhereItIsTold(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("work", 2)
		g.fill(topic, 0, 10)
		g.fill(topic, 1, 10)
		fails := 1
		gr := g.group(kafka.GroupConfig{
			Group: g.prefix + "group", Topics: []string{topic},
			StartAt: func(_ context.Context, tps []kafka.TopicPartition) (map[kafka.TopicPartition]int64, error) {
				if fails > 0 {
					fails--
					return nil, errors.New("the database is away")
				}
				starts := map[kafka.TopicPartition]int64{}
				for _, tp := range tps {
					if tp.Partition == 1 {
						starts[tp] = 7
					}
				}
				return starts, nil
			},
		})
		if _, err := gr.Poll(g.ctx); err == nil || !strings.Contains(err.Error(), "the database is away") {
			g.Fatalf("error is %v, want what StartAt said", err)
		}
		a := newSeen()
		g.until(gr, "13 records", func(p kafka.Poll) bool { a.take(g, p); return a.total() == 13 })
		zero, one := kafka.TopicPartition{Topic: topic}, kafka.TopicPartition{Topic: topic, Partition: 1}
		if a.assigned[zero].Next != 0 || a.assigned[one].Next != 7 {
			g.Fatalf("assigned: %+v", a.assigned)
		}
		gr.Seek(one, 5)
		gr.Seek(kafka.TopicPartition{Topic: topic, Partition: 9}, 5) // not ours: nothing
		g.until(gr, "the records again", func(p kafka.Poll) bool { a.take(g, p); return a.total() == 18 })
		if want := []string{"7", "8", "9", "5", "6", "7", "8", "9"}; !slices.Equal(a.records[one], want) {
			g.Fatalf("read %v, want %v", a.records[one], want)
		}
	})
}
