package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/gateway"
	"github.com/penstock-io/penstock/internal/ingest"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/postgres"
	"github.com/penstock-io/penstock/internal/processors"
	"github.com/penstock-io/penstock/internal/processors/engine"
	"github.com/penstock-io/penstock/internal/projections"
	"github.com/penstock-io/penstock/internal/topics"
)

// parts is what a running App is made of; what its roles do not need is nil.
type parts struct {
	log     *slog.Logger
	cluster *kafka.Cluster
	pool    *pgxpool.Pool
	ids     map[string][16]byte // of the topics, as they were at the start

	producer  *kafka.Producer // ingest's
	ingest    *ingest.Service
	positions *ingest.Positions
	load      *ingest.Load
	questions *projections.API
	gateway   *gateway.Gateway
	health    *api.HealthRoutes
	processor *processors.Processor
	projector *projections.Projector

	trouble   atomic.Pointer[error] // why the processors stand still for good
	waits     context.Context       //nolint:containedctx // of ?wait=, ends when the process stops
	stopWaits context.CancelFunc
}

// open connects to Kafka and PostgreSQL side by side, and builds the parts. Where
// neither is as it should be, the error says both.
func (a *App) open(ctx context.Context) (*parts, error) {
	p := &parts{log: a.log}
	p.waits, p.stopWaits = context.WithCancel(context.WithoutCancel(ctx))
	var both sync.WaitGroup
	var ofKafka, ofPostgres error
	both.Go(func() { ofKafka = a.openKafka(ctx, p) })
	if a.cfg.needsPostgres() {
		both.Go(func() { ofPostgres = a.openPostgres(ctx, p) })
	}
	both.Wait() // for the process's patience at most
	err := errors.Join(ofKafka, ofPostgres)
	if err == nil {
		err = a.build(p)
	}
	if err != nil {
		p.close(context.WithoutCancel(ctx))
		return nil, err
	}
	return p, nil
}

func (a *App) openKafka(ctx context.Context, p *parts) error {
	cluster, err := kafka.Open(ctx, kafka.Config{
		Brokers: a.cfg.Kafka, Security: a.cfg.Security, Log: a.log, Metrics: a.metrics, ConnectTimeout: a.cfg.Patience,
	})
	switch {
	case errors.Is(err, kafka.ErrDenied):
		return fmt.Errorf("kafka at %s does not accept this process; are kafka-tls, kafka-ca and kafka-sasl right? %w", strings.Join(a.cfg.Kafka, ", "), err)
	case err != nil:
		return fmt.Errorf("kafka at %s did not answer within %s; is it running, and is the address right? %w",
			strings.Join(a.cfg.Kafka, ", "), a.cfg.Patience, err)
	}
	p.cluster = cluster
	want := topics.Catalogue(a.cfg.Topics)
	names := make([]string, len(want))
	for i, t := range want {
		names[i] = t.Name
	}
	have, err := cluster.Describe(ctx, names...)
	if err != nil {
		return fmt.Errorf("look at the topics: %w", err)
	}
	if plan := topics.Plan(want, have); a.cfg.Apply && len(plan) > 0 {
		if err := cluster.Apply(ctx, plan); err != nil {
			return fmt.Errorf("bring the topics up to date: %w", err)
		}
		if have, err = cluster.Describe(ctx, names...); err != nil {
			return fmt.Errorf("look at the topics: %w", err)
		}
	}
	if err := topics.Check(want, have); err != nil {
		return err //nolint:wrapcheck // it names them, and what to do
	}
	p.ids = make(map[string][16]byte, len(have))
	for _, d := range have {
		p.ids[d.Name] = d.ID
	}
	return nil
}

func (a *App) openPostgres(ctx context.Context, p *parts) error {
	pool, err := postgres.Open(ctx, postgres.Config{URL: a.cfg.Postgres, Patience: a.cfg.Patience, Log: a.log})
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	p.pool = pool
	if err := postgres.Register(a.metrics, pool); err != nil {
		return err //nolint:wrapcheck // it says what it could not do
	}
	if a.cfg.Apply {
		if _, err := postgres.Migrate(ctx, pool, a.log); err != nil {
			return fmt.Errorf("bring the database's schema up to date: %w", err)
		}
		return nil
	}
	pending, err := postgres.Pending(ctx, pool)
	if err != nil {
		return fmt.Errorf("look at the database's schema: %w", err)
	}
	if len(pending) > 0 {
		return fmt.Errorf("the database's schema is behind this build by %d migration(s), beginning with %d: run `penstock migrate`", len(pending), pending[0])
	}
	return nil
}

func (a *App) build(p *parts) error {
	names := topics.Names{Prefix: a.cfg.Topics.Prefix}
	if a.cfg.serves() {
		if err := a.buildServing(p, names); err != nil {
			return err
		}
	}
	var err error
	if a.cfg.has(Processors) {
		limit := a.limits()
		p.processor, err = processors.New(processors.Config{
			Names: names, Owner: a.owner, Lanes: a.cfg.Lanes,
			Engine: a.cfg.Work, SessionTimeout: a.cfg.SessionTimeout,
			Traces:     a.traces,
			Grace:      a.cfg.Grace - a.listenerGrace(),
			FirstToken: a.cfg.FirstToken, NextToken: a.cfg.NextToken,
			Retry:         engine.Backoff{Tries: a.cfg.Tries},
			MaxTokenBytes: limit(names.Tokens()), MaxJobBytes: limit(names.Jobs()), MaxDeadBytes: limit(names.Dead()),
		}, p.cluster, a.calls.Models(a.models), a.log, a.metrics)
		if err != nil {
			return fmt.Errorf("make the processors: %w", err)
		}
	}
	if a.cfg.has(Projections) {
		p.projector, err = projections.New(projections.Config{
			Cluster: p.cluster, Pool: p.pool, Prefix: names.Prefix, Log: a.log, Metrics: a.metrics,
		})
		if err != nil {
			return fmt.Errorf("make the projections: %w", err)
		}
	}
	p.health = api.Health(p.checks()...)
	if err := a.metrics.Register(p.health.Ready()); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// buildServing builds what answers requests about jobs.
func (a *App) buildServing(p *parts, names topics.Names) error {
	limit := a.limits()(names.Requests(event.Standard))
	var err error
	if p.producer, err = p.cluster.NewProducer(kafka.ProducerConfig{MaxRecordBytes: limit}); err != nil {
		return fmt.Errorf("make the producer of requests: %w", err)
	}
	p.positions = ingest.NewPositions(p.cluster, names.Tokens(), a.log)
	p.load, err = ingest.NewLoad(ingest.LoadConfig{
		Log: p.cluster, Names: names, Partitions: a.cfg.Topics.Partitions, Budgets: a.cfg.Budgets, Logger: a.log,
	})
	if err != nil {
		return fmt.Errorf("make the admission of work: %w", err)
	}
	if err := a.metrics.Register(p.load.Metrics()); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	rows := projections.NewStore(p.pool, p.cluster, projections.Topics(names), a.log)
	p.ingest, err = ingest.New(ingest.Config{
		Producer: p.producer, Names: names, Partitions: a.cfg.Topics.Partitions,
		Keys: p.pool, Models: known{a.models}, Cursors: p.positions, Admission: p.load,
		Jobs: jobs{p}, MaxRecordBytes: limit,
		Log: a.log, Registry: a.metrics, Traces: a.traces,
	})
	if err != nil {
		return fmt.Errorf("make the intake: %w", err)
	}
	p.gateway = gateway.New(gateway.Config{
		Cluster: p.cluster, Names: names, Partitions: a.cfg.Topics.Partitions,
		Rows: rows, Open: rows, Intake: p.ingest, Models: served{a.models}, Logger: a.log, Registry: a.metrics,
		Origins: a.cfg.Origins, MaxConnections: a.cfg.MaxConnections,
		MaxPerTenant: a.cfg.MaxConnectionsPerTenant, MaxPerAddress: a.cfg.MaxConnectionsPerAddress, Proxies: a.cfg.proxies,
	})
	p.questions = projections.NewAPI(projections.APIConfig{
		Waits: p.waits,
		Rows:  rows, Log: p.gateway.Lookup(), Partitions: a.cfg.Topics.Partitions,
	})
	return nil
}

// jobs finds jobs for ingest, which cancels and retries them. It is made before
// the parts that it asks, and asked after.
type jobs struct{ parts *parts }

// Job implements ingest.Jobs.
func (j jobs) Job(ctx context.Context, tenant, id string, partition *int32) (*job.Resource, error) {
	return j.parts.questions.Job(ctx, tenant, id, partition) //nolint:wrapcheck // a fault already
}

// requestPatience is how long Kafka gets to give a job's request.
const requestPatience = 5 * time.Second

// Request implements ingest.Jobs.
func (j jobs) Request(ctx context.Context, at job.Position) (event.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	got, err := j.parts.cluster.Fetch(ctx, kafka.TopicPartition{Topic: at.Topic, Partition: at.Partition}, at.Offset, 1, 0) // a broker always gives one batch
	switch {
	case errors.Is(err, kafka.ErrOutOfRange), err == nil && (len(got.Records) == 0 || got.Records[0].Offset != at.Offset):
		return event.Record{}, fault.New(fault.NotFound, "the job's request is not in the log any more: submit it anew")
	case err != nil:
		return event.Record{}, fault.Wrap(err, fault.Unavailable, "the log cannot be read now: try again soon")
	}
	return got.Records[0], nil
}

// Partition implements ingest.Jobs.
func (j jobs) Partition(ctx context.Context, tenant, id string, named *int32) (int32, error) {
	return j.parts.gateway.Lookup().Partition(ctx, tenant, id, named) //nolint:wrapcheck // a fault already
}

// limits gives the largest record of each topic, in bytes.
func (a *App) limits() func(topic string) int {
	all := map[string]int{}
	for _, t := range topics.Catalogue(a.cfg.Topics) {
		if n, err := strconv.Atoi(t.Configs["max.message.bytes"]); err == nil {
			all[t.Name] = n
		}
	}
	return func(topic string) int { return all[topic] }
}

// process runs the processors. A topic that was created anew is told by
// readiness and ends nothing: what else the process does goes on, and nobody
// takes the new topic for the old one.
func (p *parts) process(ctx context.Context) error {
	err := p.processor.Run(ctx)
	if !errors.Is(err, kafka.ErrRecreated) {
		return err //nolint:wrapcheck // the stage names it
	}
	p.log.ErrorContext(ctx, "the processors stand still", slog.Any("error", err))
	p.trouble.Store(&err)
	<-ctx.Done()
	return nil
}

// flushTime is what requests that were not acknowledged yet get.
const flushTime = 5 * time.Second

// close ends producers, then clients.
func (p *parts) close(ctx context.Context) {
	p.stopWaits()
	if p.producer != nil {
		ctx, cancel := context.WithTimeout(ctx, flushTime)
		defer cancel()
		if err := p.producer.Flush(ctx); err != nil {
			p.log.WarnContext(ctx, "some requests were not acknowledged", slog.Any("error", err))
		}
		p.producer.Close()
	}
	if p.cluster != nil {
		p.cluster.Close()
	}
	if p.pool != nil {
		p.pool.Close()
	}
}
