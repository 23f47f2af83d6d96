package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

func TestProjectorFoldsJobsAndGoesOnWhereItStopped(t *testing.T) {
	w := newWorld(t, 3)
	requests, facts := lives(200, 3)
	w.produce(t, requests[:100]...)
	w.produce(t, facts[:150]...)
	reg := prometheus.NewPedanticRegistry()
	_, stop := w.project(t, Config{Metrics: reg, LagInterval: 20 * time.Millisecond})
	w.caughtUp(t)
	if q, r, c := w.count(t, "status = 'queued'"), w.count(t, "status = 'running'"), w.count(t, "status = 'completed'"); q != 25 || r != 0 || c != 75 {
		t.Errorf("%d queued, %d running, %d completed; want 25, 0, 75", q, r, c)
	}
	eventually(t, "the lag's metric is 0", func() bool {
		families, err := reg.Gather()
		for _, f := range families {
			if f.GetName() == "penstock_projections_lag_records" {
				return err == nil && len(f.GetMetric()) == 4 && f.GetMetric()[0].GetGauge().GetValue() == 0
			}
		}
		return false
	})
	stop()
	w.produce(t, requests[100:]...)
	w.produce(t, facts[150:]...)
	again, _ := w.project(t, Config{})
	w.caughtUp(t)
	if c := w.count(t, "status = 'completed' AND request_topic IS NOT NULL"); c != 200 {
		t.Errorf("%d of 200 are completed", c)
	}
	counts(t, again, "folded", 350) // which the first had not
	if err := again.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	res := mustFind(t, w.store, "job-7")
	want := &job.Resource{
		Object: "job", ID: "job-7", Status: job.Completed, Lane: event.Standard, Tenant: "default",
		Endpoint: event.DefaultEndpoint, Model: "sim", Provider: "simulated", Attempt: 1,
		CreatedAt: job.Time{Time: at(7)}, StartedAt: job.Time{Time: at(7)}, EndedAt: job.Time{Time: at(7)},
		Output: []event.OutputChoice{{Message: event.Message{Content: "hello"}}}, Links: job.LinksOf("job-7"),
		Request: &job.Position{Topic: w.names.Requests(event.Standard), Partition: job.Partition("job-7", 3), Offset: res.Request.Offset},
	}
	if diff := gocmp.Diff(want, res); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProjectorsShareAndHandOver(t *testing.T) {
	w := newWorld(t, 4)
	const n = 3000
	// What the database itself has seen of the checkpoints: what a projector counts
	// leaves out a transaction that took and of which it did not learn, and has a
	// request twice that another has written ahead.
	if _, err := w.pool.Exec(t.Context(), `
		CREATE TABLE moves (records bigint);
		CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO moves VALUES (NEW.next_offset - OLD.next_offset);
			RETURN NEW;
		END $$;
		CREATE TRIGGER noted AFTER UPDATE ON penstock.checkpoints FOR EACH ROW EXECUTE FUNCTION noted()`); err != nil {
		t.Fatal(err)
	}
	requests, facts := lives(n, 4)
	_, stopA := w.project(t, Config{MaxRecords: 100})
	w.produce(t, requests[:1000]...)
	_, stopB := w.project(t, Config{MaxRecords: 100})
	w.produce(t, facts[:3000]...)
	stopA()
	w.produce(t, requests[1000:]...)
	w.project(t, Config{MaxRecords: 100})
	w.produce(t, facts[3000:]...)
	stopB()
	w.caughtUp(t)
	var moved, back int
	if err := w.pool.QueryRow(t.Context(), `SELECT sum(records), count(*) FILTER (WHERE records <= 0) FROM moves`).Scan(&moved, &back); err != nil {
		t.Fatal(err)
	}
	if moved != 3*n || back > 0 {
		t.Errorf("the checkpoints moved over %d records, %d times backwards; want over each of %d once", moved, back, 3*n)
	}
	if got := w.count(t, "status = 'completed' AND request_topic IS NOT NULL"); got != n {
		t.Errorf("%d of %d are completed", got, n)
	}
}

func TestProjectorPassesOverBadRecordsAndCountsThem(t *testing.T) {
	w := newWorld(t, 1)
	good := func(id string) event.Record {
		return requestRecord(event.Standard, 0, 0, event.Head{Job: id, Time: at(0)}, event.Request{})
	}
	bad := func(topic, value string) event.Record { return event.Record{Topic: topic, Value: []byte(value)} }
	p, _ := w.project(t, Config{})
	w.produce(t,
		good("one"),
		bad(names.Requests(event.Standard), "not JSON"),
		bad(names.Requests(event.Standard), ""),
		bad(names.Requests(event.Standard), `{"type":"job.paused","v":1,"job":"a"}`),
		bad(names.Jobs(), `{"type":"batch.progress","v":1}`),
		bad(names.Jobs(), "\x00\x01"),
		good("two"),
	)
	w.caughtUp(t)
	for result, want := range map[string]float64{"folded": 2, "malformed": 3, "unknown": 2} {
		counts(t, p, result, want)
	}
	if n := w.count(t, "true"); n != 2 {
		t.Errorf("%d jobs, want 2", n)
	}
}

func TestPayloadThatTheDatabaseRefusesCostsOnlyItself(t *testing.T) {
	w := newWorld(t, 1)
	if _, err := w.pool.Exec(t.Context(), `
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.output::text LIKE '%poison%' OR NEW.custom_id = 'poison' THEN RAISE EXCEPTION 'no' USING ERRCODE = '22000'; END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON penstock.jobs FOR EACH ROW EXECUTE FUNCTION refuse()`); err != nil {
		t.Fatal(err)
	}
	var records []event.Record
	for i := range 40 {
		h := event.Head{Type: event.JobCompleted, Job: fmt.Sprint("j", i), Time: at(i), Attempt: 1, Lane: event.Batch}
		text := "fine"
		if i == 17 {
			text = "poison"
		}
		records = append(records, factRecord(0, 0, h, event.Fact{Output: []event.OutputChoice{{Message: event.Message{Content: text}}}}))
	}
	records = append(records, requestRecord(event.Batch, 0, 0, event.Head{Job: "asked", Time: at(0)}, event.Request{CustomID: "poison"}))
	w.produce(t, records...)
	p, _ := w.project(t, Config{})
	w.caughtUp(t)
	if n := w.count(t, "output::text LIKE '%fine%'"); n != 39 {
		t.Errorf("%d of 39 good outputs are there", n)
	}
	res := mustFind(t, w.store, "j17")
	if res.Status != job.Completed || res.Error == nil || !strings.Contains(res.Error.Message, "the log has it") {
		t.Errorf("the job with the payload: %s, %+v", res.Status, res.Error)
	}
	if res := mustFind(t, w.store, "asked"); res.Status != job.Queued || res.CustomID != "" {
		t.Errorf("the request: %+v", res)
	}
	counts(t, p, resultStripped, 2)
}

func TestRecreatedTopicIsToldAndNotFolded(t *testing.T) {
	w := newWorld(t, 1)
	_, stop := w.project(t, Config{})
	h := event.Head{Type: event.JobStarted, Job: "a", Time: at(0), Attempt: 1}
	w.produce(t, factRecord(0, 0, h, nil))
	w.caughtUp(t)
	stop()
	if err := w.cluster.DeleteTopics(t.Context(), w.names.Jobs()); err != nil {
		t.Fatal(err)
	}
	var again []topics.Topic
	for _, topic := range topics.Catalogue(topics.Options{Prefix: w.prefix, Partitions: 1}) {
		if topic.Name == w.names.Jobs() {
			again = append(again, topic)
		}
	}
	eventually(t, "the topic is created anew", func() bool { return w.cluster.Apply(t.Context(), topics.Plan(again, nil)) == nil })
	h.Job = "b"
	w.out = w.producer(t) // the old one knows the old topic
	w.produce(t, factRecord(0, 0, h, nil))
	p, _ := w.project(t, Config{})
	eventually(t, "readiness tells of the topic", func() bool {
		err := p.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "was deleted and created anew")
	})
	if n := w.count(t, "id = 'b'"); n != 0 {
		t.Error("the new topic's record was folded into the old one's table")
	}
}

func TestRecordsThatRetentionTookAreCountedAndPassed(t *testing.T) {
	w := newWorld(t, 1)
	p, err := New(Config{Cluster: w.cluster, Pool: w.pool, Prefix: w.prefix})
	if err != nil {
		t.Fatal(err)
	}
	g := newScript(t, kafka.TopicPartition{Topic: w.names.Jobs(), Partition: 0})
	p.join = g.join
	g.say(kafka.Poll{Faults: []kafka.PartitionFault{{TopicPartition: g.tp, Err: fmt.Errorf("x: %w", &kafka.OutOfRangeError{TopicPartition: g.tp, Earliest: 40})}}})
	run(t, p)
	if at := g.seek(t); at != 40 {
		t.Errorf("went on at %d, want the earliest, 40", at)
	}
	eventually(t, "the checkpoint moves", func() bool { return w.checkpoint(t, g.tp) == 40 })
	eventually(t, "40 records are told as lost", func() bool { return valueOf(t, p.metrics.expired.WithLabelValues(g.tp.Topic)) == 40 })
	eventually(t, "it is ready", func() bool { return p.Ready(t.Context()) == nil })
	// What the log has lost is another matter.
	g.say(kafka.Poll{Faults: []kafka.PartitionFault{
		{TopicPartition: g.tp, Err: kafka.ErrTruncated},
		{TopicPartition: kafka.TopicPartition{Topic: "never assigned"}, Err: kafka.ErrTruncated},
	}})
	eventually(t, "readiness tells", func() bool { return errors.Is(p.Ready(t.Context()), kafka.ErrTruncated) })
	// And gone with the partition.
	g.say(kafka.Poll{Lost: []kafka.TopicPartition{g.tp}})
	eventually(t, "readiness is another's matter", func() bool { return p.Ready(t.Context()) == nil })
}

func (w *world) checkpoint(t *testing.T, tp kafka.TopicPartition) int64 {
	t.Helper()
	next, err := w.store.positions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return next[tp]
}

func TestZombieYieldsToTheCheckpointAndGoesOn(t *testing.T) {
	w := newWorld(t, 1)
	tp := kafka.TopicPartition{Topic: w.names.Jobs(), Partition: 0}
	records := make([]event.Record, 30)
	for i := range records {
		records[i] = w.ours(factRecord(0, int64(i), event.Head{Type: event.JobStarted, Job: fmt.Sprint("j", i), Time: at(i), Attempt: 1}, nil))
	}
	var ps [2]*Projector
	var gs [2]*script
	for i := range ps {
		p, err := New(Config{Cluster: w.cluster, Pool: w.pool, Prefix: w.prefix})
		if err != nil {
			t.Fatal(err)
		}
		ps[i], gs[i] = p, newScript(t, tp)
		p.join = gs[i].join
		run(t, p)
	}
	folds := func(p *Projector) float64 { return counted(t, p, folded.String()) }
	for _, g := range gs {
		g.say(kafka.Poll{}) // once taken, the assignment was
	}
	eventually(t, "both believe to own the partition", func() bool { return len(gs[0].polls)+len(gs[1].polls) == 0 })
	gs[0].say(kafka.Poll{Records: records[:10]})
	eventually(t, "the first folds", func() bool { return folds(ps[0]) == 10 })
	gs[1].say(kafka.Poll{Records: records[:20]})
	if at := gs[1].seek(t); at != 10 {
		t.Errorf("the second goes on at %d, want 10", at)
	}
	gs[1].say(kafka.Poll{Records: records[8:20]}) // a stale fetch, then what was asked for
	eventually(t, "the second folds", func() bool { return folds(ps[1]) == 10 })
	gs[0].say(kafka.Poll{Records: records[10:30]})
	if at := gs[0].seek(t); at != 20 {
		t.Errorf("the first goes on at %d, want 20", at)
	}
	gs[0].say(kafka.Poll{Records: records[20:30]})
	eventually(t, "the first folds the rest", func() bool { return folds(ps[0]) == 20 })
	if got := counted(t, ps[1], resultRepeated); got != 2 {
		t.Errorf("%v repeated records, want 2", got)
	}
	if at, n := w.checkpoint(t, tp), w.count(t, "true"); at != 30 || n != 30 {
		t.Errorf("the checkpoint is %d with %d jobs, want 30 of each", at, n)
	}
	// Somebody takes the checkpoint away.
	if _, err := w.pool.Exec(t.Context(), `DELETE FROM penstock.checkpoints`); err != nil {
		t.Fatal(err)
	}
	gs[0].say(kafka.Poll{Records: []event.Record{w.ours(factRecord(0, 30, event.Head{Type: event.JobStarted, Job: "late", Time: at(0)}, nil))}})
	eventually(t, "readiness tells of the checkpoint", func() bool {
		err := ps[0].Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "checkpoint is gone")
	})
	if n := w.count(t, "id = 'late'"); n != 0 {
		t.Error("a record was folded without a checkpoint")
	}
}

func TestBatchesAreBoundedInRecordsAndBytes(t *testing.T) {
	w := newWorld(t, 1)
	requests, facts := lives(20, 1)
	w.produce(t, append(requests, facts...)...)
	p, _ := w.project(t, Config{MaxBytes: 1}) // so one record each, however large
	w.caughtUp(t)
	counts(t, p, folded.String(), 60)
	eventually(t, "there are 60 transactions for 60 records", func() bool { return valueOf(t, p.metrics.batches) == 60 })
}

func TestRunSaysThatItCannotJoin(t *testing.T) {
	w := newWorld(t, 1)
	p, err := New(Config{Cluster: w.cluster, Pool: w.pool})
	if err != nil {
		t.Fatal(err)
	}
	for _, join := range []func(kafka.GroupConfig) (group, error){
		func(kafka.GroupConfig) (group, error) { return nil, kafka.ErrClosed },
		func(kafka.GroupConfig) (group, error) { return gone{}, nil },
	} {
		p.join = join
		if err := p.Run(t.Context()); !errors.Is(err, kafka.ErrClosed) {
			t.Errorf("run without a group: %v", err)
		}
	}
	reg := prometheus.NewRegistry()
	for i := range 2 {
		if _, err := New(Config{Cluster: w.cluster, Pool: w.pool, Metrics: reg}); (err != nil) != (i == 1) {
			t.Errorf("projector %d on one registry: %v", i+1, err)
		}
	}
}

// gone is a group that was left.
type gone struct{ *script }

func (gone) Poll(context.Context) (kafka.Poll, error) { return kafka.Poll{}, kafka.ErrClosed }
func (gone) Close()                                   {}
