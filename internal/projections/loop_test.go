package projections

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// aLoop is a loop of the test's own, as after an assignment of these partitions.
func aLoop(t *testing.T, pool *pgxpool.Pool, tps ...kafka.TopicPartition) *loop {
	t.Helper()
	p, err := New(Config{Cluster: (*kafka.Cluster)(nil), Pool: pool, Prefix: names.Prefix})
	if err != nil {
		t.Fatal(err)
	}
	start, ids := map[kafka.TopicPartition]int64{}, map[string]string{}
	for _, tp := range tps {
		start[tp], ids[tp.Topic] = 0, "id"
	}
	found, err := p.sink.load(t.Context(), start, ids)
	if err != nil {
		t.Fatal(err)
	}
	l := newLoop(p)
	l.group = newScript(t, tps[0])
	for tp, c := range found {
		l.owned[tp] = &position{c.topicID, c.next}
	}
	return l
}

func mustFlush(t *testing.T, l *loop, records []event.Record, now time.Time) {
	t.Helper()
	l.pending = append(l.pending, l.held.pass(records, now)...)
	for l.start(t.Context()); l.busy() > 0; l.start(t.Context()) {
		if err := l.finish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func checkpointOf(t *testing.T, pool *pgxpool.Pool, tp kafka.TopicPartition) (next int64) {
	t.Helper()
	err := pool.QueryRow(t.Context(), `SELECT next_offset FROM penstock.checkpoints WHERE topic = $1 AND part = $2`, tp.Topic, tp.Partition).Scan(&next)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// burstOf is a burst of one partition, and the facts of its jobs but the first.
func burstOf(n int) (requests, facts []event.Record) {
	for i := range n {
		h := event.Head{Job: fmt.Sprintf("j%05d", i), Time: at(i), Lane: event.Standard}
		requests = append(requests, requestRecord(event.Standard, 0, int64(i), h, event.Request{}))
		h.Attempt, h.Type = 1, event.JobCompleted
		if i > 0 {
			facts = append(facts, factRecord(0, int64(len(facts)), h, event.Fact{Model: "sim"}))
		}
	}
	return requests, facts
}

// The partitions of a burst: of its requests, and of its facts.
func asked() kafka.TopicPartition { return kafka.TopicPartition{Topic: names.Requests(event.Standard)} }

func told() kafka.TopicPartition { return kafka.TopicPartition{Topic: names.Jobs()} }

// forget has the database lose what writtenAhead wrote, with the checkpoints of facts.
func forget(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `TRUNCATE penstock.jobs`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE penstock.checkpoints SET next_offset = 0 WHERE topic = $1`, told().Topic); err != nil {
		t.Fatal(err)
	}
}

// writtenAhead is a loop that holds a burst, of which it has written 500 requests
// with their facts, ahead of the first.
func writtenAhead(t *testing.T, pool *pgxpool.Pool, now time.Time) (l *loop, requests, facts []event.Record) {
	t.Helper()
	requests, facts = burstOf(2 * burst)
	l = aLoop(t, pool, asked(), told())
	mustFlush(t, l, requests, now)
	mustFlush(t, l, facts[:500], now)
	return l, requests, facts
}

// PostgreSQL may lose its last transactions, since they do not wait for its disk.
// The checkpoints of facts tell of that, and requests that went ahead are read
// again with them, though their own checkpoint never moved.
func TestADatabaseThatForgotRequestsThatWereWrittenAheadGetsThemAgain(t *testing.T) {
	pool, now := database(t), time.Unix(1_800_000_000, 0)
	l, requests, facts := writtenAhead(t, pool, now)
	forget(t, pool)
	mustFlush(t, l, facts[500:600], now) // it finds that out
	mustFlush(t, l, requests, now)       // as both are read from their checkpoints
	mustFlush(t, l, facts, now)
	mustFlush(t, l, nil, now.Add(holdAtMost))
	var all, torn int
	const count = `SELECT count(*), count(*) FILTER (WHERE request_offset IS NULL) FROM penstock.jobs`
	if err := pool.QueryRow(t.Context(), count).Scan(&all, &torn); err != nil {
		t.Fatal(err)
	}
	if all != len(requests) || torn != 0 || checkpointOf(t, pool, asked()) != int64(len(requests)) || checkpointOf(t, pool, told()) != int64(len(facts)) {
		t.Errorf("%d of %d rows, %d of them without their request, checkpoints at %d and %d",
			all, len(requests), torn, checkpointOf(t, pool, asked()), checkpointOf(t, pool, told()))
	}
}

// A transaction that holds a request ahead of its turn holds its fact too, unless
// it is all there is room for.
func TestARequestGoesAheadTogetherWithItsFact(t *testing.T) {
	requests, facts := burstOf(4)
	l := &loop{Projector: &Projector{cfg: Config{MaxBytes: 1 << 20}}}
	l.pending = []item{{facts[0], inTurn}, {requests[2], ahead}, {facts[1], inTurn}}
	for size, want := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3} {
		l.size = size
		if got := l.cut([]int{0, 1, 2}); got != want {
			t.Errorf("of %d at most it takes %d, want %d", size, got, want)
		}
	}
}

// What a projector has written ahead of a checkpoint is folded again by the one
// that goes on from there, and that changes nothing.
func TestACrashBehindRequestsThatWereWrittenAhead(t *testing.T) {
	pool, now := database(t), time.Unix(1_800_000_000, 0)
	first, requests, facts := writtenAhead(t, pool, now)
	if at := checkpointOf(t, pool, asked()); at != 0 {
		t.Errorf("the first request is not written, and its checkpoint is %d", at)
	}
	if at := checkpointOf(t, pool, told()); at != 500 {
		t.Errorf("500 facts are written, and their checkpoint is %d", at)
	}
	before := dump(t, pool)
	var whole int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM penstock.jobs WHERE status = 'completed' AND request_offset IS NOT NULL`).Scan(&whole); err != nil || whole != 500 {
		t.Errorf("%d of 500 rows are whole: %v", whole, err)
	}
	// The first one dies with what it holds. Its successor is given all requests.
	second := aLoop(t, pool, asked(), told())
	mustFlush(t, second, append(requests, facts[500:]...), now)
	mustFlush(t, second, nil, now.Add(holdAtMost))
	after := dump(t, pool)
	for id, text := range before {
		if after[id] != text {
			t.Fatalf("%s was %s and is %s", id, text, after[id])
		}
	}
	rows, _, _ := folder{names}.fold(append(requests, facts...))
	if _, err := pool.Exec(t.Context(), `TRUNCATE penstock.jobs`); err != nil {
		t.Fatal(err)
	}
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return upsertRows(t.Context(), tx, rows) }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(dump(t, pool), after); diff != "" {
		t.Errorf("(-folded at once +by two):\n%s", diff)
	}
	if at := checkpointOf(t, pool, asked()); at != 2*burst {
		t.Errorf("all is written, and the checkpoint is %d", at)
	}
	// The first one was no more than slow: its write ahead is refused, since the
	// checkpoint that it was ahead of is another's now.
	if err := first.sink.apply(t.Context(), nil, []move{{asked(), "id", 0, 0}}); err == nil {
		t.Error("a checkpoint that only stays was not compared")
	}
	mustFlush(t, first, []event.Record{facts[700]}, now)
	if got := counted(t, first.Projector, resultRepeated); got != 0 || first.owned[asked()].next != 2*burst {
		t.Errorf("%v repeated; the slow one goes on at %d", got, first.owned[asked()].next)
	}
}

// A payload that the database refuses is found and left out, also where its
// request is written ahead.
func TestARefusedRequestOfABurstCostsOnlyItself(t *testing.T) {
	pool := database(t)
	if _, err := pool.Exec(t.Context(), `
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.custom_id = 'poison' THEN RAISE EXCEPTION 'no' USING ERRCODE = '22000'; END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON penstock.jobs FOR EACH ROW EXECUTE FUNCTION refuse()`); err != nil {
		t.Fatal(err)
	}
	asked, told := kafka.TopicPartition{Topic: names.Requests(event.Standard)}, kafka.TopicPartition{Topic: names.Jobs()}
	requests, facts := burstOf(burst + 100)
	requests[7] = requestRecord(event.Standard, 0, 7, event.Head{Job: "j00007", Time: at(7)}, event.Request{CustomID: "poison"})
	l, now := aLoop(t, pool, asked, told), time.Unix(1_800_000_000, 0)
	mustFlush(t, l, requests, now)
	mustFlush(t, l, facts[:20], now)
	mustFlush(t, l, nil, now.Add(holdAtMost))
	var whole, bad int
	err := pool.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE status = 'completed' AND request_offset IS NOT NULL),
		count(*) FILTER (WHERE id = 'j00007' AND custom_id IS NULL) FROM penstock.jobs`).Scan(&whole, &bad)
	if err != nil || whole != 20 || bad != 1 {
		t.Errorf("%d of 20 are whole, %d of 1 is without its payload: %v", whole, bad, err)
	}
	if got := counted(t, l.Projector, resultStripped); got != 1 {
		t.Errorf("%v were stripped", got)
	}
	if at := checkpointOf(t, pool, asked); at != int64(len(requests)) {
		t.Errorf("the checkpoint is %d of %d", at, len(requests))
	}
}
