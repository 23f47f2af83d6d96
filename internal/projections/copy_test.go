package projections

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// dump is the whole table as text, by id.
func dump(t *testing.T, pool *pgxpool.Pool) map[string]string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT id, j::text FROM penstock.jobs j`)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	var id, text string
	if _, err := pgx.ForEachRow(rows, []any{&id, &text}, func() error { all[id] = text; return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// everyKind is rows with all columns set, each unset, and at the ends of what
// they hold.
func everyKind(t *testing.T) []*row {
	t.Helper()
	h := func(id string) event.Head {
		return event.Head{Job: id, Time: at(-7), Attempt: 3, Lane: event.Batch, Conversation: "c", Batch: "b"}
	}
	bare := event.Head{Job: "bare", Time: time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)}
	late := event.Head{Job: "late", Time: time.Date(2999, 12, 31, 23, 59, 59, 999_999_000, time.UTC), Type: event.JobCompleted, Attempt: 1<<31 - 1}
	failed, done, started := h("failed"), h("whole"), h("whole")
	failed.Type, done.Type, started.Type = event.JobFailed, event.JobCompleted, event.JobStarted
	rows, _, why := folder{names}.fold([]event.Record{
		requestRecord(event.Standard, 1, 1<<40, bare, event.Request{}),
		factRecord(7, 1<<50, late, nil),
		requestRecord(event.Batch, 2, 0, failed, event.Request{}),
		factRecord(2, 5, failed, event.Failed{Code: "x", Message: "it said \x00 and ü"}),
		requestRecord(event.Interactive, 0, 3, done, event.Request{
			CustomID: "ü", Deadline: at(100), Metadata: map[string]string{"k": "v"}, Body: []byte(`{"model":"other"}`),
		}),
		factRecord(0, 4, started, event.Started{Model: "sim", Provider: "simulated"}),
		factRecord(0, 5, done, event.Fact{Model: "sim", Output: []event.OutputChoice{{Message: event.Message{Content: "hi"}}}, Usage: &event.Usage{TotalTokens: 3}}),
	})
	if why != nil || len(rows) != 4 {
		t.Fatalf("%d rows: %v", len(rows), why)
	}
	return rows
}

func TestACopiedRowIsTheOneThatAnUpsertWrites(t *testing.T) {
	pool := database(t)
	var c copier
	writes := []func(tx pgx.Tx) error{
		func(tx pgx.Tx) error { return upsertRows(t.Context(), tx, everyKind(t)) },
		func(tx pgx.Tx) error { return c.write(t.Context(), tx, everyKind(t)) },
	}
	var tables []map[string]string
	for _, write := range writes {
		if _, err := pool.Exec(t.Context(), `TRUNCATE penstock.jobs`); err != nil {
			t.Fatal(err)
		}
		if err := pgx.BeginFunc(t.Context(), pool, write); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, dump(t, pool))
	}
	if diff := cmp.Diff(tables[0], tables[1]); diff != "" || len(tables[0]) != 4 {
		t.Errorf("%d rows (-upserted +copied):\n%s", len(tables[0]), diff)
	}
}

// A request may be repeated, or read again after a crash: the table has its job.
func TestRowsThatTheTableHasAreJoinedWhereTheyWereToBeCopied(t *testing.T) {
	pool := database(t)
	s := sink{pool: pool}
	tp := kafka.TopicPartition{Topic: names.Jobs()}
	if _, err := s.load(t.Context(), map[kafka.TopicPartition]int64{tp: 0}, map[string]string{tp.Topic: "id"}); err != nil {
		t.Fatal(err)
	}
	request := func(id string, ms int) event.Record {
		return requestRecord(event.Batch, 0, int64(ms), event.Head{Job: id, Time: at(ms)}, event.Request{CustomID: strconv.Itoa(ms)})
	}
	apply := func(next int64, records ...event.Record) {
		t.Helper()
		rows, _, why := folder{names}.fold(records)
		if err := s.apply(t.Context(), rows, []move{{tp, "id", next - 1, next}}); err != nil || why != nil {
			t.Fatal(err, why)
		}
	}
	apply(1, request("a", 1), request("b", 2))
	if s.copier.shun != 0 || s.copier.shunned != 0 {
		t.Errorf("new rows were not copied: %+v", s.copier)
	}
	done := event.Head{Job: "b", Type: event.JobCompleted, Time: at(9), Attempt: 1}
	apply(2, request("a", 0), request("b", 3), request("c", 4), factRecord(0, 0, done, nil))
	store := patient(NewStore(pool, nil, nil, nil))
	for id, want := range map[string]string{"a": "0", "b": "2", "c": "4"} {
		if got := mustFind(t, store, id).CustomID; got != want {
			t.Errorf("%s: the request of %s ms stands, want %s", id, got, want)
		}
	}
	if got := mustFind(t, store, "b").Status; got != "completed" {
		t.Errorf("b is %s", got)
	}
	// What failed is tried less often, and what succeeds as before.
	if s.copier.shun != 1 || s.copier.shunned != 1 {
		t.Errorf("after rows that were there: %+v", s.copier)
	}
	apply(3, request("d", 5))
	if apply(4, request("e", 6)); s.copier.shun != 0 || s.copier.shunned != 0 {
		t.Errorf("after new rows: %+v", s.copier)
	}
	for range 100 {
		s.copier.took(false)
	}
	if s.copier.shun != maxShunned {
		t.Errorf("%d transactions do not copy, at most %d are to", s.copier.shun, maxShunned)
	}
}

// Who copies holds locks that are in no order, so it must not wait for another's
// for ever.
func TestACopyGivesWayToWhoHoldsItsRow(t *testing.T) {
	pool := database(t)
	one := func(id string) []*row {
		rows, _, _ := folder{names}.fold([]event.Record{requestRecord(event.Batch, 0, 1, event.Head{Job: id, Time: at(1)}, event.Request{})})
		return rows
	}
	other, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback(t.Context()) //nolint:errcheck // it is committed
	if err := upsertRows(t.Context(), other, one("a")); err != nil {
		t.Fatal(err)
	}
	s := sink{pool: pool}
	err = s.transact(t.Context(), time.Millisecond, nil, func(tx pgx.Tx) error { return s.copier.write(t.Context(), tx, one("a")) })
	if !gaveWay(err) {
		t.Errorf("a copy that found its row locked: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.apply(t.Context(), one("a"), nil) }()
	eventually(t, "the upsert waits in the copy's place", func() bool {
		var waiting int
		err := pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT%'`).Scan(&waiting)
		return err == nil && waiting == 1
	})
	if err := other.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if gaveWay(nil) || gaveWay(&pgconn.PgError{Code: "22000"}) {
		t.Error("a copy gives way to no lock")
	}
}
