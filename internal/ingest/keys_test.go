package ingest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/postgres"
	"github.com/penstock-io/penstock/internal/testenv"
)

func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: testenv.Postgres(t), MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := postgres.Migrate(t.Context(), pool, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return pool
}

func execute(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// repeats reads which records say that they may be there twice, by job.
func repeats(t *testing.T, recs []event.Record) (jobs map[string]int, marked int) {
	t.Helper()
	jobs = map[string]int{}
	for i := range recs {
		h, r, err := event.DecodeRequest(&recs[i])
		if err != nil {
			t.Fatal(err)
		}
		jobs[h.Job]++
		if r.Repeat {
			marked++
		}
		if id, ok := job.ParseID(h.Job); !ok || !id.Time.Equal(h.Time) || !recs[i].Time.Equal(h.Time) {
			t.Errorf("the times of %s differ: id %v, head %v, record %v", h.Job, id.Time, h.Time, recs[i].Time)
		}
	}
	return jobs, marked
}

func TestSameKeyAndBodyGetTheSameAnswer(t *testing.T) {
	log := &fakeLog{}
	pool := database(t)
	h := handler(newService(t, Config{Producer: log, Keys: pool}))
	first, _ := send(t, h, hi, "Idempotency-Key", "k")
	receipt(t, first)
	if first.Header().Get("Idempotent-Replayed") != "" {
		t.Error("the first answer says that it is a replay")
	}
	// Another process answers the same, even where it would let in no more.
	later := handler(newService(t, Config{Producer: log, Keys: pool, Admission: door(func(event.Lane) error { return fault.New(fault.Overloaded, "full") })}))
	for _, h := range []http.Handler{h, later} {
		again, _ := send(t, h, hi, "Idempotency-Key", "k")
		if again.Code != first.Code || again.Body.String() != first.Body.String() ||
			again.Header().Get("Idempotent-Replayed") != "true" || again.Header().Get("Location") != first.Header().Get("Location") {
			t.Errorf("%d %s %v\nwant %s", again.Code, again.Body, again.Header(), first.Body)
		}
	}
	if w, a := send(t, h, hi+" ", "Idempotency-Key", "k"); w.Code != http.StatusUnprocessableEntity || a.Error.Code != fault.IdempotencyMismatch {
		t.Errorf("another body: %d %+v", w.Code, a)
	}
	if w, _ := send(t, later, hi, "Idempotency-Key", "new"); w.Code != http.StatusTooManyRequests {
		t.Errorf("a new key where nothing is let in: %d", w.Code)
	}
	if other, _ := send(t, h, hi, "Idempotency-Key", "other"); other.Body.String() == first.Body.String() {
		t.Error("two keys, one job")
	}
	if n := len(log.records()); n != 2 {
		t.Errorf("%d records for two keys", n)
	}
	execute(t, pool, `UPDATE penstock.idempotency_keys SET created_at = now() - interval '25 hours'`)
	if w, _ := send(t, h, hi+" ", "Idempotency-Key", "k"); w.Code != http.StatusAccepted || w.Header().Get("Idempotent-Replayed") != "" {
		t.Errorf("a key past its time: %d %s", w.Code, w.Body)
	}
}

func TestSubmitReplaysByContentAndByTenant(t *testing.T) {
	log := &fakeLog{}
	s := newService(t, Config{Producer: log, Keys: database(t)})
	in := job.Request{Body: []byte(`{"model":"sim"}`), Metadata: map[string]string{"a": "1", "b": "2"}}
	first, err := s.Submit(t.Context(), "a", in, job.SubmitOptions{IdempotencyKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Submit(t.Context(), "a", in, job.SubmitOptions{IdempotencyKey: "k"})
	if err != nil || again.ID != first.ID || *again.Request != *first.Request || first.Replayed || !again.Replayed {
		t.Errorf("%+v, %v", again, err)
	}
	other, err := s.Submit(t.Context(), "b", in, job.SubmitOptions{IdempotencyKey: "k"})
	if err != nil || other.ID == first.ID {
		t.Errorf("another tenant's key: %+v, %v", other, err)
	}
	in.Lane = event.Batch
	if _, err := s.Submit(t.Context(), "a", in, job.SubmitOptions{IdempotencyKey: "k"}); fault.From(err).Code != fault.IdempotencyMismatch {
		t.Errorf("another lane: %v", err)
	}
	if _, err := s.Submit(t.Context(), "a", in, job.SubmitOptions{IdempotencyKey: "a b"}); fault.From(err).Param != "Idempotency-Key" {
		t.Errorf("a key that is none: %v", err)
	}
}

func TestKeyIsVisibleASCII(t *testing.T) {
	log := &fakeLog{}
	h := handler(newService(t, Config{Producer: log}))
	for _, bad := range []string{"", "a b", "é", strings.Repeat("k", 256)} {
		if w, a := send(t, h, hi, "Idempotency-Key", bad); w.Code != http.StatusBadRequest || a.Error.Param != "Idempotency-Key" {
			t.Errorf("%q: %d %+v", bad, w.Code, a)
		}
	}
	if w, a := send(t, h, hi, "Idempotency-Key", strings.Repeat("k", 255)); w.Code != http.StatusServiceUnavailable || !strings.Contains(a.Error.Message, "leave it out") {
		t.Errorf("no database: %d %+v", w.Code, a)
	}
	if len(log.records()) != 0 {
		t.Error("something was produced")
	}
}

func TestUnknownOutcomeKeepsTheKeyAndTheNextTryIsTheSameJob(t *testing.T) {
	log := &fakeLog{fail: kafka.ErrUnknownOutcome}
	pool := database(t)
	now := noon
	h := handler(newService(t, Config{Producer: log, Keys: pool, Now: func() time.Time { return now }, Cursors: fixedCursors("c")}))
	body := `{"body":{"model":"sim"},"deadline":"2026-11-22T13:00:00Z"}`
	if _, a := send(t, h, body, "Idempotency-Key", "k"); a.Error.Code != fault.UnknownOutcome {
		t.Fatalf("%+v", a)
	}
	var reserved string
	if err := pool.QueryRow(t.Context(), `SELECT job FROM penstock.idempotency_keys WHERE status IS NULL`).Scan(&reserved); err != nil {
		t.Fatal(err)
	}
	now = noon.Add(2 * time.Hour) // past the deadline: it may have been let in all the same
	if _, a := send(t, h, body, "Idempotency-Key", "k"); a.Error.Code != fault.UnknownOutcome {
		t.Fatalf("still away: %+v", a)
	}
	log.failWith(nil)
	w, _ := send(t, h, body, "Idempotency-Key", "k")
	if res := receipt(t, w); res.ID != reserved || !res.CreatedAt.Equal(noon.Truncate(time.Millisecond)) {
		t.Errorf("job %s made at %v, want %s", res.ID, res.CreatedAt, reserved)
	} else if res.Cursor != "" {
		t.Errorf("its cursor is %s, and its output may stand before that", res.Cursor)
	}
	if jobs, marked := repeats(t, log.records()); jobs[reserved] != 1 || marked != 1 {
		t.Errorf("records %v, %d marked", jobs, marked)
	}
	if again, _ := send(t, h, body, "Idempotency-Key", "k"); again.Body.String() != w.Body.String() {
		t.Error("and then the same answer")
	}
	if _, a := send(t, h, body, "Idempotency-Key", "late"); a.Error.Code != fault.DeadlineExceeded {
		t.Errorf("a new key past the deadline: %+v", a)
	}
}

func TestKeyOfSomebodyElsesJobIsADefect(t *testing.T) {
	pool := database(t)
	h := handler(newService(t, Config{Producer: &fakeLog{}, Keys: pool}))
	_, _ = send(t, h, hi, "Idempotency-Key", "k")
	execute(t, pool, `UPDATE penstock.idempotency_keys SET job = 'strange', status = NULL, response = NULL`)
	if w, a := send(t, h, hi, "Idempotency-Key", "k"); a.Error.Code != fault.Internal {
		t.Errorf("%d %+v", w.Code, a)
	}
}

// Two processes, many requests at once: one job, one answer.
func TestRequestsThatRaceForAKeyGetOneJobAndOneAnswer(t *testing.T) {
	log := &fakeLog{}
	pool := database(t)
	services := []http.Handler{
		handler(newService(t, Config{Producer: log, Keys: pool})), handler(newService(t, Config{Producer: log, Keys: pool})),
	}
	const rounds, racers = 5, 24
	for round := range rounds {
		key := fmt.Sprintf("k%d", round)
		bodies := make([]string, racers)
		fresh := make([]bool, racers)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range racers {
			wg.Go(func() {
				<-start
				w, _ := send(t, services[i%2], hi, "Idempotency-Key", key)
				bodies[i], fresh[i] = w.Body.String(), w.Header().Get("Idempotent-Replayed") == ""
			})
		}
		close(start)
		wg.Wait()
		firsts := 0
		for i := range bodies {
			if bodies[i] != bodies[0] || !strings.Contains(bodies[i], `"status":"queued"`) {
				t.Fatalf("two answers:\n%s\n%s", bodies[0], bodies[i])
			}
			if fresh[i] {
				firsts++
			}
		}
		if firsts != 1 {
			t.Errorf("%d requests say that theirs was the first", firsts)
		}
	}
	jobs, marked := repeats(t, log.records())
	if len(jobs) != rounds || len(log.records())-marked != rounds {
		t.Errorf("%d jobs, %d records of which %d are marked as repeats; want %d jobs, each unmarked once",
			len(jobs), len(log.records()), marked, rounds)
	}
}

func TestWaitingForAnotherRequestsAnswerIsBounded(t *testing.T) {
	log := &fakeLog{wait: make(chan struct{})}
	s := newService(t, Config{Producer: log, Keys: database(t), AppendTimeout: 300 * time.Millisecond})
	codes := make(chan fault.Code, 3)
	for range 3 {
		go func() {
			_, err := s.Submit(context.WithoutCancel(t.Context()), "a", job.Request{Body: []byte(`{"model":"sim"}`)}, job.SubmitOptions{IdempotencyKey: "k"})
			codes <- fault.From(err).Code
		}()
	}
	seen := map[fault.Code]int{}
	for range 3 {
		select {
		case c := <-codes:
			seen[c]++
		case <-time.After(30 * time.Second):
			t.Fatalf("after half a minute: %v", seen)
		}
	}
	if seen[fault.UnknownOutcome] == 0 || seen[fault.UnknownOutcome]+seen[fault.Unavailable] != 3 {
		t.Errorf("%v", seen)
	}
}

// silent accepts connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns []net.Conn
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
		}
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

func TestPostgresAwayIsTold503InTimeAndIsNotNeededWithoutAKey(t *testing.T) {
	for name, addr := range map[string]string{"refused": "127.0.0.1:1", "silent": silent(t)} {
		pool, err := pgxpool.New(t.Context(), "postgres://u:p@"+addr+"/d?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		log := &fakeLog{}
		h := handler(newService(t, Config{Producer: log, Keys: pool, KeyTimeout: 200 * time.Millisecond}))
		began := time.Now()
		w, a := send(t, h, hi, "Idempotency-Key", "k")
		if w.Code != http.StatusServiceUnavailable || a.Error.Code != fault.Unavailable || !strings.Contains(a.Error.Message, "without a key") {
			t.Errorf("%s: %d %+v", name, w.Code, a)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
		if len(log.records()) != 0 {
			t.Errorf("%s: something was produced", name)
		}
		if w, _ := send(t, h, hi); w.Code != http.StatusAccepted {
			t.Errorf("%s: without a key: %d", name, w.Code)
		}
	}
}

// leaving is a database that goes away after the key was reserved.
type leaving struct {
	*pgxpool.Pool
	queries int
}

type failedRow struct{}

func (failedRow) Scan(...any) error { return io.ErrUnexpectedEOF }

func (l *leaving) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if l.queries++; l.queries == 2 {
		return failedRow{}
	}
	return l.Pool.QueryRow(ctx, sql, args...)
}

func TestJobStandsWhereItsAnswerCouldNotBeKept(t *testing.T) {
	log := &fakeLog{}
	h := handler(newService(t, Config{Producer: log, Keys: &leaving{Pool: database(t)}}))
	w, _ := send(t, h, hi, "Idempotency-Key", "k")
	first := receipt(t, w)
	w, _ = send(t, h, hi, "Idempotency-Key", "k")
	if again := receipt(t, w); again.ID != first.ID {
		t.Errorf("another job: %s and %s", first.ID, again.ID)
	}
	if jobs, marked := repeats(t, log.records()); len(jobs) != 1 || marked != 1 {
		t.Errorf("%v, %d marked", jobs, marked)
	}
}

func TestOldKeysAreDeletedInBatches(t *testing.T) {
	pool := database(t)
	execute(t, pool, `INSERT INTO penstock.idempotency_keys (tenant, key, body_hash, job, created_at)
		SELECT 't', 'old' || n, '', 'j', now() - interval '25 hours' FROM generate_series(1, $1) n`, 2*cleanBatch+1)
	execute(t, pool, `INSERT INTO penstock.idempotency_keys (tenant, key, body_hash, job) VALUES ('t', 'young', '', 'j')`)
	s := newService(t, Config{Producer: &fakeLog{}, Keys: pool})
	if n, err := s.clean(t.Context()); n != 2*cleanBatch+1 || err != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
	left := 0
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM penstock.idempotency_keys`).Scan(&left); err != nil || left != 1 {
		t.Errorf("%d left, %v", left, err)
	}
}

// counted is a database of which only the cleaner asks.
type counted struct {
	Database
	calls chan int
	n     int
}

func (c *counted) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	c.n++
	c.calls <- c.n
	if c.n == 1 {
		return pgconn.CommandTag{}, io.ErrUnexpectedEOF
	}
	return pgconn.NewCommandTag("DELETE 7"), nil
}
