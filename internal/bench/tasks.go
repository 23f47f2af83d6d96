package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/kafka/bare"
	"github.com/penstock-io/penstock/internal/postgres"
	"github.com/penstock-io/penstock/internal/topics"
)

// TasksConfig says where tasks are measured. All of it is done on topics and in
// a database of its own, which are deleted afterwards.
type TasksConfig struct {
	Kafka    []string
	Postgres string // URL; its user must be allowed to create a database
	Tasks    int
	Lane     event.Lane
	// Penstock makes the one that is measured, of all roles and with
	// simulated models.
	Penstock func(Deployment) (Penstock, error)
	// Model is asked for by every task; "" is InstantModel.
	Model  string
	Keep   bool // leave topics and database behind
	Stream bool // as watched jobs, which write their tokens
	Log    *slog.Logger
}

// Deployment is where a Penstock is to work.
type Deployment struct {
	Kafka    []string
	Postgres string
	Topics   topics.Options
}

// Penstock is one in this process, of all roles; *app.App is one.
type Penstock interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
	Metrics() prometheus.Gatherer
}

// TaskRun is what one run measured.
type TaskRun struct {
	Tasks   int
	Elapsed time.Duration // from the first request that is read to the last row
	CPU     time.Duration // of this process meanwhile: no broker's, no database's
	// Middle is the rate in tasks a second from when a tenth of the tasks was done
	// to when nine tenths were, so without the run's beginning and its tail. 0 where
	// the run was too short to tell.
	Middle float64
}

// PerSecond is the rate.
func (r TaskRun) PerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Tasks) / r.Elapsed.Seconds()
}

// ground is a set of topics and a database for one run.
type ground struct {
	cfg   TasksConfig
	name  string
	admin *pgx.Conn // to the database that was given
	url   string    // of ours
	pool  *pgxpool.Pool
}

func newGround(ctx context.Context, cfg TasksConfig) (_ *ground, err error) {
	g := &ground{cfg: cfg, name: "bench_" + strconv.FormatInt(time.Now().UnixNano(), 36)}
	if g.admin, err = pgx.Connect(ctx, cfg.Postgres); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer func() {
		if err != nil {
			g.close(ctx)
		}
	}()
	if _, err := g.admin.Exec(ctx, "CREATE DATABASE "+g.name); err != nil {
		return nil, fmt.Errorf("bench: a database of its own is needed: %w", err)
	}
	u, err := url.Parse(cfg.Postgres)
	if err != nil {
		return nil, fmt.Errorf("bench: the database's address is no URL: %w", err)
	}
	u.Path = "/" + g.name
	g.url = u.String()
	if g.pool, err = postgres.Open(ctx, postgres.Config{URL: g.url}); err != nil {
		return nil, err //nolint:wrapcheck // it says what it could not do
	}
	return g, nil
}

func (g *ground) close(ctx context.Context) {
	const goodbye = 20 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if g.pool != nil {
		g.pool.Close()
	}
	if !g.cfg.Keep {
		if _, err := g.admin.Exec(ctx, "DROP DATABASE IF EXISTS "+g.name+" WITH (FORCE)"); err != nil {
			g.cfg.Log.WarnContext(ctx, "a database is left behind", slog.String("name", g.name), slog.Any("error", err))
		}
	}
	_ = g.admin.Close(ctx)
}

// BareTasks measures the bare loop.
func BareTasks(ctx context.Context, cfg TasksConfig) (TaskRun, error) {
	g, err := newGround(ctx, cfg)
	if err != nil {
		return TaskRun{}, err
	}
	defer g.close(ctx)
	if _, err := g.pool.Exec(ctx, `CREATE TABLE jobs (id text PRIMARY KEY, status text, out text, updated timestamptz DEFAULT now());
		CREATE TABLE checkpoints (part int PRIMARY KEY, through bigint)`); err != nil {
		return TaskRun{}, fmt.Errorf("bench: %w", err)
	}
	tasks, err := bare.NewTasks(ctx, cfg.Kafka, g.name, cfg.Tasks)
	if err != nil {
		return TaskRun{}, err //nolint:wrapcheck // it says what it could not do
	}
	defer tasks.Close(ctx)
	g.phase(ctx, "bare", cfg.Tasks)
	before := cpu()
	took, err := tasks.Run(ctx, g.projectBare)
	g.phase(ctx, "over", 0)
	if err != nil {
		return TaskRun{}, err //nolint:wrapcheck // as above
	}
	return TaskRun{Tasks: cfg.Tasks, Elapsed: took, CPU: cpu() - before}, nil
}

// projectBare is the bare loop's transaction.
func (g *ground) projectBare(ctx context.Context, ids, outputs []string, through map[int32]int64) error {
	return pgx.BeginFunc(ctx, g.pool, func(tx pgx.Tx) error { //nolint:wrapcheck // the one caller does
		if _, err := tx.Exec(ctx, `INSERT INTO jobs (id, status, out) SELECT i, 'completed', o FROM unnest($1::text[], $2::text[]) u (i, o)
			ON CONFLICT (id) DO UPDATE SET status = excluded.status, out = excluded.out`, ids, outputs); err != nil {
			return err
		}
		for part, offset := range through {
			if _, err := tx.Exec(ctx, `INSERT INTO checkpoints VALUES ($1, $2) ON CONFLICT (part) DO UPDATE SET through = excluded.through`,
				part, offset); err != nil {
				return err
			}
		}
		return nil
	})
}

// warmup is how many tasks are run before the measured ones, in a process of
// their own, which then hands its lanes over.
const warmup = 2000

// Tasks measures Penstock: all roles in one process, on requests that were
// written before it starts. It counts from the first request that is read until
// every job's row in PostgreSQL says that it completed.
func Tasks(ctx context.Context, cfg TasksConfig) (run TaskRun, err error) {
	g, err := newGround(ctx, cfg)
	if err != nil {
		return TaskRun{}, err
	}
	defer g.close(ctx)
	cluster, err := kafka.Open(ctx, kafka.Config{Brokers: cfg.Kafka})
	if err != nil {
		return TaskRun{}, err //nolint:wrapcheck // it says what it could not do
	}
	defer cluster.Close()
	defer g.deleteTopics(ctx, cluster)
	if err := cluster.Apply(ctx, topics.Plan(topics.Catalogue(g.options()), nil)); err != nil {
		return TaskRun{}, err //nolint:wrapcheck // as above
	}
	all := 0
	for _, n := range []int{warmup, cfg.Tasks} {
		if err := g.request(ctx, cluster, n); err != nil {
			return TaskRun{}, err
		}
		all += n
		if run, err = g.workOff(ctx, n, all); err != nil {
			return TaskRun{}, err
		}
	}
	return run, nil
}

func (g *ground) prefix() string { return g.name + "." }

func (g *ground) options() topics.Options {
	return topics.Options{Prefix: g.prefix(), Partitions: topics.DefaultPartitions, Replication: 1, MinISR: 1}
}

func (g *ground) deleteTopics(ctx context.Context, cluster *kafka.Cluster) {
	if g.cfg.Keep {
		return
	}
	const goodbye = 20 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	var names []string
	for _, t := range topics.Catalogue(g.options()) {
		names = append(names, t.Name)
	}
	if err := cluster.DeleteTopics(ctx, names...); err != nil {
		g.cfg.Log.WarnContext(ctx, "topics are left behind", slog.String("prefix", g.prefix()), slog.Any("error", err))
	}
}

// request writes so many requests, as ingest does.
func (g *ground) request(ctx context.Context, cluster *kafka.Cluster, n int) error {
	const buffered = 100_000
	producer, err := cluster.NewProducer(kafka.ProducerConfig{Linger: 5 * time.Millisecond, MaxBuffered: buffered})
	if err != nil {
		return err //nolint:wrapcheck // it says what it could not do
	}
	defer producer.Close()
	model := g.cfg.Model
	if model == "" {
		model = InstantModel
	}
	data := fmt.Appendf(nil, `{"endpoint":"/v1/chat/completions","body":{"model":%q,"messages":[{"role":"user","content":"hello there, how are you doing today?"}]},"stream":%t}`,
		model, g.cfg.Stream)
	names := topics.Names{Prefix: g.prefix()}
	var failed atomic.Pointer[error]
	for range n {
		now := time.Now().UTC().Truncate(time.Millisecond)
		id, err := job.Mint(now, "", topics.DefaultPartitions, rand.Reader)
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		h := event.Head{Type: event.JobRequested, V: event.Version, Time: now, Tenant: event.DefaultTenant, Job: id}
		rec := event.Record{
			Topic: names.Requests(g.cfg.Lane), Partition: job.Partition(id, topics.DefaultPartitions), Key: []byte(id), Time: now,
			Value: event.Append(make([]byte, 0, 512), &h, data), Headers: event.CloudEvents(&h, event.FactID(&h), ""),
		}
		if err := write(ctx, producer, rec, &failed); err != nil {
			return err
		}
	}
	if err := producer.Flush(ctx); err != nil {
		return err //nolint:wrapcheck // it says what it could not do
	}
	if err := failed.Load(); err != nil {
		return fmt.Errorf("bench: write the requests: %w", *err)
	}
	return nil
}

// write hands a record over, and waits where there is no room for it.
func write(ctx context.Context, producer *kafka.Producer, rec event.Record, failed *atomic.Pointer[error]) error {
	for {
		err := producer.Go(rec, func(_ kafka.Ack, err error) { //nolint:contextcheck // it does not wait
			if err != nil {
				failed.Store(&err)
			}
		})
		if !errors.Is(err, kafka.ErrFull) {
			return err //nolint:wrapcheck // it says what it could not do
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// workOff runs Penstock until all requests so far are done, of which the last n
// were not, and tells how that went since it read the first one of those.
func (g *ground) workOff(ctx context.Context, n, all int) (run TaskRun, err error) {
	a, err := g.cfg.Penstock(Deployment{Kafka: g.cfg.Kafka, Postgres: g.url, Topics: g.options()})
	if err != nil {
		return TaskRun{}, err
	}
	live, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.Run(live) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	select {
	case <-a.Ready():
	case err := <-ended:
		ended <- nil
		return TaskRun{}, fmt.Errorf("bench: it did not start: %w", err)
	}
	begun, err := g.firstRead(live, a)
	if err != nil {
		return TaskRun{}, err
	}
	g.phase(ctx, "penstock", all-warmup)
	defer g.phase(ctx, "over", 0)
	before := cpu()
	seen, err := g.allDone(live, all, begun)
	if err != nil {
		return TaskRun{}, err
	}
	return TaskRun{Tasks: n, Elapsed: seen[len(seen)-1].after, CPU: cpu() - before, Middle: middle(seen, n)}, nil
}

// phase says where the bench is, for whoever watches processes meanwhile.
func (g *ground) phase(ctx context.Context, name string, tasks int) {
	g.cfg.Log.InfoContext(ctx, "phase", slog.String("name", name), slog.Int("tasks", tasks))
}

// firstRead waits until a request was read.
func (g *ground) firstRead(ctx context.Context, a Penstock) (time.Time, error) {
	for {
		families, err := a.Metrics().Gather()
		if err != nil {
			return time.Time{}, fmt.Errorf("bench: %w", err)
		}
		for _, f := range families {
			if f.GetName() != "penstock_kafka_fetched_records_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				if strings.HasPrefix(m.GetLabel()[0].GetValue(), g.prefix()+"requests.") && m.GetCounter().GetValue() > 0 {
					return time.Now(), nil
				}
			}
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return time.Time{}, err
		}
	}
}

// progress is how many facts the tables had taken in after some time.
type progress struct {
	after time.Duration
	facts int
}

// allDone waits until so many rows say that their job completed, and tells how
// the tables came to it.
func (g *ground) allDone(ctx context.Context, all int, begun time.Time) (seen []progress, err error) {
	const look = 20 * time.Millisecond
	for {
		// Where the facts are read to, which is told quickly; then the rows, once.
		var facts, rows int
		err := g.pool.QueryRow(ctx, `SELECT coalesce(sum(next_offset), 0) FROM penstock.checkpoints WHERE topic = $1`,
			topics.Names{Prefix: g.prefix()}.Jobs()).Scan(&facts)
		if n := len(seen); n == 0 || seen[n-1].facts != facts {
			seen = append(seen, progress{time.Since(begun), facts})
		}
		if err == nil && facts >= all {
			err = g.pool.QueryRow(ctx, `SELECT count(*) FROM penstock.jobs WHERE status = 'completed'`).Scan(&rows)
			if err == nil && rows == all {
				return seen, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		if err := pause(ctx, look); err != nil {
			return nil, err
		}
	}
}

// middle is the rate of so many tasks between a tenth of their facts and nine
// tenths. It goes by where the tables stood, from one look that found them
// further on to another.
func middle(seen []progress, tasks int) float64 {
	first, total := seen[0].facts, seen[len(seen)-1].facts-seen[0].facts
	at := func(tenths int) progress {
		i := slices.IndexFunc(seen, func(p progress) bool { return 10*(p.facts-first) >= tenths*total })
		return seen[i]
	}
	from, to := at(1), at(9)
	if total == 0 || to.after <= from.after {
		return 0
	}
	return float64(tasks) * float64(to.facts-from.facts) / float64(total) / (to.after - from.after).Seconds()
}

// cpu is what this process has used; 0 where the system does not tell.
func cpu() time.Duration {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := reg.Gather()
	for _, f := range families {
		if err == nil && f.GetName() == "process_cpu_seconds_total" {
			return time.Duration(f.GetMetric()[0].GetCounter().GetValue() * float64(time.Second))
		}
	}
	return 0
}
