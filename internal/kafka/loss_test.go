package kafka_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/penstock-io/penstock/internal/kafka"
)

func TestWhatRetentionTookIsToldWithTheEarliest(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("retention", 1)
		tp := kafka.TopicPartition{Topic: topic}
		g.fill(topic, 0, 10)
		g.forget(tp, 4)
		check := func(err error) {
			g.Helper()
			g.is(err, kafka.ErrOutOfRange)
			var oor *kafka.OutOfRangeError
			if !errors.As(err, &oor) || oor.Earliest != 4 || oor.Offset != 1 {
				g.Fatalf("%v does not tell the earliest, 4", err)
			}
		}
		_, err := g.c.Fetch(g.ctx, tp, 1, 1<<20, 0)
		check(err)
		for _, err := range g.c.Scan(g.ctx, tp, 1, 10) {
			check(err)
		}
		tail := g.tail(kafka.TailConfig{Topic: topic})
		tail.Follow(0, 1)
		chunks, err := tail.Poll(g.ctx)
		g.no(err)
		check(chunks[0].Err)
		if chunks[0].Next != 1 {
			g.Fatalf("it stopped at %d, want 1", chunks[0].Next)
		}
		tail.Follow(0, 4)
		chunks, err = tail.Poll(g.ctx)
		g.no(err)
		if chunks[0].Err != nil || len(chunks[0].Records) != 6 {
			g.Fatalf("followed anew: %+v", chunks[0])
		}
		// A group with a commit that retention overtook.
		gr := g.group(kafka.GroupConfig{
			Group: g.prefix + "group", Topics: []string{topic},
			StartAt: func(context.Context, []kafka.TopicPartition) (map[kafka.TopicPartition]int64, error) {
				return map[kafka.TopicPartition]int64{tp: 1}, nil
			},
		})
		g.until(gr, "the fault", func(p kafka.Poll) bool {
			if len(p.Faults) == 0 {
				return false
			}
			check(p.Faults[0].Err)
			return true
		})
		gr.Seek(tp, 9)
		g.until(gr, "the last record", func(p kafka.Poll) bool { return len(p.Records) == 1 })
	})
}

func TestATruncatedLogIsTold(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("truncated", 2)
		tp := kafka.TopicPartition{Topic: topic}
		g.fill(topic, 0, 3)
		// A position beyond the end: what stood there is gone.
		_, err := g.c.Fetch(g.ctx, tp, 7, 1<<20, 0)
		g.is(err, kafka.ErrTruncated)
		tail := g.tail(kafka.TailConfig{Topic: topic})
		tail.Follow(0, 7)
		chunks, err := tail.Poll(g.ctx)
		g.no(err)
		g.is(chunks[0].Err, kafka.ErrTruncated)
		// A position of a history that this log does not have.
		g.is(g.c.CheckEpoch(g.ctx, tp, 3, 99), kafka.ErrTruncated)
		got, err := g.c.Fetch(g.ctx, tp, 0, 1<<20, 0)
		g.no(err)
		epoch := got.Records[2].LeaderEpoch
		g.is(g.c.CheckEpoch(g.ctx, tp, 5, epoch), kafka.ErrTruncated)
		g.no(g.c.CheckEpoch(g.ctx, tp, 3, epoch))
		g.no(g.c.CheckEpoch(g.ctx, tp, 3, -1))
		tail.FollowEpoch(0, 3, 99)
		chunks, err = tail.Poll(g.ctx)
		g.no(err)
		g.is(chunks[0].Err, kafka.ErrTruncated)
		tail.FollowEpoch(0, 1, epoch)
		chunks, err = tail.Poll(g.ctx)
		g.no(err)
		if chunks[0].Err != nil || len(chunks[0].Records) != 2 {
			g.Fatalf("followed anew: %+v", chunks[0])
		}
		tail.Follow(5, 0)
		chunks, err = tail.Poll(g.ctx)
		g.no(err)
		g.is(chunks[0].Err, kafka.ErrUnknownTopic)
	})
}

// TestALogOfTheSameLengthInWhichALeaderNeverWasIsTruncated has a log as an unclean
// election leaves it: what another leader wrote meanwhile is not in it.
func TestALogOfTheSameLengthInWhichALeaderNeverWasIsTruncated(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	g := newGround(t, broker.ListenAddrs()[0], false)
	topic := g.topic("unclean", 1)
	tp := kafka.TopicPartition{Topic: topic}
	g.fill(topic, 0, 3)
	broker.ShufflePartitionLeaders() // the leader whose records are lost
	broker.ShufflePartitionLeaders()
	g.fill(topic, 0, 3)
	got, err := g.c.Fetch(g.ctx, tp, 0, 1<<20, 0)
	g.no(err)
	first, last := got.Records[0].LeaderEpoch, got.Records[5].LeaderEpoch
	if last != first+2 {
		t.Fatalf("the epochs are %d and %d", first, last)
	}
	g.is(g.c.CheckEpoch(g.ctx, tp, 2, first+1), kafka.ErrTruncated)
	g.is(g.c.CheckEpoch(g.ctx, tp, 4, first), kafka.ErrTruncated)
	g.no(g.c.CheckEpoch(g.ctx, tp, 3, first))
	g.no(g.c.CheckEpoch(g.ctx, tp, 6, last))
	tail := g.tail(kafka.TailConfig{Topic: topic})
	tail.FollowEpoch(0, 2, first+1)
	chunks, err := tail.Poll(g.ctx)
	g.no(err)
	g.is(chunks[0].Err, kafka.ErrTruncated)
}

func TestARecreatedTopicIsTold(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("again", 1)
		g.fill(topic, 0, 3)
		id, err := g.c.TopicID(g.ctx, topic)
		g.no(err)
		// Its link is frozen while the topic is made anew: one who sees for long that
		// there is none is told that.
		link := newLink()
		tail, err := g.open(link).NewTail(kafka.TailConfig{Topic: topic})
		g.no(err)
		g.Cleanup(tail.Close)
		tail.Follow(0, 0)
		chunks, err := tail.Poll(g.ctx)
		g.no(err)
		if len(chunks[0].Records) != 3 {
			g.Fatalf("read %+v", chunks)
		}
		link.freeze()
		g.no(g.c.DeleteTopics(g.ctx, topic, g.prefix+"absent"))
		g.eventually("the topic is gone", func() bool {
			_, err := g.c.TopicID(g.ctx, topic)
			return errors.Is(err, kafka.ErrUnknownTopic)
		})
		g.topic("again", 1)
		g.fill(topic, 0, 5)
		now, err := g.c.TopicID(g.ctx, topic)
		g.no(err)
		if now == id {
			g.Fatal("a recreated topic has the id of the old one")
		}
		link.thaw()
		chunks, err = tail.Poll(g.ctx)
		g.no(err)
		g.is(chunks[0].Err, kafka.ErrRecreated)
		// A cursor that remembers the old id.
		old := g.tail(kafka.TailConfig{Topic: topic, TopicID: id})
		old.Follow(0, 0)
		chunks, err = old.Poll(g.ctx)
		g.no(err)
		g.is(chunks[0].Err, kafka.ErrRecreated)
	})
}

func TestADeletedTopicIsTold(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("gone", 1)
		g.fill(topic, 0, 1)
		tail := g.tail(kafka.TailConfig{Topic: topic})
		tail.Follow(0, 0)
		_, err := tail.Poll(g.ctx)
		g.no(err)
		g.no(g.c.DeleteTopics(g.ctx, topic))
		chunks, err := tail.Poll(g.ctx)
		g.no(err)
		g.is(chunks[0].Err, kafka.ErrUnknownTopic)
	})
}

func TestReadingGoesOnAfterTheBrokersWereAway(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("away", 1)
		g.fill(topic, 0, 1)
		tail := g.tail(kafka.TailConfig{Topic: topic})
		tail.Follow(0, 0)
		_, err := tail.Poll(g.ctx)
		g.no(err)
		g.link.cut(true)
		short, cancel := context.WithTimeout(g.ctx, 200*time.Millisecond)
		defer cancel()
		g.is(g.c.Ping(short), kafka.ErrUnavailable)
		_, err = g.c.Fetch(short, kafka.TopicPartition{Topic: topic}, 0, 1<<20, 0)
		g.is(err, kafka.ErrUnavailable)
		g.link.cut(false)
		g.no(g.c.Ping(g.ctx))
		g.fill(topic, 0, 1)
		chunks, err := tail.Poll(g.ctx)
		g.no(err)
		if chunks[0].Err != nil || len(chunks[0].Records) != 1 {
			g.Fatalf("read %+v", chunks)
		}
	})
}
