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

// offsetsOf tells what of the requests came out, and holds it to their order.
func offsetsOf(t *testing.T, records []event.Record) (requests int, last int64) {
	t.Helper()
	last = -1
	for i := range records {
		if records[i].Topic != holdTopic {
			continue
		}
		if requests > 0 && records[i].Offset != last+1 {
			t.Errorf("request %d follows %d", records[i].Offset, last)
		}
		requests, last = requests+1, records[i].Offset
	}
	return requests, last
}

func TestAFewRequestsAreWrittenAtOnce(t *testing.T) {
	h, now := newHolder(topics.Names{Prefix: "p."}), time.Unix(1_800_000_000, 0)
	got := h.pass(append(flood(3, burst-1), heldFact(3, 0, event.JobCompleted)), now)
	if n, _ := offsetsOf(t, got); n != burst-1 || len(got) != burst || !h.next().IsZero() {
		t.Errorf("%d of %d requests, %d records, next at %v", n, burst-1, len(got), h.next())
	}
}

func TestABurstsRequestsLeaveInOrderWithTheirEnds(t *testing.T) {
	h, now := newHolder(topics.Names{Prefix: "p."}), time.Unix(1_800_000_000, 0)
	tp := kafka.TopicPartition{Topic: holdTopic, Partition: 3}
	if got := h.pass(flood(3, burst+500), now); len(got) != 0 {
		t.Fatalf("%d records of a burst are not held", len(got))
	}
	if want := now.Add(holdFor); !h.next().Equal(want) {
		t.Errorf("due at %v, want %v", h.next(), want)
	}
	got := h.pass([]event.Record{heldFact(3, 4, event.JobStarted), heldFact(3, 9, event.JobFailed), heldFact(5, 0, event.JobCompleted)}, now)
	if n, last := offsetsOf(t, got); n != 10 || last != 9 || len(got) != 13 {
		t.Errorf("%d requests up to %d, %d records in all", n, last, len(got))
	}
	// An end that comes gives those behind it more time, but not for ever.
	now = now.Add(holdFor - time.Millisecond)
	h.pass([]event.Record{heldFact(3, 10, event.JobCompleted)}, now)
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
	h.pass([]event.Record{heldFact(3, maxHeld/4-1, event.JobCompleted)}, now)
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
