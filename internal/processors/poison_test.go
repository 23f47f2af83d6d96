package processors

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// poison is a record that can never be run, and what is counted of it.
type poison struct {
	rec     event.Record
	part    string
	omitted int  // bytes that do not fit on the dead topic
	unread  bool // it does not even unpack
}

// poisons are all sent to one partition, each followed by a good request.
func poisons() map[string]poison {
	request := func(fields string) event.Record { return event.Record{Value: []byte("{" + fields + "}")} }
	const body = `"data":{"body":{"model":"sim"}}`
	noise := bytes.Repeat([]byte("\x00\xff\x80{\"'"), topics.DefaultMaxRequestBytes/6-100)
	return map[string]poison{
		"a tombstone":              {rec: event.Record{Value: nil}, part: "value"},
		"no bytes":                 {rec: event.Record{Value: []byte{}}, part: "value"},
		"headers alone":            {rec: event.Record{Headers: []event.Header{{Key: "ce_type", Value: []byte("x")}, {Key: "penstock-topic"}, {}}}, part: "value"},
		"4 MiB of noise":           {rec: event.Record{Value: noise}, part: "value"},
		"4 MiB, most in headers":   {rec: event.Record{Value: []byte("{"), Headers: []event.Header{{Key: "h", Value: noise}}}, part: "value"},
		"4 MiB, most in the key":   {rec: event.Record{Value: []byte("{"), Key: noise}, part: "value"},
		"a million brackets":       {rec: event.Record{Value: bytes.Repeat([]byte("["), 1_000_000)}, part: "value"},
		"a body of brackets":       {rec: request(`"job":"a","data":{"body":{"model":"sim","x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}}`), part: "data.body"},
		"bytes that are no text":   {rec: request("\"job\":\"a\xff\"," + body), part: "value"},
		"a text for an object":     {rec: request(`"job":"a","data":"x"`), part: "data"},
		"a number for an id":       {rec: request(`"job":7,` + body), part: "job"},
		"an enormous number":       {rec: request(`"job":"a","v":` + strings.Repeat("9", 100_000) + `,` + body), part: "v"},
		"an enormous exponent":     {rec: request(`"job":"a","v":1e999999999,` + body), part: "v"},
		"the same field twice":     {rec: request(`"job":"a","job":"b",` + body), part: "job"},
		"no job":                   {rec: request(body), part: "job"},
		"an id with a newline":     {rec: request(`"job":"a\n",` + body), part: "job"},
		"12 MiB, packed":           {rec: event.Record{Value: bytes.Repeat([]byte("x"), 12<<20)}, part: "value", omitted: 12 << 20},
		"what unpacks to 65 MiB":   {rec: event.Record{Value: bytes.Repeat([]byte("x"), 65<<20)}, part: "value", unread: true},
		"a date of the year 10000": {rec: request(`"job":"a","time":"10000-01-01T00:00:00Z",` + body), part: "time"},
	}
}

// TestNoPoisonStopsItsPartition sends every kind there is, each behind the
// other, and finds each on the dead topic, whole and counted, and every good
// request between them run.
func TestNoPoisonStopsItsPartition(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	sizes := topics.MaxBytes(topics.Catalogue(topics.Options{Prefix: w.names.Prefix}))
	r := w.start("one", func(c *Config) { c.MaxDeadBytes = sizes[w.names.Dead()] })
	packed, err := w.cluster.NewProducer(kafka.ProducerConfig{MaxRecordBytes: 96 << 20, MaxBufferedBytes: 96 << 20, Compression: kafka.Zstd})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(packed.Close)
	const partition = 1
	all, at := poisons(), map[int64]string{}
	var ids []string
	counts := map[string]float64{}
	for name, p := range all {
		p.rec.Topic, p.rec.Partition = w.names.Requests(event.Standard), partition
		acks, err := packed.Append(t.Context(), p.rec)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		at[acks[0].Offset] = name
		counts[p.part]++
		id := fmt.Sprintf("good-%d", acks[0].Offset)
		w.raw(event.Record{
			Topic: p.rec.Topic, Partition: partition, Key: []byte(id),
			Value: fmt.Appendf(nil, `{"job":%q,"data":{"body":{"model":%q}}}`, id, quick),
		})
		ids = append(ids, id)
	}
	newer := `{"job":"newer","v":2,"data":{"body":{"model":"sim"}}}` // another build's matter: no poison
	w.raw(event.Record{Topic: w.names.Requests(event.Standard), Partition: partition, Value: []byte(newer)})
	for id, o := range w.outputs(ids...) {
		if o.End != event.OutputCompleted {
			t.Errorf("%s behind poison ended as %v", id, o.all)
		}
	}
	w.committed()
	for _, d := range w.letters() {
		name := at[d.Offset]
		p := all[name]
		delete(all, name)
		if d.Topic != w.names.Requests(event.Standard) || d.Partition != partition || d.Stage != "processors" || d.Reason == "" {
			t.Errorf("%s: %s/%d, %s: %q", name, d.Topic, d.Partition, d.Stage, d.Reason)
		}
		if d.Omitted != p.omitted {
			t.Errorf("%s: %d bytes were left out, want %d", name, d.Omitted, p.omitted)
		}
		if p.omitted > 0 || p.unread {
			p.rec.Value = nil
		}
		if !bytes.Equal(d.Value, p.rec.Value) || (d.Value == nil) != (p.rec.Value == nil) || !bytes.Equal(d.Key, p.rec.Key) {
			t.Errorf("%s: the letter has a value of %d bytes (none: %t) and a key of %d", name, len(d.Value), d.Value == nil, len(d.Key))
		}
		if len(d.Headers) != len(p.rec.Headers) {
			t.Errorf("%s: %d headers of its own, want %d", name, len(d.Headers), len(p.rec.Headers))
		}
	}
	if len(all) > 0 {
		t.Errorf("%d have no dead letter: %v", len(all), at)
	}
	got := map[string]float64{}
	for part := range counts {
		var m dto.Metric
		if err := r.metrics.dead.WithLabelValues(event.Standard.String(), part).Write(&m); err != nil {
			t.Fatal(err)
		}
		got[part] = m.GetCounter().GetValue()
	}
	if diff := cmp.Diff(counts, got); diff != "" {
		t.Errorf("the metric (-want +got):\n%s", diff)
	}
	r.end(t)
}

// A record is kept whole in the window while it waits, so all of it counts.
func TestTheWindowCountsARequestsKeyAndHeadersToo(t *testing.T) {
	r := decode(&event.Record{Key: []byte("key"), Value: []byte("value"), Headers: []event.Header{{Key: "h1", Value: []byte("12345")}, {Key: "h2"}}})
	if want := 3 + 5 + 7 + 2; r.Bytes != want {
		t.Errorf("%d bytes, want %d", r.Bytes, want)
	}
}

// letters reads the dead topic.
func (w *world) letters() (found []event.DeadLetter) {
	w.t.Helper()
	for _, rec := range w.records(w.names.Dead(), 0) {
		d, err := event.ParseDeadLetter(&rec)
		if err != nil {
			w.t.Fatal(err)
		}
		found = append(found, d)
	}
	return found
}

// TestARecordThatIsWrittenBackAndStillPoisonIsCounted redrives a letter twice.
func TestARecordThatIsWrittenBackAndStillPoisonIsCounted(t *testing.T) {
	t.Parallel()
	w := onEmbedded(t)
	r := w.start("one", nil)
	w.raw(event.Record{Topic: w.names.Requests(event.Batch), Partition: 2, Value: []byte("nonsense"), Headers: []event.Header{{Key: "own", Value: []byte("h")}}})
	for want := range 3 {
		w.letterNumber(want)
		letters := w.letters()
		d := letters[len(letters)-1]
		if len(letters) != want+1 || d.Redrives() != want || string(d.Value) != "nonsense" || d.Headers[0].Key != "own" {
			t.Fatalf("letter %d of %d: %d redrives, %q, %v", want, len(letters), d.Redrives(), d.Value, d.Headers)
		}
		w.raw(d.Redrive())
	}
	r.end(t)
}

// letterNumber waits for a letter.
func (w *world) letterNumber(n int) {
	w.t.Helper()
	tail, err := w.cluster.NewTail(kafka.TailConfig{Topic: w.names.Dead()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer tail.Close()
	tail.Follow(0, int64(n))
	for {
		chunks, err := tail.Poll(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, c := range chunks {
			if len(c.Records) > 0 {
				return
			}
		}
	}
}
