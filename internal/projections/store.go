package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/postgres"
)

const (
	// queryPatience bounds a question to the tables: where the server is away,
	// the log may answer instead.
	queryPatience = 2 * time.Second
	// comeBack is what a client is told to wait while the server is away.
	comeBack = time.Second
	// DefaultLimit is how many jobs a page has where nobody says.
	DefaultLimit = 20
	// MaxLimit bounds the jobs of a page.
	MaxLimit = 100
)

// Offsets is what a Store needs of Kafka to tell its lag.
type Offsets interface {
	Offsets(ctx context.Context, topic string, at kafka.At) (map[int32]int64, error)
}

// Store reads the tables. Its methods may be called from many goroutines.
type Store struct {
	pool    *pgxpool.Pool
	offsets Offsets
	topics  []string
	log     *slog.Logger

	patience time.Duration // of a question
}

// NewStore makes a Store. offsets may be nil where Lag is not asked for; topics
// are those that the projection folds (Topics); a nil logger discards.
func NewStore(pool *pgxpool.Pool, offsets Offsets, topics []string, log *slog.Logger) *Store {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Store{pool: pool, offsets: offsets, topics: topics, log: log, patience: queryPatience}
}

// shortColumns are the columns of a job in a list; outputColumn is what one job
// has in addition, and what a hundred of them would not fit into memory with.
const (
	shortColumns = `tenant, id, lane, COALESCE(conversation, ''), COALESCE(batch, ''), status,
	COALESCE(endpoint, ''), COALESCE(model, ''), COALESCE(provider, ''), attempt,
	created_at, started_at, ended_at, deadline, COALESCE(custom_id, ''), metadata, usage, error,
	request_topic, request_partition, request_offset`
	outputColumn = `, output`
)

// Find gives one job, fault.NotFound or fault.Unavailable.
func (s *Store) Find(ctx context.Context, tenant, id string) (*job.Resource, error) {
	asking, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	rows, err := s.pool.Query(asking, `SELECT `+shortColumns+outputColumn+` FROM penstock.jobs WHERE tenant = $1 AND id = $2`, tenant, id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	res, err := pgx.CollectExactlyOneRow(rows, func(r pgx.CollectableRow) (*job.Resource, error) { return s.scan(ctx, r, true) })
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, NotFound(id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return res, nil
}

// NotFound is the answer for a job that is not there, or another tenant's.
func NotFound(id string) error { return fault.New(fault.NotFound, "there is no job %.140q", id) }

// fail sorts an error of the database. A caller that gave up gets its own.
func (*Store) fail(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("read jobs: %w", ctx.Err())
	case postgres.Unavailable(err):
		f := fault.Wrap(err, fault.Unavailable, "PostgreSQL is away, so the table of jobs cannot be read: try again shortly")
		f.RetryAfter = comeBack
		return f
	default:
		return fmt.Errorf("read jobs: %w", err)
	}
}

func (s *Store) scan(ctx context.Context, r pgx.CollectableRow, whole bool) (*job.Resource, error) {
	res := &job.Resource{Object: "job"}
	var (
		lane                            string
		created                         time.Time
		started, ended, deadline        pgtype.Timestamptz
		metadata, usage, failed, output []byte
		topic                           pgtype.Text
		partition                       pgtype.Int4
		offset                          pgtype.Int8
	)
	into := []any{
		&res.Tenant, &res.ID, &lane, &res.Conversation, &res.Batch, &res.Status, &res.Endpoint, &res.Model, &res.Provider, &res.Attempt,
		&created, &started, &ended, &deadline, &res.CustomID, &metadata, &usage, &failed, &topic, &partition, &offset,
	}
	if whole {
		into = append(into, &output)
	}
	if err := r.Scan(into...); err != nil {
		return nil, err
	}
	if got, err := event.ParseLane(lane); err == nil {
		res.Lane = got
	}
	res.CreatedAt = job.Time{Time: created.UTC()}
	for _, t := range [...]struct {
		from *pgtype.Timestamptz
		to   *job.Time
	}{{&started, &res.StartedAt}, {&ended, &res.EndedAt}, {&deadline, &res.Deadline}} {
		if t.from.Valid {
			t.to.Time = t.from.Time.UTC()
		}
	}
	for _, v := range [...]struct {
		name string
		from []byte
		to   any
	}{{"metadata", metadata, &res.Metadata}, {"output", output, &res.Output}, {"usage", usage, &res.Usage}, {"error", failed, &res.Error}} {
		if v.from == nil {
			continue
		}
		// One column that is not as it should be does not hide the job.
		if err := json.Unmarshal(v.from, v.to, lenient()); err != nil {
			s.log.WarnContext(ctx, "a job's column is not what it should be",
				slog.String("job", res.ID), slog.String("column", v.name), slog.Any("error", err))
		}
	}
	if topic.Valid {
		res.Request = &job.Position{Topic: topic.String, Partition: partition.Int32, Offset: offset.Int64}
	}
	res.Links = job.LinksOf(res.ID)
	return res, nil
}

// Filter says which jobs to list, and which page of them.
type Filter struct {
	Status       []job.Status // any of these; empty: any
	Lane         []event.Lane
	Batch        []string
	Conversation []string
	CreatedAfter time.Time // zero: ever
	Limit        int       // 1 to MaxLimit; 0: DefaultLimit
	After        string    // the id of the job before the page's first; "": from the beginning
	Ascending    bool      // oldest first; false: newest first
}

// Page is a part of a list. Its jobs have no Output: ask for one job to see it.
type Page struct {
	Jobs []*job.Resource
	More bool // whether there are further ones
}

// List gives a page of a tenant's jobs, by the time at which they were created.
// The error is fault.InvalidRequest where After is no job of the tenant's, or
// fault.Unavailable.
func (s *Store) List(ctx context.Context, tenant string, f Filter) (Page, error) {
	if f.Limit == 0 {
		f.Limit = DefaultLimit
	}
	if f.Limit < 1 || f.Limit > MaxLimit {
		return Page{}, limitFault(strconv.Itoa(f.Limit))
	}
	asking, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	var after time.Time
	if f.After != "" {
		err := s.pool.QueryRow(asking, `SELECT created_at FROM penstock.jobs WHERE tenant = $1 AND id = $2`, tenant, f.After).Scan(&after)
		if errors.Is(err, pgx.ErrNoRows) {
			return Page{}, fault.Param("after", "after: there is no job %.140q: it must be the last_id of the page before", f.After)
		}
		if err != nil {
			return Page{}, s.fail(ctx, err)
		}
	}
	sql, args := listQuery(tenant, f, after)
	rows, err := s.pool.Query(asking, sql, args...)
	if err != nil {
		return Page{}, s.fail(ctx, err)
	}
	jobs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*job.Resource, error) { return s.scan(ctx, r, false) })
	if err != nil {
		return Page{}, s.fail(ctx, err)
	}
	if len(jobs) > f.Limit {
		return Page{Jobs: jobs[:f.Limit], More: true}, nil
	}
	return Page{Jobs: jobs}, nil
}

// Oldest gives the job of a conversation that was made first and has not ended,
// nil where there is none.
func (s *Store) Oldest(ctx context.Context, tenant, conversation string) (*job.Resource, error) {
	page, err := s.List(ctx, tenant, Filter{
		Status: []job.Status{job.Queued, job.Running}, Conversation: []string{conversation}, Limit: 1, Ascending: true,
	})
	if err != nil || len(page.Jobs) == 0 {
		return nil, err
	}
	return page.Jobs[0], nil
}

func limitFault(got string) error {
	return fault.Param("limit", "limit: %.40q is out of range: it must be 1 to %d", got, MaxLimit)
}

// listQuery asks for one more than the page holds, to see whether there is more.
func listQuery(tenant string, f Filter, after time.Time) (string, []any) {
	args := []any{tenant}
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	where := []string{"tenant = $1"}
	among := func(column string, values []string) {
		if len(values) > 0 {
			where = append(where, column+" = ANY ("+arg(values)+")")
		}
	}
	among("status", textsOf(f.Status, func(v job.Status) string { return string(v) }))
	if len(f.Status) > 0 && !slices.Contains(f.Status, job.Completed) {
		where = append(where, "status <> 'completed'") // so that the index on the others is seen to do
	}
	among("lane", textsOf(f.Lane, event.Lane.String))
	among("batch", f.Batch)
	among("conversation", f.Conversation)
	if !f.CreatedAfter.IsZero() {
		where = append(where, "created_at > "+arg(f.CreatedAfter))
	}
	beyond, order := "<", "DESC"
	if f.Ascending {
		beyond, order = ">", "ASC"
	}
	if f.After != "" {
		where = append(where, fmt.Sprintf("(created_at, id) %s (%s, %s)", beyond, arg(after), arg(f.After)))
	}
	sql := fmt.Sprintf("SELECT %s FROM penstock.jobs WHERE %s ORDER BY created_at %s, id %s LIMIT %s",
		shortColumns, strings.Join(where, " AND "), order, order, arg(f.Limit+1))
	return sql, args
}

func textsOf[T any](values []T, text func(T) string) []string {
	out := make([]string, 0, len(values))
	for _, v := range values {
		out = append(out, text(v))
	}
	return out
}

// Lag gives, by topic, how many records are not folded yet. A partition without
// a checkpoint counts from its beginning. Errors are fault.Unavailable, of
// whichever of the two servers is away.
func (s *Store) Lag(ctx context.Context) (map[string]int64, error) {
	behind, err := s.Behind(ctx)
	if err != nil {
		return nil, err
	}
	lag := make(map[string]int64, len(s.topics))
	for _, topic := range s.topics {
		lag[topic] = 0
	}
	for _, b := range behind {
		lag[b.Topic] += b.Records
	}
	return lag, nil
}

// Behind is a partition that is not folded to its end.
type Behind struct {
	kafka.TopicPartition
	Next    int64 // the first offset that is not folded
	Records int64 // offsets from there to the end
}

// Behind gives the partitions of which records are not folded yet, as Lag counts
// them.
func (s *Store) Behind(ctx context.Context) ([]Behind, error) {
	next, err := s.positions(ctx)
	if err != nil {
		return nil, err
	}
	var behind []Behind
	for _, topic := range s.topics {
		var starts map[int32]int64
		ends, err := s.offsets.Offsets(ctx, topic, kafka.End())
		if err == nil {
			starts, err = s.offsets.Offsets(ctx, topic, kafka.Start())
		}
		if err != nil {
			return nil, fault.Wrap(err, fault.Unavailable, "Kafka does not tell where %s ends", topic)
		}
		for partition, end := range ends {
			b := Behind{TopicPartition: kafka.TopicPartition{Topic: topic, Partition: partition}}
			b.Next = max(starts[partition], next[b.TopicPartition])
			if b.Records = end - b.Next; b.Records > 0 {
				behind = append(behind, b)
			}
		}
	}
	return behind, nil
}

// positions reads every checkpoint of the projection.
func (s *Store) positions(ctx context.Context) (map[kafka.TopicPartition]int64, error) {
	asking, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	rows, err := s.pool.Query(asking,
		`SELECT topic, part, next_offset FROM penstock.checkpoints WHERE projection = $1 AND version = $2`, projection, version)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	next := map[kafka.TopicPartition]int64{}
	var tp kafka.TopicPartition
	var offset int64
	if _, err := pgx.ForEachRow(rows, []any{&tp.Topic, &tp.Partition, &offset}, func() error {
		next[tp] = offset
		return nil
	}); err != nil {
		return nil, s.fail(ctx, err)
	}
	return next, nil
}
