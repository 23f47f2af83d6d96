package processors

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

// A log that has lost its end, as that of a lone broker whose machine lost its power,
// is shorter than what was committed of it. Nobody stands still for that, and what had
// ended does not run again.
func TestALogThatLostItsEndIsWorkedOffFromWhatThereIs(t *testing.T) {
	t.Parallel()
	for name, lanes := range map[string][]event.Lane{"beside other lanes": nil, "alone": {event.Standard}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onEmbedded(t)
			before := w.request(event.Standard, "sim:tokens=3,ttft=0s,gap=0s", "")
			first := w.start("first", nil)
			w.facts(before)
			w.committed()
			first.end(t)

			// Both logs of its partition now end before what is committed, as if more
			// had been there.
			tp := kafka.TopicPartition{Topic: w.names.Requests(event.Standard), Partition: job.Partition(before, w.partitions)}
			text, err := offsets.Metadata{Bound: 1000, Epoch: 3}.Encode(500)
			if err != nil {
				t.Fatal(err)
			}
			w.commit(kafka.Commit{TopicPartition: tp, Next: 500, LeaderEpoch: -1, Metadata: text})

			second := w.start("second", func(cfg *Config) { cfg.Lanes = lanes })
			var after string
			for job.Partition(after, w.partitions) != tp.Partition || after == "" {
				after = w.request(event.Standard, "sim:tokens=3,ttft=0s,gap=0s", "")
			}
			told := w.outputs(before, after)
			for _, id := range []string{before, after} {
				if told[id].End != event.OutputCompleted || told[id].Attempt != 1 {
					t.Errorf("job %s: %+v", id, told[id])
				}
			}
			w.committed()
			second.end(t)
		})
	}
}

// TestAJobThatIsRequestedAgainIsReadWhole has a bound that lies within the output of a
// job that is done, as one that began meanwhile holds it there, and behind it a second
// request of the same job, as a client writes that was not answered.
func TestAJobThatIsRequestedAgainIsReadWhole(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	const data = `{"body":{"model":"sim:tokens=6,ttft=0s,gap=50ms","messages":[{"role":"user","content":"tell me of rivers"}]},"repeat":true}`
	id, err := job.Mint(time.Now(), "", w.partitions, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w.write(event.Standard, id, "", data)
	partition := job.Partition(id, w.partitions)
	first := w.start("first", nil)
	want := w.facts(id)[id][0].data
	w.committed()
	first.end(t)

	deltas := w.scan(w.names.Tokens(), event.Standard, partition)
	middle := deltas[len(deltas)/2]
	v, err := event.ScanHead(middle.Value)
	if err != nil || v.Type != event.OutputDelta || v.Seq < 2 {
		t.Fatalf("in the middle is %s %d, %v", v.Type, v.Seq, err)
	}
	text, err := offsets.Metadata{Bound: middle.Offset, Epoch: v.Epoch}.Encode(1)
	if err != nil {
		t.Fatal(err)
	}
	tp := kafka.TopicPartition{Topic: w.names.Requests(event.Standard), Partition: partition}
	w.commit(kafka.Commit{TopicPartition: tp, Next: 1, LeaderEpoch: -1, Metadata: text})
	w.write(event.Standard, id, "", data)

	second := w.start("second", nil)
	w.committed()
	second.end(t)
	facts := 0
	for _, rec := range w.records(w.names.Jobs(), partition) {
		if v, err := event.ScanHead(rec.Value); err == nil && v.Type.Terminal() {
			if facts++; string(v.Data) != want {
				t.Errorf("a fact says %s, want %s", v.Data, want)
			}
		}
	}
	if facts != 2 {
		t.Errorf("%d facts, want that of each owner", facts)
	}
}

// commit writes a commit of the processors' group while nobody is in it.
func (w *world) commit(c kafka.Commit) {
	w.t.Helper()
	group, err := w.cluster.NewGroup(kafka.GroupConfig{Group: w.names.Prefix + "processors", Topics: []string{c.Topic}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer group.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for given := int32(0); given < w.partitions; {
		p, err := group.Poll(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		given += int32(len(p.Assigned))
	}
	if err := group.Commit(ctx, c); err != nil {
		w.t.Fatal(err)
	}
}
