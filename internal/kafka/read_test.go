package kafka_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// client is a bare client for what only tests do.
func (g *ground) client(opts ...kgo.Opt) *kgo.Client {
	g.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(g.addr))...)
	g.no(err)
	g.Cleanup(cl.Close)
	return cl
}

// forget deletes what stands before an offset, as retention does.
func (g *ground) forget(tp kafka.TopicPartition, before int64) {
	g.Helper()
	var os kadm.Offsets
	os.AddOffset(tp.Topic, tp.Partition, before, -1)
	got, err := kadm.NewClient(g.client()).DeleteRecords(g.ctx, os)
	g.no(err)
	g.no(got.Error())
}

func TestATailFollowsAndUnfollowsManyPartitions(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("tokens", 12)
		for p := range int32(12) {
			g.fill(topic, p, 5)
		}
		tail := g.tail(kafka.TailConfig{Topic: topic})
		next := map[int32]int64{}
		for p := range int32(12) {
			tail.Follow(p, int64(p%5))
			next[p] = int64(p % 5)
		}
		ended := map[int32]bool{}
		read := func(enough func() bool) {
			g.Helper()
			for !enough() {
				chunks, err := tail.Poll(g.ctx)
				g.no(err)
				for _, ch := range chunks {
					g.no(ch.Err)
					for _, r := range ch.Records {
						if r.Partition != ch.Partition || r.Offset != next[ch.Partition] || string(r.Value) != strconv.FormatInt(r.Offset, 10) {
							g.Fatalf("partition %d: offset %d %q, want %d", ch.Partition, r.Offset, r.Value, next[ch.Partition])
						}
						next[ch.Partition]++
					}
					if ch.Next != next[ch.Partition] {
						g.Fatalf("partition %d goes on at %d, want %d", ch.Partition, ch.Next, next[ch.Partition])
					}
					ended[ch.Partition] = ch.Next == ch.HighWatermark
				}
			}
		}
		all := func(n int64) func() bool {
			return func() bool {
				for p := range int32(12) {
					if next[p] < n || !ended[p] {
						return false
					}
				}
				return true
			}
		}
		read(all(5))
		for p := int32(1); p < 12; p++ {
			tail.Unfollow(p)
		}
		p := g.producer(kafka.ProducerConfig{})
		for part := range int32(12) {
			_, err := p.Append(g.ctx, record(topic, part, "5"))
			g.no(err)
		}
		read(func() bool { return next[0] == 6 })
		for part := int32(1); part < 12; part++ {
			if next[part] != 5 {
				g.Fatalf("partition %d was read on after Unfollow", part)
			}
			tail.Follow(part, 5)
		}
		read(all(6))
		// Following anew moves.
		tail.Follow(0, 2)
		next[0] = 2
		read(func() bool { return next[0] == 6 })
		tail.Close()
		_, err := tail.Poll(g.ctx)
		g.is(err, kafka.ErrClosed)
	})
}

func TestATailTellsTheEndOfAnEmptyPartition(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		tail := g.tail(kafka.TailConfig{Topic: g.topic("empty", 1)})
		tail.Follow(0, 0)
		chunks, err := tail.Poll(g.ctx)
		g.no(err)
		if len(chunks) != 1 || len(chunks[0].Records) != 0 || chunks[0].Next != 0 || chunks[0].HighWatermark != 0 || chunks[0].Err != nil {
			g.Fatalf("chunks: %+v", chunks)
		}
		short, cancel := context.WithTimeout(g.ctx, 200*time.Millisecond)
		defer cancel()
		if got, err := tail.Poll(short); !errors.Is(err, context.DeadlineExceeded) {
			g.Fatalf("the end was told twice: %+v, %v", got, err)
		}
	})
}

func TestAPartitionThatComesInIsReadWhileAPollIsParked(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("tokens", 3)
		for p := range int32(3) {
			g.fill(topic, p, 1)
		}
		tail := g.tail(kafka.TailConfig{Topic: topic, FetchMaxWait: 30 * time.Second})
		next := func(part int32) {
			g.Helper()
			for {
				chunks, err := tail.Poll(g.ctx)
				g.no(err)
				for _, ch := range chunks {
					g.no(ch.Err)
					if ch.Partition == part && len(ch.Records) > 0 {
						return
					}
				}
			}
		}
		for part := range int32(3) { // the second and the third find a parked poll
			began := time.Now()
			tail.Follow(part, 0)
			next(part)
			if took := time.Since(began); took > 15*time.Second {
				g.Fatalf("partition %d was read after %v", part, took)
			} else {
				g.Logf("partition %d was read after %v", part, took)
			}
		}
	})
}

func TestAScanEndsWhereItWasToldDespiteGaps(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("gaps", 1)
		tp := kafka.TopicPartition{Topic: topic}
		// A transaction's marker takes an offset that no reader is given.
		cl := g.client(kgo.TransactionalID(g.prefix+"txn"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for range 3 {
			g.no(cl.BeginTransaction())
			for i := range 2 {
				g.no(cl.ProduceSync(g.ctx, &kgo.Record{Topic: topic, Value: []byte{byte('a' + i)}}).FirstErr())
			}
			g.no(cl.EndTransaction(g.ctx, kgo.TryCommit))
		}
		g.eventually("6 records and 3 markers", func() bool { // Apache writes the last marker a little later
			end, err := g.c.Offset(g.ctx, tp, kafka.End())
			g.no(err)
			return end == 9
		})
		scan := func(from, to int64) (got []int64) {
			g.Helper()
			for recs, err := range g.c.Scan(g.ctx, tp, from, to) {
				g.no(err)
				for _, r := range recs {
					got = append(got, r.Offset)
				}
			}
			return got
		}
		for _, c := range []struct {
			from, to int64
			want     []int64
		}{
			{0, 9, []int64{0, 1, 3, 4, 6, 7}},
			{2, 3, nil}, // a gap alone
			{1, 4, []int64{1, 3}},
			{8, 9, nil},
			{9, 9, nil},
			{5, 4, nil},
		} {
			if diff := cmp.Diff(c.want, scan(c.from, c.to)); diff != "" {
				g.Fatalf("[%d, %d) (-want +got):\n%s", c.from, c.to, diff)
			}
		}
		// One that the caller breaks off.
		for _, err := range g.c.Scan(g.ctx, tp, 0, 9) {
			g.no(err)
			break
		}
		for _, err := range g.c.Scan(g.ctx, tp, 0, 11) {
			if err != nil {
				g.is(err, kafka.ErrTruncated)
			}
		}
		canceled, cancel := context.WithCancel(g.ctx)
		cancel()
		for _, err := range g.c.Scan(canceled, tp, 9, 11) {
			if err == nil {
				g.Fatal("a canceled scan goes on")
			}
		}
	})
}

func TestAFetchPastTheEndWaitsAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("poll", 1)
		tp := kafka.TopicPartition{Topic: topic}
		g.fill(topic, 0, 1)
		p := g.producer(kafka.ProducerConfig{})
		type result struct {
			got kafka.Fetched
			err error
		}
		polled := make(chan result, 1)
		go func() {
			got, err := g.c.Fetch(g.ctx, tp, 1, 1<<20, 30*time.Second)
			polled <- result{got, err}
		}()
		// Other requests of the same cluster are answered meanwhile.
		for range 20 {
			began := time.Now()
			got, err := g.c.Fetch(g.ctx, tp, 0, 1<<20, 0)
			g.no(err)
			if len(got.Records) != 1 || got.Next != 1 || got.HighWatermark != 1 || got.LogStart != 0 {
				g.Fatalf("fetched %+v", got)
			}
			if took := time.Since(began); took > 15*time.Second {
				g.Fatalf("a fetch took %v while another waited", took)
			}
		}
		_, err := p.Append(g.ctx, record(topic, 0, "new"))
		g.no(err)
		r := <-polled
		g.no(r.err)
		if len(r.got.Records) != 1 || string(r.got.Records[0].Value) != "new" {
			g.Fatalf("the waiting fetch got %+v", r.got)
		}
		empty, err := g.c.Fetch(g.ctx, tp, 2, 1<<20, 30*time.Millisecond)
		g.no(err)
		if len(empty.Records) != 0 || empty.Next != 2 {
			g.Fatalf("fetched %+v from the end", empty)
		}
	})
}

func TestOffsetsByTime(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("times", 2)
		p := g.producer(kafka.ProducerConfig{})
		base := time.Now().Add(-time.Hour).Truncate(time.Second)
		for i := range 5 {
			rec := record(topic, 0, strconv.Itoa(i))
			rec.Time = base.Add(time.Duration(i) * time.Minute)
			_, err := p.Append(g.ctx, rec) // a batch each
			g.no(err)
		}
		for _, c := range []struct {
			at   kafka.At
			want map[int32]int64
		}{
			{kafka.Start(), map[int32]int64{0: 0, 1: 0}},
			{kafka.End(), map[int32]int64{0: 5, 1: 0}},
			{kafka.AtTime(base.Add(-time.Hour)), map[int32]int64{0: 0, 1: 0}},
			{kafka.AtTime(base.Add(2 * time.Minute)), map[int32]int64{0: 2, 1: 0}},
			{kafka.AtTime(base.Add(2*time.Minute + 1*time.Millisecond)), map[int32]int64{0: 3, 1: 0}},
			{kafka.AtTime(time.Now().Add(time.Hour)), map[int32]int64{0: 5, 1: 0}},
		} {
			got, err := g.c.Offsets(g.ctx, topic, c.at)
			g.no(err)
			if diff := cmp.Diff(c.want, got); diff != "" {
				g.Fatalf("%+v (-want +got):\n%s", c.at, diff)
			}
		}
		tp := kafka.TopicPartition{Topic: topic}
		g.forget(tp, 2)
		start, at, err := g.c.OldestTime(g.ctx, tp)
		g.no(err)
		if start != 2 || !at.Equal(base.Add(2*time.Minute)) {
			g.Fatalf("the oldest is %d at %v", start, at)
		}
		start, at, err = g.c.OldestTime(g.ctx, kafka.TopicPartition{Topic: topic, Partition: 1})
		g.no(err)
		if start != 0 || !at.IsZero() {
			g.Fatalf("the oldest of an empty log is %d at %v", start, at)
		}
		_, err = g.c.Offsets(g.ctx, g.prefix+"absent", kafka.End())
		g.is(err, kafka.ErrUnknownTopic)
	})
}

func TestTheCatalogueIsPlannedAppliedAndDescribed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		want := topics.Catalogue(topics.Options{Prefix: g.prefix, Partitions: 2})
		var names []string
		for _, w := range want {
			names = append(names, w.Name)
		}
		have, err := g.c.Describe(g.ctx, names...)
		g.no(err)
		g.is(topics.Check(want, have), topics.ErrMissing)
		plan := topics.Plan(want, have)
		if len(plan) != len(want) {
			g.Fatalf("plan: %v", plan)
		}
		g.no(g.c.Apply(g.ctx, plan))
		g.no(g.c.Apply(g.ctx, plan)) // somebody was quicker: no error
		have, err = g.c.Describe(g.ctx, names...)
		g.no(err)
		g.no(topics.Check(want, have))
		if again := topics.Plan(want, have); len(again) != 0 {
			g.Fatalf("a plan after it was applied: %v", again)
		}
		want[0].Configs["retention.ms"] = "1234567"
		plan = topics.Plan(want, have)
		if len(plan) != 1 || plan[0].Kind != topics.Alter {
			g.Fatalf("plan: %v", plan)
		}
		g.no(g.c.Apply(g.ctx, plan))
		// A broker tells of a change once the controller has told it.
		g.eventually("the new retention", func() bool {
			have, err = g.c.Describe(g.ctx, names...)
			g.no(err)
			i := slices.IndexFunc(have, func(d topics.Described) bool { return d.Name == want[0].Name })
			if have[i].ID == [16]byte{} || have[i].Replication != 1 {
				g.Fatalf("described: %+v", have[i])
			}
			return have[i].Configs["retention.ms"] == "1234567"
		})
		grown := topics.Catalogue(topics.Options{Prefix: g.prefix, Partitions: 3})
		g.is(topics.Check(grown, have), topics.ErrMismatch)
		g.is(g.c.Apply(g.ctx, topics.Plan(grown, have)), topics.ErrMismatch)
		if !g.real { // it checks no configuration's value
			return
		}
		bad := topics.Topic{Name: g.prefix + "bad", Partitions: 1, Replication: 1, Configs: map[string]string{"retention.ms": "soon"}}
		if err := g.c.Apply(g.ctx, []topics.Change{{Kind: topics.Create, Topic: bad}}); err == nil {
			g.Fatal("a retention of \"soon\" was taken")
		}
	})
}

func TestARecordKeepsItsBytesAcrossPolls(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("bytes", 1)
		g.fill(topic, 0, 2)
		tail := g.tail(kafka.TailConfig{Topic: topic, FetchMaxBytes: 1})
		tail.Follow(0, 0)
		var kept []event.Record
		for len(kept) < 2 {
			chunks, err := tail.Poll(g.ctx)
			g.no(err)
			for _, ch := range chunks {
				kept = append(kept, ch.Records...)
			}
		}
		if string(kept[0].Value) != "0" || string(kept[1].Value) != "1" {
			g.Fatalf("kept %q %q", kept[0].Value, kept[1].Value)
		}
	})
}
