package projections

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// idle is a loop without servers that owns all partitions of so many numbers.
func idle(partitions int32, cfg Config) *loop {
	l := newLoop(&Projector{cfg: cfg, folder: folder{names}})
	for p := range partitions {
		l.owned[kafka.TopicPartition{Topic: names.Jobs(), Partition: p}] = &position{}
		l.owned[kafka.TopicPartition{Topic: names.Requests(event.Standard), Partition: p}] = &position{}
	}
	return l
}

// What two transactions hold that are under way at once has no partition number
// in common, within one number all goes in order, and a request that goes ahead
// goes with its fact.
func TestTransactionsSideBySideShareNoNumber(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const numbers, each = 5, 400
	l := idle(numbers, Config{MaxRecords: 100, MaxBytes: 3000})
	next := map[kafka.TopicPartition]int64{}
	for range numbers * each {
		p := rnd.Int32N(numbers)
		asked := kafka.TopicPartition{Topic: names.Requests(event.Standard), Partition: p}
		told := kafka.TopicPartition{Topic: names.Jobs(), Partition: p}
		one := func(tp kafka.TopicPartition, turn turn) {
			l.pending = append(l.pending, item{event.Record{Topic: tp.Topic, Partition: p, Offset: next[tp], Value: make([]byte, rnd.IntN(100))}, turn})
			next[tp]++
		}
		if rnd.IntN(2) == 0 {
			one(asked, ahead)
		}
		one(told, inTurn)
	}
	all := len(l.pending)
	written, twice := 0, 0
	last := map[kafka.TopicPartition]int64{}
	for len(l.pending) > 0 || l.busy() > 0 {
		for i := range l.slots {
			s := &l.slots[i]
			if s.batch == nil && (l.busy() == 0 || l.level()) {
				if items := l.pick(); len(items) > 0 {
					s.batch = &batch{items: items}
				}
			}
		}
		taken := map[int32]int{}
		for i := range l.slots {
			if b := l.slots[i].batch; b != nil {
				mine := map[int32]bool{}
				for k := range b.items {
					mine[b.items[k].Partition] = true
				}
				for p := range mine {
					taken[p]++
				}
			}
		}
		if slices.Max(slices.Collect(maps.Values(taken))) > 1 {
			t.Fatalf("both have records of one number: %v", taken)
		}
		if l.busy() == slots {
			twice++
		}
		s := &l.slots[rnd.IntN(slots)]
		if s.batch == nil {
			continue
		}
		for i, it := range s.batch.items {
			tp := partitionOfRecord(&it.Record)
			if at, ok := last[tp]; ok && it.Offset != at+1 {
				t.Fatalf("%s: %d follows %d", tp, it.Offset, at)
			}
			last[tp] = it.Offset
			if it.turn == ahead && (i+1 == len(s.batch.items) || s.batch.items[i+1].Partition != it.Partition) {
				t.Fatalf("%s: %d goes ahead without its fact", tp, it.Offset)
			}
		}
		written += len(s.batch.items)
		s.batch = nil
	}
	if written != all || twice == 0 {
		t.Errorf("%d of %d are written; two were under way %d times", written, all, twice)
	}
}

func TestFewRecordsDoNotMakeATransactionBesideAnother(t *testing.T) {
	l := idle(2, Config{MaxRecords: 100, MaxBytes: 1 << 20})
	add := func(p int32, n int) {
		for range n {
			l.pending = append(l.pending, item{event.Record{Topic: names.Jobs(), Partition: p}, inTurn})
		}
	}
	add(0, 10)
	add(1, 9)
	l.slots[0].batch = &batch{items: l.pick()}
	if got := len(l.slots[0].batch.items); got != 19 {
		t.Errorf("one takes %d of 19, though they are few", got)
	}
	add(0, 50)
	if got := l.pick(); got != nil {
		t.Errorf("%d records of a number that is under way were taken", len(got))
	}
	l.slots[0].batch.items = l.slots[0].batch.items[:1] // of number 0
	add(1, 9)
	if got := l.pick(); got != nil {
		t.Errorf("%d records make a transaction beside another", len(got))
	}
	add(1, 1)
	if got := l.pick(); len(got) != 10 {
		t.Errorf("%d of 10 make one", len(got))
	}
}

// The checkpoint of a fact tells that the database has lost it, with the request
// that went ahead with it: it is asked before that request is passed over.
func TestARequestThatWentAheadAndWasForgottenIsNotPassedOver(t *testing.T) {
	pool, now := database(t), time.Unix(1_800_000_000, 0)
	l, requests, facts := writtenAhead(t, pool, now)
	forget(t, pool)
	mustFlush(t, l, nil, now.Add(holdAtMost)) // all are due, those that went ahead among them
	mustFlush(t, l, requests, now)            // as both are read from their checkpoints
	mustFlush(t, l, facts, now)
	mustFlush(t, l, nil, now.Add(holdAtMost))
	whole(t, pool, len(requests))
}

// whole holds the table to so many jobs, each with its request.
func whole(t *testing.T, pool *pgxpool.Pool, jobs int) {
	t.Helper()
	var all, torn int
	const count = `SELECT count(*), count(*) FILTER (WHERE request_offset IS NULL) FROM penstock.jobs`
	if err := pool.QueryRow(t.Context(), count).Scan(&all, &torn); err != nil {
		t.Fatal(err)
	}
	if all != jobs || torn != 0 {
		t.Errorf("%d of %d jobs, %d of them without their request", all, jobs, torn)
	}
}

// Whose facts go to another can't be told any more what the database has lost of
// them, so the requests are read again.
func TestRequestsThatWentAheadAreReadAgainWhereTheirFactsGoToAnother(t *testing.T) {
	pool, now := database(t), time.Unix(1_800_000_000, 0)
	l, requests, facts := writtenAhead(t, pool, now)
	l.drop([]kafka.TopicPartition{told()})
	if at := l.group.(*script).seek(t); at != 0 || len(l.held.parts) != 0 {
		t.Errorf("the requests are read again from %d, %d partitions are held", at, len(l.held.parts))
	}
	forget(t, pool) // as its last transactions
	mustFlush(t, l, requests, now)
	mustFlush(t, l, nil, now.Add(holdAtMost))
	mustFlush(t, aLoop(t, pool, told()), facts, now)
	whole(t, pool, len(requests))
}

// locked takes the lock on the checkpoint of a partition of facts, so that a
// transaction of its records stands still until it is let go.
func locked(t *testing.T, pool *pgxpool.Pool, partition int32) (letGo func()) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT 1 FROM penstock.checkpoints WHERE topic = $1 AND part = $2 FOR UPDATE`, told().Topic, partition); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := tx.Rollback(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

// someFacts are a number's facts, of jobs of its own.
func someFacts(partition int32, from, n int) (facts []event.Record) {
	for i := range n {
		h := event.Head{Type: event.JobCompleted, Job: fmt.Sprintf("j%d-%d", partition, from+i), Time: at(i), Attempt: 1, Lane: event.Standard}
		facts = append(facts, factRecord(partition, int64(from+i), h, event.Fact{Model: "sim"}))
	}
	return facts
}

// tellsOf is where the facts of a number are.
func tellsOf(partition int32) kafka.TopicPartition {
	return kafka.TopicPartition{Topic: told().Topic, Partition: partition}
}

// sideBySide is a projector of two partitions whose polls a test makes up.
func sideBySide(t *testing.T, pool *pgxpool.Pool, cfg Config) (*Projector, *script) {
	t.Helper()
	cfg.Cluster, cfg.Pool, cfg.Prefix, cfg.LagInterval = (*kafka.Cluster)(nil), pool, names.Prefix, time.Hour
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p, newScript(t, tellsOf(0))
}

// play runs a loop on a script, with two partitions of facts assigned.
func play(t *testing.T, p *Projector, g *script) (stop func()) {
	t.Helper()
	l := newLoop(p)
	l.group = g
	g.first = false
	found, err := p.sink.load(t.Context(), map[kafka.TopicPartition]int64{tellsOf(0): 0, tellsOf(1): 0}, map[string]string{told().Topic: "id"})
	if err != nil {
		t.Fatal(err)
	}
	l.loaded = found
	g.say(kafka.Poll{Assigned: []kafka.Assignment{{TopicPartition: tellsOf(0)}, {TopicPartition: tellsOf(1)}}})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- l.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// What waits for the transactions that are under way is bounded by records and by
// bytes: beyond that nothing is polled for.
func TestNoMoreIsPolledForThanATransactionTakes(t *testing.T) {
	pool := database(t)
	// Of 10 polls of 10 one is under way, and three wait, or two.
	for left, cfg := range map[int]Config{6: {MaxRecords: 30}, 7: {MaxRecords: 1000, MaxBytes: 20 * len(someFacts(0, 0, 1)[0].Value)}} {
		if _, err := pool.Exec(t.Context(), `TRUNCATE penstock.jobs, penstock.checkpoints`); err != nil {
			t.Fatal(err)
		}
		p, g := sideBySide(t, pool, cfg)
		stop := play(t, p, g)
		g.say(kafka.Poll{})
		eventually(t, "both are assigned", func() bool { return len(g.polls) == 0 })
		letGo := locked(t, pool, 0)
		for i := range 10 {
			g.say(kafka.Poll{Records: someFacts(0, 10*i, 10)})
		}
		eventually(t, "it has polled for as much as it may", func() bool { return len(g.polls) <= left })
		if len(g.polls) < left {
			t.Errorf("%d of 10 polls are left, want %d", len(g.polls), left)
		}
		letGo()
		eventually(t, "all is written", func() bool { return checkpointOf(t, pool, tellsOf(0)) == 100 })
		stop()
	}
}

func TestAPartitionThatStandsStillDoesNotHoldUpTheOthers(t *testing.T) {
	pool := database(t)
	p, g := sideBySide(t, pool, Config{MaxRecords: 100})
	play(t, p, g)
	g.say(kafka.Poll{Records: slices.Concat(someFacts(0, 0, 10), someFacts(1, 0, 10))})
	eventually(t, "both are written", func() bool {
		return checkpointOf(t, pool, tellsOf(0)) == 10 && checkpointOf(t, pool, tellsOf(1)) == 10
	})
	letGo := locked(t, pool, 0)
	g.say(kafka.Poll{Records: someFacts(0, 10, 20)})
	for i := range 5 { // polled for and written while the first one waits
		g.say(kafka.Poll{Records: someFacts(1, 10+20*i, 20)})
		eventually(t, "the other is written", func() bool { return checkpointOf(t, pool, tellsOf(1)) == int64(30+20*i) })
	}
	if at := checkpointOf(t, pool, tellsOf(0)); at != 10 {
		t.Errorf("what is locked moved to %d", at)
	}
	letGo()
	eventually(t, "the first is written", func() bool { return checkpointOf(t, pool, tellsOf(0)) == 30 })
	counts(t, p, folded.String(), 140)
}

// A partition is handed over when nothing of it is under way, so that its next
// owner begins where this one has ended.
func TestAHandOverWaitsForTheTransactionThatIsUnderWay(t *testing.T) {
	pool := database(t)
	p, g := sideBySide(t, pool, Config{MaxRecords: 100})
	play(t, p, g)
	g.say(kafka.Poll{})
	eventually(t, "both are assigned", func() bool { return len(g.polls) == 0 })
	letGo := locked(t, pool, 0)
	g.say(kafka.Poll{Records: someFacts(0, 0, 20)})
	waits := func() bool {
		var n int
		err := pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%checkpoints%'`).Scan(&n)
		return err == nil && n == 1
	}
	eventually(t, "a transaction waits", waits)
	g.say(kafka.Poll{Lost: []kafka.TopicPartition{tellsOf(0)}})
	eventually(t, "the loss is told", func() bool { return len(g.polls) == 0 })
	g.say(kafka.Poll{Assigned: []kafka.Assignment{{TopicPartition: tellsOf(0), Next: 5}}})
	if !waits() || len(g.polls) != 1 {
		t.Error("it goes on before the transaction has ended")
	}
	letGo()
	eventually(t, "what was under way is written", func() bool { return checkpointOf(t, pool, tellsOf(0)) == 20 })
	eventually(t, "it goes on", func() bool { return len(g.polls) == 0 })
}

// Another moves a checkpoint while a transaction of it is under way, and one of
// the other number beside it: only the first is done over.
func TestAnotherOwnerCostsOnlyTheTransactionOfItsNumber(t *testing.T) {
	pool := database(t)
	p, g := sideBySide(t, pool, Config{MaxRecords: 100})
	play(t, p, g)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `UPDATE penstock.checkpoints SET next_offset = 15 WHERE topic = $1 AND part = 0`, told().Topic); err != nil {
		t.Fatal(err)
	}
	g.say(kafka.Poll{Records: slices.Concat(someFacts(0, 0, 20), someFacts(1, 0, 20))})
	eventually(t, "the other is written", func() bool { return checkpointOf(t, pool, tellsOf(1)) == 20 })
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if at := g.seek(t); at != 15 {
		t.Errorf("it goes on at %d, want 15", at)
	}
	g.say(kafka.Poll{Records: someFacts(0, 15, 5)})
	eventually(t, "the rest is written", func() bool { return checkpointOf(t, pool, tellsOf(0)) == 20 })
	counts(t, p, folded.String(), 25)
	if got := valueOf(t, p.metrics.conflicts); got != 1 {
		t.Errorf("%v conflicts", got)
	}
}
