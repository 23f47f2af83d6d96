package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// yard is a broker with topics, whose dead letters a test writes itself.
type yard struct {
	t        *testing.T
	c        call
	cluster  *kafka.Cluster
	producer *kafka.Producer
}

func newYard(t *testing.T) *yard {
	t.Helper()
	addr := embeddedBroker(t)
	y := &yard{t: t, c: call{env: map[string]string{"PENSTOCK_KAFKA": addr, "PENSTOCK_PARTITIONS": "2"}}}
	y.run("topic", "apply").want(t, exitDone)
	var err error
	if y.cluster, err = kafka.Open(t.Context(), kafka.Config{Brokers: []string{addr}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(y.cluster.Close)
	if y.producer, err = y.cluster.NewProducer(kafka.ProducerConfig{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(y.producer.Close)
	return y
}

func (y *yard) run(args ...string) outcome { y.t.Helper(); return y.c.run(y.t, args...) }

func (y *yard) write(recs ...event.Record) []kafka.Ack {
	y.t.Helper()
	acks, err := y.producer.Append(y.t.Context(), recs...)
	if err != nil {
		y.t.Fatal(err)
	}
	return acks
}

// bury writes dead letters, one a minute.
func (y *yard) bury(recs ...event.Record) {
	y.t.Helper()
	for i := range recs {
		now := time.Unix(1_790_000_000+60*int64(i), 0)
		recs[i].Offset, recs[i].Time = int64(100+i), now
		d := event.Bury(&recs[i], "processors", fmt.Sprintf("reason %d: no\tJSON\x1b[31m", i), 1<<20)
		y.write(d.Record("penstock.dead", now))
	}
}

// at reads one record.
func (y *yard) at(topic string, partition int32, offset int64) event.Record {
	y.t.Helper()
	ctx, cancel := context.WithTimeout(y.t.Context(), 20*time.Second)
	defer cancel()
	got, err := y.cluster.Fetch(ctx, kafka.TopicPartition{Topic: topic, Partition: partition}, offset, 1<<20, time.Second)
	if err != nil || len(got.Records) == 0 {
		y.t.Fatalf("%s/%d at %d: %v, %v", topic, partition, offset, got, err)
	}
	return got.Records[0]
}

const standard, batch = "penstock.requests.standard", "penstock.requests.batch"

func TestDeadLettersAreListed(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	if o := y.run("dead", "list").want(t, exitDone); strings.Count(o.stdout, "\n") != 1 {
		t.Errorf("of none: %s", o.stdout)
	}
	y.bury(
		event.Record{Topic: standard, Partition: 1, Value: []byte("nonsense"), Headers: []event.Header{{Key: "penstock-redrives", Value: []byte("2")}}},
		event.Record{Topic: batch, Value: nil},
		event.Record{Topic: standard, Value: make([]byte, 2<<20)},
	)
	y.write(event.Record{Topic: "penstock.dead", Value: []byte("what is this"), Time: time.Unix(1_790_001_000, 0)})
	o := y.run("dead", "list").want(t, exitDone)
	golden(t, "dead_list", o.stdout)
	if !strings.Contains(o.stderr, "0:3 is left out: no dead letter") {
		t.Errorf("what is none: %s", o.stderr)
	}
	for want, args := range map[string][]string{
		"0:2 0:1 0:0": {},
		"0:0 0:1 0:2": {"--order", "asc"},
		"0:2 0:1":     {"--limit", "2"},
		"0:0 0:1":     {"--limit", "2", "--order", "asc"},
		"0:2 0:0":     {"--topic", "requests.standard"},
		"0:1":         {"--topic", batch},
		"0:1 ":        {"--reason", "reason 1"},
		"0:2 ":        {"--since", time.Unix(1_790_000_061, 0).UTC().Format(time.RFC3339)},
		"":            {"--topic", "tokens"},
		" ":           {"--since", "1h", "--reason", "nothing like it"},
	} {
		o := y.run(append([]string{"dead", "list", "-o", "jsonl"}, args...)...).want(t, exitDone)
		var got []string
		for line := range strings.Lines(o.stdout) {
			var row deadRow
			if err := json.Unmarshal([]byte(line), &row, json.RejectUnknownMembers(false)); err != nil {
				t.Fatal(err)
			}
			got = append(got, row.Position)
		}
		if s := strings.Join(got, " "); s != strings.TrimSpace(want) {
			t.Errorf("%v: %q, want %q", args, s, want)
		}
	}
	if o := y.run("dead", "list", "--limit", "1").want(t, exitDone); !strings.Contains(o.stderr, "There are 2 more") {
		t.Errorf("what is left: %s", o.stderr)
	}
	for _, args := range [][]string{{"--limit", "0"}, {"--since", "yesterday"}, {"--since", "-1h"}} {
		y.run(append([]string{"dead", "list"}, args...)...).want(t, exitUsage)
	}
	if o := y.run("dead", "list", "--prefix", "other.").want(t, exitFailed); !strings.Contains(o.stderr, "there is no other.dead: `penstock topic list`") {
		t.Errorf("without a topic: %s", o.stderr)
	}
}

func TestADeadLetterIsShownAsItWas(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	value := "non\x00sense\xff\x1b[31m\n"
	large := append([]byte("it is here "), make([]byte, 2<<20)...)
	packed, err := y.cluster.NewProducer(kafka.ProducerConfig{MaxRecordBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(packed.Close)
	if _, err := packed.Append(t.Context(), event.Record{Topic: standard, Partition: 0, Value: large}); err != nil {
		t.Fatal(err)
	}
	y.bury(
		event.Record{Topic: standard, Partition: 1, Value: []byte(value), Key: []byte("k"), Headers: []event.Header{{Key: "h", Value: []byte("v\n")}, {Key: "none"}}},
		event.Record{Topic: batch},
		event.Record{Topic: standard, Value: make([]byte, 2<<20)},
	)
	there := event.Bury(&event.Record{Topic: standard, Value: large}, "processors", "too large", 1<<20)
	y.write(there.Record("penstock.dead", time.Unix(1_790_001_000, 0)))
	golden(t, "dead_get", y.run("dead", "get", "0:0").want(t, exitDone).stdout)
	golden(t, "dead_get_json", y.run("dead", "get", "0", "-o", "json").want(t, exitDone).stdout)
	golden(t, "dead_get_tombstone", y.run("dead", "get", "0:1", "-o", "json").want(t, exitDone).stdout)
	if o := y.run("dead", "get", "0:0", "--raw").want(t, exitDone); o.stdout != value {
		t.Errorf("raw it is %q", o.stdout)
	}
	if o := y.run("dead", "get", "0:3", "--raw").want(t, exitDone); o.stdout != string(large) {
		t.Errorf("what did not fit has %d bytes where it stood", len(o.stdout))
	}
	if o := y.run("dead", "get", "0:2").want(t, exitDone); !strings.Contains(o.stderr, "2097152 bytes of 0:2 did not fit on the dead topic") {
		t.Errorf("what did not fit: %s", o.stderr)
	}
	y.run("dead", "get", "0:2", "--raw").want(t, exitFailed)
	if o := y.run("dead", "get", "0:9").want(t, exitFailed); !strings.Contains(o.stderr, "there is no dead letter at 0:9: the earliest is 0:0, the end 0:4") {
		t.Errorf("of none: %s", o.stderr)
	}
	if o := y.run("dead", "get", "last").want(t, exitUsage); !strings.Contains(o.stderr, "such as 0:17") {
		t.Errorf("of no position: %s", o.stderr)
	}
}

func TestARedriveWritesTheRecordBackOnceAndNotesIt(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.bury(
		event.Record{Topic: standard, Partition: 1, Value: []byte("nonsense\xff"), Key: []byte("k"), Headers: []event.Header{{Key: "h", Value: []byte("v")}}},
		event.Record{Topic: batch, Partition: 1},
		event.Record{Topic: "penstock.tokens", Partition: 1, Value: []byte("forged")},
	)
	for _, args := range [][]string{{}, {"0:0", "--all"}, {"0:0", "--topic", "requests.batch"}, {"x"}} {
		y.run(append([]string{"dead", "redrive"}, args...)...).want(t, exitUsage)
	}
	if o := y.run("dead", "redrive", "0:0").want(t, exitUsage); !strings.Contains(o.stderr, "say --yes") {
		t.Errorf("with nobody to ask: %s", o.stderr)
	}
	no := call{stdin: "n\n", env: y.c.env}
	if o := no.run(t, "dead", "redrive", "0:0").want(t, exitFailed); !strings.Contains(o.stderr, "Write 1 record(s) back to where they stood, to be tried again? [y/N] Nothing was done.") {
		t.Errorf("a no: %s", o.stderr)
	}
	yes := call{stdin: "y\n", env: y.c.env}
	if o := yes.run(t, "dead", "redrive", "0:0").want(t, exitDone); o.stdout != "0:0 is at penstock.requests.standard, partition 1, offset 0\n" {
		t.Errorf("a yes: %q %s", o.stdout, o.stderr)
	}
	rec := y.at(standard, 1, 0)
	if string(rec.Value) != "nonsense\xff" || string(rec.Key) != "k" || len(rec.Headers) != 2 || string(rec.Headers[0].Value) != "v" ||
		rec.Headers[1].Key != "penstock-redrives" || string(rec.Headers[1].Value) != "1" {
		t.Errorf("it was written back as %+v", rec)
	}
	if o := y.run("dead", "list", "-o", "jsonl").want(t, exitDone); !strings.Contains(o.stdout, `"redriven":{"at":`) || strings.Count(o.stdout, "\n") != 3 {
		t.Errorf("the list: %s", o.stdout)
	}
	if o := y.run("dead", "redrive", "0:0", "--yes").want(t, exitFailed); !strings.Contains(o.stderr, "0:0 was written back already") || !strings.Contains(o.stderr, "--again") {
		t.Errorf("twice: %s", o.stderr)
	}
	o := y.run("dead", "redrive", "--all", "--yes", "-o", "jsonl").want(t, exitFailed)
	if o.stdout != `{"position":"0:1","topic":"penstock.requests.batch","partition":1,"offset":0}`+"\n" {
		t.Errorf("all: %q", o.stdout)
	}
	for _, want := range []string{"1 were written back before", `"penstock.tokens", which is no topic that anybody may write to`, "1 written back, 1 not."} {
		if !strings.Contains(o.stderr, want) {
			t.Errorf("all does not say %q: %s", want, o.stderr)
		}
	}
	if rec := y.at(batch, 1, 0); rec.Value != nil || rec.Key != nil {
		t.Errorf("a tombstone was written back as %+v", rec)
	}
	if o := y.run("dead", "redrive", "--all", "--topic", "requests.batch", "--yes").want(t, exitDone); !strings.Contains(o.stderr, "nothing to write back") {
		t.Errorf("none left: %s", o.stderr)
	}
	if o := y.run("dead", "redrive", "0:0", "--again", "--yes").want(t, exitDone); !strings.Contains(o.stdout, "offset 1") {
		t.Errorf("again: %s", o.stdout)
	}
	if o := y.run("dead", "get", "0:0").want(t, exitDone); !strings.Contains(o.stdout, "partition 1, offset 1\n") {
		t.Errorf("it is shown as %s", o.stdout)
	}
	if o := y.run("dead", "redrive", "0:3", "--yes").want(t, exitFailed); !strings.Contains(o.stderr, "there is no dead letter at 0:3, so nothing was done") {
		t.Errorf("a note: %s", o.stderr)
	}
}
