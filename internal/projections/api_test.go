package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// fakeRows is a table with what a test puts into it.
type fakeRows struct {
	find func(id string) (*job.Resource, error)
}

func (f *fakeRows) Find(ctx context.Context, tenant, id string) (*job.Resource, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if tenant != event.DefaultTenant {
		return nil, NotFound(id)
	}
	return f.find(id)
}

func (*fakeRows) List(context.Context, string, Filter) (Page, error) {
	return Page{}, errors.New("not listed")
}

// fakeLog is a log that answers as a test says.
type fakeLog struct {
	job       func() (*job.Resource, error)
	await     func(ctx context.Context) (*job.Resource, error)
	partition *int32 // that was asked for last
}

func (f *fakeLog) Job(_ context.Context, _, _ string, p *int32) (*job.Resource, error) {
	f.partition = p
	return f.job()
}

func (f *fakeLog) Await(ctx context.Context, _, _ string, p *int32) (*job.Resource, error) {
	f.partition = p
	return f.await(ctx)
}

func resource(s job.Status) *job.Resource {
	return &job.Resource{
		Object: "job", ID: "a", Status: s, Tenant: event.DefaultTenant,
		Request: &job.Position{Topic: "t.requests.batch", Partition: 5, Offset: 1}, Links: job.LinksOf("a"),
	}
}

// answered is an answer, decoded.
type answered struct {
	status int
	body   struct {
		job.Resource
		Error struct {
			Code    string `json:"code"`
			Param   string `json:"param"`
			Message string `json:"message"`
		} `json:"error"`
	}
}

func ask(t *testing.T, a *API, path string) (got answered) {
	t.Helper()
	r := api.NewRouter(api.Config{})
	a.Routes(r)
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
	got.status = rec.Code
	if err := json.Unmarshal(rec.Body.Bytes(), &got.body); err != nil {
		t.Fatalf("%s: %v: %s", path, err, rec.Body)
	}
	return got
}

func TestJobIsAnsweredFromTheTableElseFromTheLog(t *testing.T) {
	notFound := func() (*job.Resource, error) { return nil, NotFound("a") }
	away := func() (*job.Resource, error) { return nil, fault.New(fault.Unavailable, "away") }
	broken := func() (*job.Resource, error) { return nil, errors.New("broken") }
	is := func(s job.Status) func() (*job.Resource, error) {
		return func() (*job.Resource, error) { return resource(s), nil }
	}
	other := func() (*job.Resource, error) {
		res := resource(job.Running)
		res.Tenant = "other"
		return res, nil
	}
	for _, tc := range []struct {
		name     string
		row, log func() (*job.Resource, error)
		query    string
		status   int
		want     string // the job's status, or the error's code
	}{
		{"a row", is(job.Running), notFound, "", 200, "running"},
		{"no row yet", notFound, is(job.Queued), "", 200, "queued"},
		{"nowhere", notFound, notFound, "", 404, "not_found"},
		{"no row, and Kafka is away", notFound, away, "", 503, "unavailable"},
		{"PostgreSQL is away", away, is(job.Running), "", 200, "running"},
		{"PostgreSQL is away and the log does not have it", away, notFound, "", 503, "unavailable"},
		{"all is away", away, away, "", 503, "unavailable"},
		{"the table is broken", broken, is(job.Running), "", 200, "running"},
		{"the table is broken and the log has nothing", broken, notFound, "", 500, "internal_error"},
		{"another tenant's in the log", notFound, other, "", 404, "not_found"},
		{"wait: the row has ended", is(job.Failed), broken, "?wait=1s", 200, "failed"},
		{"wait: the log sees the end", is(job.Queued), is(job.Completed), "?wait=1s", 200, "completed"},
		{"wait: the row is further", is(job.Running), is(job.Queued), "?wait=1s", 200, "running"},
		{"wait: the log is further", is(job.Queued), is(job.Running), "?wait=1s", 200, "running"},
		{"wait: the log has let go of it", is(job.Queued), notFound, "?wait=1s", 200, "queued"},
		{"wait: Kafka is away", is(job.Queued), away, "?wait=1s", 200, "queued"},
		{"wait: no row", notFound, is(job.Cancelled), "?wait=60s", 200, "cancelled"},
		{"wait: nowhere", notFound, notFound, "?wait=30s", 404, "not_found"},
		{"wait: another tenant's", notFound, other, "?wait=30s", 404, "not_found"},
		{"no wait at all", is(job.Running), broken, "?wait=0s", 200, "running"},
	} {
		log := &fakeLog{job: tc.log, await: func(context.Context) (*job.Resource, error) { return tc.log() }}
		rows := &fakeRows{find: func(string) (*job.Resource, error) { return tc.row() }}
		got := ask(t, NewAPI(APIConfig{Rows: rows, Log: log, Partitions: 12}), "/v1/jobs/a"+tc.query)
		said := string(got.body.Status)
		if got.status != 200 {
			said = got.body.Error.Code
		}
		if got.status != tc.status || said != tc.want {
			t.Errorf("%s: %d %s, want %d %s", tc.name, got.status, said, tc.status, tc.want)
		}
	}
}

func TestRowThatEndsWhileTheLogWaitsIsAnswered(t *testing.T) {
	finds := 0
	rows := &fakeRows{find: func(string) (*job.Resource, error) {
		if finds++; finds == 1 {
			return resource(job.Running), nil
		}
		return resource(job.Completed), nil
	}}
	log := &fakeLog{await: func(context.Context) (*job.Resource, error) { return resource(job.Running), nil }}
	if got := ask(t, NewAPI(APIConfig{Rows: rows, Log: log, Partitions: 12}), "/v1/jobs/a?wait=1s"); got.body.Status != job.Completed {
		t.Errorf("answered %s", got.body.Status)
	}
}

func TestLogIsToldThePartition(t *testing.T) {
	log := &fakeLog{
		job:   func() (*job.Resource, error) { return resource(job.Queued), nil },
		await: func(context.Context) (*job.Resource, error) { return resource(job.Queued), nil },
	}
	var row error
	rows := &fakeRows{find: func(string) (*job.Resource, error) { return resource(job.Queued), row }}
	a := NewAPI(APIConfig{Rows: rows, Log: log, Partitions: 12})
	ask(t, a, "/v1/jobs/a?wait=1s")
	if log.partition == nil || *log.partition != 5 {
		t.Errorf("the row's partition is 5, the log was asked for %v", log.partition)
	}
	row = NotFound("a")
	ask(t, a, "/v1/jobs/a?partition=11")
	if log.partition == nil || *log.partition != 11 {
		t.Errorf("the reader named 11, the log was asked for %v", log.partition)
	}
	ask(t, a, "/v1/jobs/a")
	if log.partition != nil {
		t.Errorf("nobody knows the partition, the log was asked for %d", *log.partition)
	}
}

func TestAStopEndsTheWaitAndNotTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits, stop := context.WithCancel(t.Context())
		log := &fakeLog{await: func(ctx context.Context) (*job.Resource, error) {
			<-ctx.Done()
			return resource(job.Running), nil
		}}
		rows := &fakeRows{find: func(string) (*job.Resource, error) {
			stop() // in the middle of a request that does not wait yet
			return nil, NotFound("a")
		}}
		began := time.Now()
		got := ask(t, NewAPI(APIConfig{Rows: rows, Log: log, Partitions: 12, Waits: waits}), "/v1/jobs/a?wait=1m")
		if got.status != 200 || got.body.Status != job.Running || time.Since(began) > 0 {
			t.Errorf("%d %s after %v", got.status, got.body.Status, time.Since(began))
		}
	})
}

func TestWaitEndsWithTheTimeOrTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &fakeLog{await: func(ctx context.Context) (*job.Resource, error) {
			<-ctx.Done()
			return resource(job.Running), nil
		}}
		a := NewAPI(APIConfig{
			Rows: &fakeRows{find: func(string) (*job.Resource, error) { return nil, NotFound("a") }}, Log: log, Partitions: 12, MaxWaiters: 1,
		})
		began := time.Now()
		if got := ask(t, a, "/v1/jobs/a?wait=1m"); got.status != 200 || got.body.Status != job.Running || time.Since(began) != time.Minute {
			t.Errorf("%d %s after %v", got.status, got.body.Status, time.Since(began))
		}
		// One waits, and no more are let in.
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = a.answer(ctx, question{tenant: event.DefaultTenant, id: "a", wait: time.Minute})
		}()
		synctest.Wait()
		if got := ask(t, a, "/v1/jobs/a?wait=1s"); got.status != 429 || got.body.Error.Code != string(fault.Overloaded) {
			t.Errorf("beyond the bound: %d %s", got.status, got.body.Error.Code)
		}
		leave()
		<-done
		if _, err := a.answer(ctx, question{tenant: event.DefaultTenant, id: "a"}); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that left: %v", err)
		}
	})
}

func TestQueriesThatAreWrongAreToldWhatWouldBeRight(t *testing.T) {
	never := func() (*job.Resource, error) { return nil, errors.New("asked") }
	a := NewAPI(APIConfig{Rows: &fakeRows{find: func(string) (*job.Resource, error) { return never() }}, Log: &fakeLog{job: never}, Partitions: 12})
	for _, tc := range []struct{ path, param, says string }{
		{"/v1/jobs?state=queued", "state", "status, lane, batch"},
		{"/v1/jobs?status=done", "status", "queued, running, completed, failed, cancelled, expired"},
		{"/v1/jobs?status=queued&status=", "status", "one of"},
		{"/v1/jobs?lane=fast", "lane", "interactive, standard or batch"},
		{"/v1/jobs?batch=" + url.QueryEscape("a b"), "batch", "1 to 128"},
		{"/v1/jobs?conversation=", "conversation", "1 to 128"},
		{"/v1/jobs?conversation=" + strings.Repeat("x", 129), "conversation", "1 to 128"},
		{"/v1/jobs?created_after=yesterday", "created_after", "RFC 3339"},
		{"/v1/jobs?created_after=0001-01-01T00:00:00Z", "created_after", "RFC 3339"},
		{"/v1/jobs?created_after=2026-11-22T15:04:05+01:00", "created_after", "%2B"},
		{"/v1/jobs?created_after=2026-11-22T15:04:05Z&created_after=2026-11-22T15:04:05Z", "created_after", "once"},
		{"/v1/jobs?limit=0", "limit", "1 to 100"},
		{"/v1/jobs?limit=101", "limit", "1 to 100"},
		{"/v1/jobs?limit=ten", "limit", "1 to 100"},
		{"/v1/jobs?limit=1&limit=2", "limit", "once"},
		{"/v1/jobs?after=%00", "after", "last_id"},
		{"/v1/jobs?after=a&after=b", "after", "once"},
		{"/v1/jobs?order=up", "order", "asc"},
		{"/v1/jobs?order=", "order", "asc"},
		{"/v1/jobs?order=asc&order=asc", "order", "once"},
		{"/v1/jobs?" + strings.Repeat("lane=batch&", 51), "lane", "50 at most"},
		{"/v1/jobs?a=%zz", "", "percent-encoded"},
		{"/v1/jobs/a?a=%zz", "", "percent-encoded"},
		{"/v1/jobs/a?timeout=1s", "timeout", "wait, partition"},
		{"/v1/jobs/a?wait=61s", "wait", "up to 1m0s"},
		{"/v1/jobs/a?wait=61", "wait", "up to 1m0s"},
		{"/v1/jobs/a?wait=-1s", "wait", "up to 1m0s"},
		{"/v1/jobs/a?wait=long", "wait", "such as"},
		{"/v1/jobs/a?wait=99999999999999999999", "wait", "such as"},
		{"/v1/jobs/a?wait=30", "wait", "with its unit, such as 30s"},
		{"/v1/jobs/a?wait=0", "wait", "with its unit, such as 30s"},
		{"/v1/jobs/a?wait=", "wait", "with its unit, such as 30s"},
		{"/v1/jobs/a?partition=01", "partition", "in digits"},
		{"/v1/jobs/a?partition=%2B1", "partition", "in digits"},
		{"/v1/jobs?limit=%2B5", "limit", "limit"},
		{"/v1/jobs?limit=05", "limit", "limit"},
		{"/v1/jobs/a?wait=1s&wait=1s", "wait", "once"},
		{"/v1/jobs/a?partition=12", "partition", "0 to 11"},
		{"/v1/jobs/a?partition=-1", "partition", "0 to 11"},
		{"/v1/jobs/a?partition=", "partition", "0 to 11"},
		{"/v1/jobs/a?partition=1&partition=1", "partition", "once"},
	} {
		got := ask(t, a, tc.path)
		if got.status != 400 || got.body.Error.Param != tc.param || !strings.Contains(got.body.Error.Message, tc.says) {
			t.Errorf("%s: %d %+v, want 400 for %q that says %q", tc.path, got.status, got.body.Error, tc.param, tc.says)
		}
	}
	for _, path := range []string{"/v1/jobs/a%20b", "/v1/jobs/" + strings.Repeat("x", 129), "/v1/jobs/%00"} {
		if got := ask(t, a, path); got.status != 404 || got.body.Error.Code != string(fault.NotFound) {
			t.Errorf("%s: %d %s, want 404", path, got.status, got.body.Error.Code)
		}
	}
	if got := ask(t, a, "/v1/jobs"); got.status != 500 {
		t.Errorf("a list that cannot be had: %d", got.status)
	}
}

func TestListFiltersAndPages(t *testing.T) {
	pool := database(t)
	store := patient(NewStore(pool, nil, nil, nil))
	var records []event.Record
	for i := range 60 {
		h := event.Head{Job: fmt.Sprintf("j%02d", i), Time: at(i / 3 * 1000), Lane: event.Lanes()[i%3], Attempt: 1}
		if i%2 == 0 {
			h.Conversation = fmt.Sprint("c", i%4)
		}
		if i%5 == 0 {
			h.Batch = "b1"
		}
		records = append(records, requestRecord(h.Lane, 0, int64(i), h, event.Request{}))
		if i%4 == 0 {
			h.Type = event.JobCompleted
			records = append(records, factRecord(0, int64(i), h, event.Fact{Output: []event.OutputChoice{{}}}))
		}
	}
	alien := event.Head{Job: "alien", Tenant: "other", Time: at(0)}
	mustPut(t, pool, append(records, requestRecord(event.Batch, 0, 99, alien, event.Request{}))...)
	r := api.NewRouter(api.Config{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	NewAPI(APIConfig{Rows: store, Log: &fakeLog{}, Partitions: 1}).Routes(r)
	list := func(query string) (ids []string, more bool) {
		t.Helper()
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/jobs?"+query, http.NoBody))
		var page struct {
			Object  string         `json:"object"`
			Data    []job.Resource `json:"data"`
			FirstID *string        `json:"first_id"`
			LastID  *string        `json:"last_id"`
			HasMore bool           `json:"has_more"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil || rec.Code != 200 || page.Object != "list" {
			t.Fatalf("%s: %d %v: %s", query, rec.Code, err, rec.Body)
		}
		for i := range page.Data {
			ids = append(ids, page.Data[i].ID)
			if page.Data[i].Output != nil {
				t.Errorf("%s: %s has its output", query, page.Data[i].ID)
			}
		}
		if len(ids) > 0 && (*page.FirstID != ids[0] || *page.LastID != ids[len(ids)-1]) || len(ids) == 0 && page.FirstID != nil {
			t.Errorf("%s: first_id and last_id are not the data's", query)
		}
		return ids, page.HasMore
	}
	for _, order := range []string{"asc", "desc"} {
		var all []string
		for query, more := "", true; more; query = "&after=" + all[len(all)-1] {
			var ids []string
			ids, more = list("limit=7&order=" + order + query)
			all = append(all, ids...)
		}
		var want []string
		for i := range 60 {
			if order == "desc" {
				i = 59 - i
			}
			want = append(want, fmt.Sprintf("j%02d", i))
		}
		if diff := gocmp.Diff(want, all); diff != "" {
			t.Errorf("%s (-want +got):\n%s", order, diff)
		}
	}
	for query, want := range map[string]int{
		"":                           20,
		"limit=100":                  60,
		"limit=100&status=completed": 15,
		"limit=100&status=completed&status=queued": 60,
		"status=failed":                                  0,
		"limit=100&lane=batch":                           20,
		"limit=100&lane=batch&lane=standard":             40,
		"limit=100&batch=b1":                             12,
		"limit=100&conversation=c0":                      15,
		"limit=100&conversation=c0&conversation=c2":      30,
		"limit=100&conversation=c0&status=queued":        0,
		"limit=100&created_after=2026-11-22T15:04:23Z":   3,
		"limit=100&created_after=2026-11-22T15:04:22.9Z": 6,
	} {
		if ids, _ := list(query); len(ids) != want {
			t.Errorf("%q: %d jobs, want %d", query, len(ids), want)
		}
	}
	if _, err := store.List(t.Context(), event.DefaultTenant, Filter{After: "alien"}); !is(err, fault.InvalidRequest) {
		t.Errorf("a page after another tenant's job: %v", err)
	}
	if _, err := store.List(t.Context(), event.DefaultTenant, Filter{Limit: 101}); !is(err, fault.InvalidRequest) {
		t.Errorf("a page of 101: %v", err)
	}
	if _, err := store.Find(t.Context(), event.DefaultTenant, "alien"); !is(err, fault.NotFound) {
		t.Errorf("another tenant's job: %v", err)
	}
}
