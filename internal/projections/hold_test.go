package projections

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

const holdTopic = "p.requests.standard"

func heldRequest(partition int32, offset int64) event.Record {
	h := event.Head{Type: event.JobRequested, V: 1, Tenant: "default", Job: fmt.Sprintf("j-%d-%d", partition, offset)}
	return event.Record{Topic: holdTopic, Partition: partition, Offset: offset, Value: event.Append(nil, &h, []byte(`{}`))}
}

func heldFact(partition int32, offset int64, t event.Type) event.Record {
	h := event.Head{Type: t, V: 1, Tenant: "default", Job: fmt.Sprintf("j-%d-%d", partition, offset), Attempt: 1, Lane: event.Standard}
	return event.Record{Topic: "p.jobs", Partition: partition, Offset: offset, Value: event.Append(nil, &h, []byte(`{}`))}
}

// flood makes the first so many requests of a partition.
func flood(partition int32, n int64) []event.Record {
	all := make([]event.Record, 0, n)
	for o := range n {
		all = append(all, heldRequest(partition, o))
	}
	return all
}

// offsetsOf tells how many requests came out in their turn, or passed it, and
// holds them to their order.
func offsetsOf(t *testing.T, items []item) (requests int, last int64) {
	t.Helper()
	last = -1
	for i := range items {
		if items[i].Topic != holdTopic || items[i].turn == ahead {
			continue
		}
		if requests > 0 && items[i].Offset != last+1 {
			t.Errorf("request %d follows %d", items[i].Offset, last)
		}
		requests, last = requests+1, items[i].Offset
	}
	return requests, last
}

// aheadOf lists the requests that came out ahead of their turn, and holds each
// to standing before its job's fact.
func aheadOf(t *testing.T, items []item) (offsets []int64) {
	t.Helper()
	for i := range items {
		if items[i].turn != ahead {
			continue
		}
		offsets = append(offsets, items[i].Offset)
		if len(items[i].Value) == 0 || i+1 == len(items) || items[i+1].Topic != "p.jobs" || items[i+1].Offset != items[i].Offset {
			t.Errorf("request %d is not followed by its fact", items[i].Offset)
		}
	}
	return offsets
}

func TestAFewRequestsAreWrittenAtOnce(t *testing.T) {
	h, now := newHolder(topics.Names{Prefix: "p."}), time.Unix(1_800_000_000, 0)
	got := h.pass(append(flood(3, burst-1), heldFact(3, 0, event.JobCompleted)), now)
	if n, _ := offsetsOf(t, got); n != burst-1 || len(got) != burst || !h.next().IsZero() {
		t.Errorf("%d of %d requests, %d records, next at %v", n, burst-1, len(got), h.next())
	}
}

func TestABurstsRequestsLeaveWithTheirFirstFacts(t *testing.T) {
	h, now := newHolder(topics.Names{Prefix: "p."}), time.Unix(1_800_000_000, 0)
	tp := kafka.TopicPartition{Topic: holdTopic, Partition: 3}
	if got := h.pass(flood(3, burst+500), now); len(got) != 0 {
		t.Fatalf("%d records of a burst are not held", len(got))
	}
	if want := now.Add(holdFor); !h.next().Equal(want) {
		t.Errorf("due at %v, want %v", h.next(), want)
	}
	got := h.pass([]event.Record{
		heldFact(3, 4, event.JobStarted), heldFact(3, 0, event.JobFailed), heldFact(3, 1, event.JobCompleted), heldFact(5, 0, event.JobCompleted),
	}, now)
	if diff := cmp.Diff([]int64{4, 0, 1}, aheadOf(t, got)); diff != "" {
		t.Errorf("ahead (-want +got):\n%s", diff)
	}
	// The checkpoint moves behind the first two alone.
	if n, last := offsetsOf(t, got); n != 2 || last != 1 || len(got) != 3+4+2 {
		t.Errorf("%d requests up to %d, %d records in all", n, last, len(got))
	}
	// A fact that comes gives the others more time, but not for ever.
	now = now.Add(holdFor - time.Millisecond)
	h.pass([]event.Record{heldFact(3, 10, event.JobCompleted), heldFact(3, 4, event.JobCompleted)}, now)
	if want := now.Add(holdFor); !h.next().Equal(want) {
		t.Errorf("due at %v, want %v", h.next(), want)
	}
	for o := int64(11); h.next().Sub(now) > 0 && o < 100; o++ {
		now = now.Add(holdFor / 2)
		h.pass([]event.Record{heldFact(3, o, event.JobCompleted)}, now)
	}
	if h.drop(tp) || h.count != 0 || h.bytes != 0 || len(h.jobs) != 0 {
		t.Errorf("left: %d requests, %d bytes, %d jobs", h.count, h.bytes, len(h.jobs))
	}
}

func TestOneSlowJobDoesNotHoldAPartition(t *testing.T) {
	h, now := newHolder(topics.Names{Prefix: "p."}), time.Unix(1_800_000_000, 0)
	h.pass(append(flood(3, maxHeld), flood(4, burst)...), now)
	for o := int64(1); o < maxHeld/2; o++ {
		if n, _ := offsetsOf(t, h.pass([]event.Record{heldFact(3, o, event.JobCompleted)}, now)); n != 0 {
			t.Fatalf("%d requests with %d behind them gone", n, o)
		}
	}
	got := h.pass([]event.Record{heldFact(3, maxHeld/2, event.JobCompleted)}, now)
	if n, last := offsetsOf(t, got); n != maxHeld/2+1 || last != maxHeld/2 {
		t.Errorf("%d requests up to %d", n, last)
	}
}

func TestARequestOfABurstWaitsSoLongAndNoLonger(t *testing.T) {
	h, now := newHolder(topics.Names{Prefix: "p."}), time.Unix(1_800_000_000, 0)
	h.pass(flood(0, burst), now)
	h.pass(flood(1, burst), now.Add(time.Second))
	if got := h.pass(nil, now.Add(holdFor-1)); len(got) != 0 {
		t.Errorf("%d records before their time", len(got))
	}
	if n, last := offsetsOf(t, h.pass(nil, now.Add(holdFor))); n != burst || last != burst-1 {
		t.Errorf("%d requests up to %d", n, last)
	}
}

func TestAPartitionOfWhichEnoughIsHeldIsPaused(t *testing.T) {
	h, now := newHolder(topics.Names{Prefix: "p."}), time.Unix(1_800_000_000, 0)
	tp := kafka.TopicPartition{Topic: holdTopic, Partition: 3}
	h.pass(append(flood(3, maxHeld), flood(4, 5)...), now)
	pause, resume := h.turn()
	if diff := cmp.Diff([]kafka.TopicPartition{tp}, pause); diff != "" || resume != nil {
		t.Errorf("resumed %v, paused (-want +got):\n%s", resume, diff)
	}
	if pause, resume = h.turn(); pause != nil || resume != nil {
		t.Errorf("again: %v, %v", pause, resume)
	}
	ends := make([]event.Record, 0, maxHeld/4)
	for o := range int64(maxHeld / 4) {
		ends = append(ends, heldFact(3, o, event.JobCompleted))
	}
	h.pass(ends, now)
	pause, resume = h.turn()
	if diff := cmp.Diff([]kafka.TopicPartition{tp}, resume); diff != "" || pause != nil {
		t.Errorf("paused %v, resumed (-want +got):\n%s", pause, diff)
	}
	if out := h.flush(nil, tp); len(out) != maxHeld*3/4 {
		t.Errorf("%d are left of it", len(out))
	}
}

func TestMoreBytesThanAreHeldAreWrittenAtOnce(t *testing.T) {
	h, now := newHolder(topics.Names{Prefix: "p."}), time.Unix(1_800_000_000, 0)
	big := flood(3, burst)
	big[0].Value = make([]byte, maxHeldBytes+1) // poison as well
	if n, _ := offsetsOf(t, h.pass(big, now)); n != burst {
		t.Errorf("%d requests", n)
	}
}
