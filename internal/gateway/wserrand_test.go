package gateway

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/kafka"
)

// deaf is a Kafka of which one partition can be followed and not be read.
type deaf struct {
	Log
	partition int32
}

func (d *deaf) Fetch(ctx context.Context, tp kafka.TopicPartition, from int64, most int32, wait time.Duration) (kafka.Fetched, error) {
	if tp.Partition == d.partition {
		<-ctx.Done()
		return kafka.Fetched{}, ctx.Err()
	}
	return d.Log.Fetch(ctx, tp, from, most, wait) //nolint:wrapcheck // the log's own
}

// TestSubscriptionsOfAPartitionThatDoesNotAnswerHoldUpNoOther has a patience longer
// than the test may take.
func TestSubscriptionsOfAPartitionThatDoesNotAnswerHoldUpNoOther(t *testing.T) {
	g := onOne(t, Config{BudgetBytes: 1})
	g.stop()
	g.gateway.cfg.Patience = time.Hour
	d := &deaf{g.cluster, 1}
	g.gateway = newGateway(g.gateway.cfg, d, func(tc kafka.TailConfig) (Tail, error) { return g.cluster.NewTail(tc) })
	g.run()
	for _, part := range []int32{1, 2} {
		a := g.authorOf(fmt.Sprintf("of-%d", part), part)
		a.whole(3)
	}
	c := g.dial()
	defer c.close()
	from := func(sub string, part int) {
		c.say(fmt.Sprintf(`{"op":"subscribe","sub":%q,"topic":"tokens","partition":%d,"offset":"earliest"}`, sub, part))
		c.want("subscribed")
	}
	for i := range 2 * maxErrands {
		from(fmt.Sprintf("silent-%d", i), 1)
	}
	from("another", 2)
	if all, _ := c.atLeast(5); len(all) < 5 {
		t.Errorf("got %d events, want 5", len(all))
	}
}

func TestPartitionsThatDidNotAnswerAreAskedInTurnAndNotByAllErrands(t *testing.T) {
	var a errands
	add := func(parts ...int32) {
		for _, p := range parts {
			a.waiting = append(a.waiting, errand{partition: p})
		}
	}
	take := func(want ...int32) (taken []errand) {
		t.Helper()
		for e, ok := a.next(); ok; e, ok = a.next() {
			taken = append(taken, e)
		}
		if len(taken) != len(want) {
			t.Fatalf("%v run, want those of %v", taken, want)
		}
		for i := range want {
			if taken[i].partition != want[i] {
				t.Errorf("%v run, want those of %v", taken, want)
			}
		}
		return taken
	}
	end := func(answered bool, taken ...errand) {
		for i := range taken {
			a.done(&taken[i], answered)
		}
	}
	add(1, 1, 1, 1, 2, 3)
	end(false, take(1, 1, 2)...) // no partition has the last one
	running := take(3, 1, 1)     // 1 and 2 are silent
	end(true, running[0])
	add(2, 2, 1, 4)
	end(true, take(4)...) // the silent ones have not the last one
	end(false, running[1:]...)
	end(true, take(2, 2)...) // which was asked longer ago than 1
	if len(a.silent) != 1 {
		t.Errorf("%v are silent, want 1 alone", a.silent)
	}
}
