package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/postgres"
	"github.com/penstock-io/penstock/internal/testenv"
)

// database is a fresh database with the schema in it.
func database(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return openDatabase(tb, testenv.Postgres(tb))
}

func openDatabase(tb testing.TB, url string) *pgxpool.Pool {
	tb.Helper()
	pool, err := postgres.Open(tb.Context(), postgres.Config{URL: url})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	if _, err := postgres.Migrate(tb.Context(), pool, nil); err != nil {
		tb.Fatal(err)
	}
	return pool
}

// put folds records and writes them, without checkpoints.
func put(ctx context.Context, pool *pgxpool.Pool, records ...event.Record) error {
	rows, _, why := folder{names}.fold(records)
	return errors.Join(why, (&sink{pool: pool}).apply(ctx, rows, nil))
}

func mustPut(t *testing.T, pool *pgxpool.Pool, records ...event.Record) {
	t.Helper()
	if err := put(t.Context(), pool, records...); err != nil {
		t.Fatal(err)
	}
}

// patient is a store for what is not about its patience: a busy machine takes longer
// than two seconds over a row of 8 MiB.
func patient(s *Store) *Store { s.patience = time.Minute; return s }

func mustFind(t *testing.T, s *Store, id string) *job.Resource {
	t.Helper()
	res, err := s.Find(t.Context(), event.DefaultTenant, id)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestTableIsTheSameInWhateverOrderAndBatchesRecordsCome(t *testing.T) {
	pool := database(t)
	store := patient(NewStore(pool, nil, nil, nil))
	rapid.Check(t, func(r *rapid.T) {
		if _, err := pool.Exec(t.Context(), `DELETE FROM penstock.jobs`); err != nil {
			r.Fatal(err)
		}
		log := drawLog(r)
		for rest := shuffled(r, log); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(r, "batch")
			if err := put(t.Context(), pool, rest[:n]...); err != nil {
				r.Fatal(err)
			}
			rest = rest[n:]
		}
		for id, want := range reference(r, log) {
			got, err := store.Find(t.Context(), event.DefaultTenant, id)
			if err != nil {
				r.Fatal(err)
			}
			if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				r.Fatalf("%s (-reference +table):\n%s", id, diff)
			}
		}
	})
}

func TestEveryOrderOfOneJobsRecordsGivesTheSameRow(t *testing.T) {
	pool := database(t)
	store := patient(NewStore(pool, nil, nil, nil))
	h := func(typ event.Type, ms int) event.Head {
		return event.Head{Type: typ, Job: "a", Time: at(ms), Attempt: 1, Lane: event.Standard, Conversation: "c"}
	}
	log := []event.Record{
		requestRecord(event.Standard, 3, 7, h("", 0), event.Request{CustomID: "x"}),
		factRecord(3, 10, h(event.JobStarted, 1), event.Started{Model: "sim", Provider: "simulated"}),
		factRecord(3, 11, h(event.JobProgress, 2), nil),
		factRecord(3, 12, h(event.JobCompleted, 3), event.Fact{Model: "sim", Output: []event.OutputChoice{{Message: event.Message{Content: "hi"}}}}),
		factRecord(3, 13, h(event.JobFailed, 4), event.Failed{Code: "late", Message: "a zombie's"}),
	}
	want := reference(t, log)["a"]
	permute(log, func(order []event.Record) {
		if _, err := pool.Exec(t.Context(), `DELETE FROM penstock.jobs`); err != nil {
			t.Fatal(err)
		}
		for i := range order {
			mustPut(t, pool, order[i])
		}
		if diff := gocmp.Diff(want, mustFind(t, store, "a")); diff != "" {
			var types []string
			for _, r := range order {
				types = append(types, fmt.Sprint(r.Topic, r.Offset))
			}
			t.Fatalf("%v (-want +got):\n%s", types, diff)
		}
	})
}

// permute calls f with every order of s.
func permute[T any](s []T, f func([]T)) {
	if len(s) <= 1 {
		f(s)
		return
	}
	var at func(i int)
	at = func(i int) {
		if i == len(s) {
			f(s)
			return
		}
		for k := i; k < len(s); k++ {
			s[i], s[k] = s[k], s[i]
			at(i + 1)
			s[i], s[k] = s[k], s[i]
		}
	}
	at(0)
}

func TestWhatModelsAndClientsMaySayIsStored(t *testing.T) {
	pool := database(t)
	store := patient(NewStore(pool, nil, nil, nil))
	head := func(id string, typ event.Type) event.Head {
		return event.Head{Type: typ, Job: id, Time: epoch, Attempt: 1, Lane: event.Batch}
	}
	says := func(text string) event.Fact {
		return event.Fact{Model: "sim", Output: []event.OutputChoice{{Message: event.Message{Content: text}}}}
	}
	raw := func(id, data string) event.Record {
		h := head(id, event.JobCompleted)
		h.V, h.Tenant = 1, event.DefaultTenant
		return event.Record{Topic: names.Jobs(), Offset: 1, Time: epoch, Value: event.Append(nil, &h, []byte(data))}
	}
	huge := strings.Repeat("lorem ipsum dolor ", 8<<20/18)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	mustPut(t, pool,
		factRecord(0, 1, head("nul", event.JobCompleted), says("a\x00b")),
		factRecord(0, 2, head("huge", event.JobCompleted), says(huge)),
		raw("surrogate", `{"model":"sim","output":[{"index":0,"message":{"role":"assistant","content":"a\ud800b"},"finish_reason":"stop"}]}`),
		raw("bytes", "{\"model\":\"s\xffm\",\"output\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a\xfe\"},\"finish_reason\":\"stop\"}]}"),
		raw("twice", `{"model":"sim","model":"sim","output":[]}`),
		raw("numbers", `{"model":"sim","output":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"cost":1e999999}}`),
		raw("null", `{"model":"sim","output":null,"usage":null}`),
		raw("deep", `{"model":"sim","output":`+deep(9_900)+`}`),
		raw("other", `{"model":"sim","output":{"to":"come"},"usage":"many"}`),
		factRecord(0, 3, head("failed", event.JobFailed), event.Failed{Code: "provider_error", Message: "it said \x00"}),
		requestRecord(event.Batch, 0, 1, head("asked", ""), event.Request{
			CustomID: "id\x00", Metadata: map[string]string{"k\x00": "v\x00"}, Body: []byte(`{"model":"m\u0000"}`),
		}),
	)
	text := func(id string) string {
		t.Helper()
		res := mustFind(t, store, id)
		if res.Status != job.Completed || len(res.Output) != 1 {
			t.Fatalf("%s: %s with %d choices", id, res.Status, len(res.Output))
		}
		return res.Output[0].Message.Content
	}
	if got := text("nul"); got != "a\x00b" {
		t.Errorf("a NUL came back as %q", got)
	}
	if got := text("huge"); got != huge {
		t.Errorf("%d bytes came back as %d", len(huge), len(got))
	}
	if got := text("surrogate"); got != "a\uFFFDb" {
		t.Errorf("a lone surrogate came back as %q", got)
	}
	if got := text("bytes"); got != "a\uFFFD" {
		t.Errorf("invalid UTF-8 came back as %q", got)
	}
	for _, id := range []string{"twice", "numbers", "null", "deep", "other"} {
		if res := mustFind(t, store, id); res.Status != job.Completed || res.Model != "sim" {
			t.Errorf("%s: %s by %q", id, res.Status, res.Model)
		}
	}
	if u := mustFind(t, store, "numbers").Usage; u == nil || u.TotalTokens != 3 {
		t.Errorf("usage came back as %+v", u)
	}
	if e := mustFind(t, store, "failed").Error; e == nil || e.Message != "it said \x00" {
		t.Errorf("an error came back as %+v", e)
	}
	asked := mustFind(t, store, "asked")
	if asked.CustomID != "id\uFFFD" || asked.Model != "m\uFFFD" || asked.Metadata["k\x00"] != "v\x00" {
		t.Errorf("the request came back with %q, %q, %q", asked.CustomID, asked.Model, asked.Metadata)
	}
}

func TestApplyRollsBackWhenACheckpointIsElsewhere(t *testing.T) {
	pool := database(t)
	s := sink{pool: pool}
	one, two := kafka.TopicPartition{Topic: "t.jobs", Partition: 1}, kafka.TopicPartition{Topic: "t.jobs", Partition: 2}
	ids := map[string]string{"t.jobs": "id1"}
	found, err := s.load(t.Context(), map[kafka.TopicPartition]int64{one: 0, two: 5}, ids)
	if err != nil || found[one].next != 0 || found[two].next != 5 {
		t.Fatalf("fresh checkpoints: %v, %v", found, err)
	}
	if err := s.apply(t.Context(), nil, []move{{one, "id1", 0, 10}}); err != nil {
		t.Fatal(err)
	}
	// Once moved they stay, whatever the log's start is by then.
	if found, err = s.load(t.Context(), map[kafka.TopicPartition]int64{one: 3, two: 7}, ids); err != nil || found[one].next != 10 || found[two].next != 5 {
		t.Fatalf("checkpoints: %v, %v", found, err)
	}
	rows, _, _ := folder{names}.fold([]event.Record{factRecord(1, 4, event.Head{Type: event.JobStarted, Job: "a", Time: epoch}, nil)})
	err = s.apply(t.Context(), rows, []move{{one, "id1", 0, 5}, {two, "id1", 5, 6}})
	conflict, ok := errors.AsType[*conflictError](err)
	if !ok || len(conflict.found) != 1 || conflict.found[one].next != 10 || !strings.Contains(err.Error(), "1 checkpoints are not where they were left") {
		t.Fatalf("moving from where it is not: %v", err)
	}
	if err := s.apply(t.Context(), nil, []move{{two, "id2", 5, 6}}); !errors.As(err, &conflict) {
		t.Errorf("moving another topic's: %v", err)
	}
	if found, err = s.load(t.Context(), map[kafka.TopicPartition]int64{one: 0, two: 0}, ids); err != nil || found[two].next != 5 {
		t.Errorf("after the roll-back: %v, %v", found, err)
	}
	if _, err := patient(NewStore(pool, nil, nil, nil)).Find(t.Context(), event.DefaultTenant, "a"); !is(err, fault.NotFound) {
		t.Errorf("a row of a transaction that was rolled back: %v", err)
	}
	_, err = s.load(t.Context(), map[kafka.TopicPartition]int64{one: 0}, map[string]string{"t.jobs": "id2"})
	if recreated, ok := errors.AsType[*recreatedError](err); !ok || !strings.Contains(recreated.Error(), "t.jobs was deleted and created anew") {
		t.Errorf("a topic that was made anew: %v", err)
	}
}

func TestTwoWritersOnTheSamePartitionMoveItOnce(t *testing.T) {
	pool := database(t)
	s := sink{pool: pool}
	const end = 200
	records := make([]event.Record, end)
	for i := range records {
		records[i] = factRecord(0, int64(i), event.Head{Type: event.JobCompleted, Job: fmt.Sprint("j", i%50), Time: at(i), Attempt: i}, nil)
	}
	tp := kafka.TopicPartition{Topic: names.Jobs()}
	ids := map[string]string{names.Jobs(): "id"}
	if _, err := s.load(t.Context(), map[kafka.TopicPartition]int64{tp: 0}, ids); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	won := make([]int, 2)
	for w := range won {
		wg.Go(func() {
			s := sink{pool: pool}
			next := int64(0)
			for next < end {
				to := min(next+int64(7+w), end)
				rows, _, _ := folder{names}.fold(records[next:to])
				err := s.apply(t.Context(), rows, []move{{tp, "id", next, to}})
				conflict, ok := errors.AsType[*conflictError](err)
				switch {
				case err == nil:
					won[w] += int(to - next)
					next = to
				case ok:
					next = conflict.found[tp].next
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if won[0]+won[1] != end {
		t.Errorf("%d records were folded %d and %d times", end, won[0], won[1])
	}
}

// Two projectors may touch the same jobs in one instant, one with the requests
// and one with the facts.
func TestWritersOfTheSameJobsDoNotDeadlock(t *testing.T) {
	pool := database(t)
	var wg sync.WaitGroup
	const jobs = 300
	var requests, facts []event.Record
	for i := range jobs {
		h := event.Head{Type: event.JobCompleted, Job: fmt.Sprint("j", i), Time: at(i), Attempt: 1, Lane: event.Batch}
		facts = append(facts, factRecord(0, int64(i), h, nil))
		requests = append(requests, requestRecord(event.Batch, 0, int64(i), h, event.Request{}))
	}
	slices.Reverse(facts)
	for _, records := range [][]event.Record{requests, facts} {
		wg.Go(func() {
			for range 10 {
				if err := put(t.Context(), pool, records...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	var ended int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM penstock.jobs WHERE rank = 2 AND request_topic IS NOT NULL`).Scan(&ended); err != nil || ended != jobs {
		t.Errorf("%d of %d jobs are whole: %v", ended, jobs, err)
	}
}
