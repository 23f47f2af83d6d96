// Package chaos runs the whole program as people do, hurts it, and holds what
// comes out to what was promised: no accepted job and no token is lost or shown
// twice, whatever dies and whenever.
//
// A run starts three Kafka brokers, a model server and the program's processes,
// by role; lets hundreds of jobs in at a time by HTTP and Kafka; has clients
// follow them over SSE and WebSocket and cut off and come back; and meanwhile
// kills, freezes, restarts and cuts off processes, brokers and the links between
// them, in an order that follows from a seed. What is drawn follows from the
// seed; what comes of it, on real processes, does not wholly.
//
// Check is the judge, and pure: it has its own fence and its own folds, and gets
// what the readers saw, the log as it stands at the end, the facts, the rows and
// the calls of the model. Kind says what it calls lost and repeated.
//
// Every goroutine belongs to Run, and has ended when it returns; so has every
// process.
package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// Config says what a run is. Zero fields take their defaults.
type Config struct {
	Program  string   // the built penstock
	Env      []string // more of its environment
	Postgres string   // URL of an empty database
	Dir      string   // where the processes' logs go
	Log      *slog.Logger

	Seed       uint64
	For        time.Duration // how long faults are done; default 30 s
	AtOnce     int           // jobs under way at a time; default 100
	Processors int           // default 3
	Partitions int32         // default 4
	Faults     []string      // the faults to draw from; default all
	// Expect is what a simulated model answers to a request's body.
	Expect func(model string, body []byte) string
}

func (c Config) withDefaults() *Config {
	c.For = cmp.Or(c.For, 30*time.Second)
	c.AtOnce = cmp.Or(c.AtOnce, 100)
	c.Processors = cmp.Or(c.Processors, 3)
	c.Partitions = cmp.Or(c.Partitions, 4)
	return &c
}

// Report is what a run came to.
type Report struct {
	Seed   uint64
	Took   time.Duration
	Faults map[string]int
	*Verdict
	Evidence []string // what the log holds of jobs that something is wrong with
}

// Run makes one run. The error says that it could not be made, or that a fault
// could not be done or undone, such as a process that does not stop in order;
// there may be a Report beside it. What else the program did wrong is in that.
func Run(ctx context.Context, config Config) (*Report, error) {
	cfg := config.withDefaults()
	began := time.Now()
	d, err := deploy(ctx, cfg)
	if err != nil {
		return nil, err
	}
	cfg.Log.InfoContext(ctx, "deployed", "took", time.Since(began).Round(time.Millisecond), "seed", cfg.Seed)
	r, err := d.run(ctx)
	if r != nil {
		r.Took = time.Since(began)
	}
	return r, errors.Join(err, d.close())
}

// run has traffic and faults on what is deployed, then lets it settle, and judges.
func (d *deployment) run(ctx context.Context) (*Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := startLive(d.cluster, d.names.Tokens(), d.cfg.Partitions, nil) //nolint:contextcheck // a tail has a life of its own, until it is closed
	if err != nil {
		return nil, err
	}
	var reading, jobs waiting
	reading.Go(func() { l.run(ctx) })
	defer func() {
		cancel()
		reading.Wait()
	}()
	t, err := d.traffic()
	if err != nil {
		return nil, err
	}
	defer t.close()
	stopping, stop := context.WithTimeout(ctx, d.cfg.For)
	defer stop()
	following, unfollow := context.WithCancel(ctx)
	defer unfollow()
	jobs.Go(func() {
		t.run(following, stopping, d.cfg.AtOnce)
		t.wg.Wait()
	})
	v := newVillain(d, d.cfg.Seed, d.cfg.Log)
	v.run(stopping, d.cfg.Faults)
	d.cfg.Log.InfoContext(ctx, "the faults are over", "faults", v.counts)
	if err := d.allReady(ctx); err != nil {
		return nil, errors.Join(append(v.errs, err)...)
	}
	if !jobs.settle(ctx, t.progress, d.cfg.Log) {
		d.cfg.Log.WarnContext(ctx, "not all clients saw their job's end, and nothing comes any more")
		unfollow()
		jobs.Wait()
	}
	h, ends, err := d.history(ctx, t, l)
	if err != nil {
		return nil, err
	}
	r := &Report{Seed: d.cfg.Seed, Faults: v.counts, Verdict: Check(h)}
	r.Evidence = d.evidence(ctx, ends, r.Verdict)
	return r, errors.Join(v.errs...)
}

// traffic makes what will let jobs in.
func (d *deployment) traffic() (*traffic, error) {
	out, err := d.cluster.NewProducer(kafka.ProducerConfig{})
	if err != nil {
		return nil, fmt.Errorf("make a producer: %w", err)
	}
	return &traffic{
		seed: d.cfg.Seed, prefix: fmt.Sprintf("chaos-%d", d.cfg.Seed), partitions: d.cfg.Partitions, names: d.names,
		gateways: d.urls(), model: d.model, out: out, expect: d.cfg.Expect,
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
	}, nil
}

// history gathers what there is to judge. Nothing runs any more when it reads the
// logs for the last time, up to tokens.
func (d *deployment) history(ctx context.Context, t *traffic, l *live) (h *History, tokens map[int32]int64, err error) {
	h = &History{Live: l.log, Log: NewLog(), Facts: NewFacts(), Calls: d.model.seen()}
	t.mu.Lock()
	h.Jobs, h.Readers = t.jobs, t.readers
	t.mu.Unlock()
	if h.Rows, err = d.rows(ctx, h.Jobs); err != nil {
		return nil, nil, err
	}
	if err := d.stop(ctx); err != nil {
		return nil, nil, err
	}
	tokens, err = d.cluster.Offsets(ctx, d.names.Tokens(), kafka.End())
	if err != nil {
		return nil, nil, fmt.Errorf("find the log's end: %w", err)
	}
	facts, err := d.cluster.Offsets(ctx, d.names.Jobs(), kafka.End())
	if err != nil {
		return nil, nil, fmt.Errorf("find the facts' end: %w", err)
	}
	err = scan(ctx, d.cluster, d.names.Tokens(), tokens, func(rec *event.Record) { h.Log.Take(rec.Partition, rec.Value) })
	if err != nil {
		return nil, nil, err
	}
	if err := scan(ctx, d.cluster, d.names.Jobs(), facts, func(rec *event.Record) { h.Facts.Take(rec.Value) }); err != nil {
		return nil, nil, err
	}
	patient, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := l.through(patient, tokens); err != nil {
		return nil, nil, err
	}
	for _, s := range d.slots {
		h.Freezes = append(h.Freezes, s.freezes...)
	}
	l.mu.Lock() // it has read all, and is not to be read while it reads more
	defer l.mu.Unlock()
	return h, tokens, nil
}

// patience is how long nothing may move before what is missing is lost.
const patience = 90 * time.Second

// rows waits until every job that was accepted has its last row, or no more come.
func (d *deployment) rows(ctx context.Context, jobs []*Job) (map[string]Row, error) {
	conn, err := pgx.Connect(ctx, d.cfg.Postgres)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // what was asked was answered
	ended, since := 0, time.Now()
	for {
		rows, err := readRows(ctx, conn)
		if err != nil {
			return nil, err
		}
		missing, now := 0, 0
		for _, j := range jobs {
			switch row := rows[j.ID]; {
			case row.Status.Ended():
				now++
			case j.Accepted:
				missing++
			}
		}
		if now > ended {
			ended, since = now, time.Now()
		}
		if missing == 0 || time.Since(since) > patience || ctx.Err() != nil {
			return rows, ctx.Err()
		}
		pause(ctx, 500*time.Millisecond)
	}
}

func readRows(ctx context.Context, conn *pgx.Conn) (map[string]Row, error) {
	const query = `SELECT id, status, attempt, coalesce(ended_at, 'epoch'), coalesce(output->0->'message'->>'content', '') FROM penstock.jobs`
	all, err := conn.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read the rows: %w", err)
	}
	rows := map[string]Row{}
	var (
		id, status string
		row        Row
	)
	_, err = pgx.ForEachRow(all, []any{&id, &status, &row.Attempt, &row.EndedAt, &row.Text}, func() error {
		row.Status = job.Status(status)
		rows[id] = row
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the rows: %w", err)
	}
	return rows, nil
}
