package ingest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/admission"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

// owners write the pulses of a lane's partitions, as processors do.
type owners struct {
	t        *testing.T
	producer *kafka.Producer
	topic    string
}

func (o *owners) say(lane event.Lane, epoch int64, p event.Pulse) {
	o.t.Helper()
	_, err := o.producer.Append(o.t.Context(), event.Record{
		Topic: o.topic, Key: fmt.Appendf(nil, "%s/%d", lane, p.Partition), Value: pulse(lane, epoch, p), Time: time.Now(),
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

// until does something until it is so, for a minute at most.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a minute later it is still not so that %s", what)
		}
	}
}

// TestADeadOwnerIsSeenBehindElevenHealthyOnesOnKafka: of twelve partitions that
// are written to alike, the one whose owner is silent sheds, and opens again
// once another works.
func TestADeadOwnerIsSeenBehindElevenHealthyOnesOnKafka(t *testing.T) {
	const partitions, dead = 12, 5
	names := topics.Names{Prefix: testenv.Prefix(t)}
	cluster, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{testenv.Kafka(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	if err := cluster.Apply(t.Context(), topics.Plan(topics.Catalogue(topics.Options{Prefix: names.Prefix, Partitions: partitions}), nil)); err != nil {
		t.Fatal(err)
	}
	producer, err := cluster.NewProducer(kafka.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	o := &owners{t: t, producer: producer, topic: names.Pulse()}
	// It died some time ago, and this is its last word.
	o.say(event.Standard, 3, event.Pulse{Partition: dead, Owner: "dead"})

	load, err := NewLoad(LoadConfig{Log: cluster, Names: names, Partitions: partitions, Budgets: map[event.Lane]admission.Limits{
		event.Standard: {Wait: 3 * time.Second, Outstanding: 100_000},
	}})
	if err != nil {
		t.Fatal(err)
	}
	follow(t, load.Run)
	s, err := New(Config{Producer: producer, Names: names, Partitions: partitions, Admission: load})
	if err != nil {
		t.Fatal(err)
	}

	consumed, said := [partitions]int64{}, [partitions]time.Time{}
	healthy := func() { // they work off what they get
		for p := range int32(partitions) {
			if p != dead {
				said[p] = time.Now()
				o.say(event.Standard, 1, event.Pulse{Partition: p, Owner: "alive", Consumed: consumed[p]})
			}
		}
	}
	// One request for each partition, by a conversation that falls on it.
	conversation := [partitions]string{}
	for i, left := 0, partitions; left > 0; i++ {
		name := fmt.Sprintf("c%d", i)
		if p := job.Partition(name, partitions); conversation[p] == "" {
			conversation[p] = name
			left--
		}
	}
	round := func() (shed []int32) {
		for p := range int32(partitions) {
			res, err := s.Submit(t.Context(), "default", job.Request{Body: []byte(`{"model":"sim"}`), Conversation: conversation[p]}, job.SubmitOptions{})
			switch {
			case err == nil:
				consumed[p] = res.Request.Offset + 1
			case reasonOf(t, err) == "wait" && p != dead && time.Since(said[p]) > time.Second:
				// This machine stood still, and its owner was as good as silent.
			case reasonOf(t, err) == "wait":
				shed = append(shed, p)
				if f := fault.From(err); !strings.Contains(f.Message, "no processor works on it") || f.RetryAfter != 5*time.Second {
					t.Errorf("%v after %s", err, f.RetryAfter)
				}
			default:
				t.Fatalf("partition %d: %v", p, err)
			}
		}
		healthy()
		return shed
	}
	if shed := round(); shed != nil {
		t.Fatalf("the first requests were shed by %v", shed)
	}
	until(t, "the dead owner's partition sheds", func() bool {
		shed := round()
		for _, p := range shed {
			if p != dead {
				t.Fatalf("partition %d sheds, whose owner is healthy", p)
			}
		}
		return len(shed) == 1
	})
	if st := load.view.Load().Status(lpOf(event.Standard, dead)); st.Owner != admission.Silent || st.Outstanding == 0 {
		t.Errorf("%+v", st)
	}
	until(t, "it opens once another has taken over", func() bool {
		o.say(event.Standard, 4, event.Pulse{Partition: dead, Owner: "heir", Consumed: consumed[dead]})
		return round() == nil
	})
}
