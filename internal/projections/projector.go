package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

const (
	defaultMaxRecords  = 10_000
	defaultMaxBytes    = 8 << 20
	defaultLagInterval = 5 * time.Second
	// The pause after a failure doubles from the first to the last.
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
	// foldPace gathers records under load: a row may follow its fact by so much,
	// and until then the log answers for the job.
	foldPace = 50 * time.Millisecond
)

// Cluster is what a Projector needs of Kafka; *kafka.Cluster has it.
type Cluster interface {
	Offsets
	NewGroup(cfg kafka.GroupConfig) (*kafka.Group, error)
	TopicID(ctx context.Context, topic string) ([16]byte, error)
	TimeAt(ctx context.Context, tp kafka.TopicPartition, offset int64) (time.Time, error)
}

// Config says what a Projector folds, and where to. Cluster and Pool are
// required; the zero value of any other field takes its default.
type Config struct {
	Cluster     Cluster
	Pool        *pgxpool.Pool
	Prefix      string                // of topics and group; default topics.DefaultPrefix
	Log         *slog.Logger          // default: nowhere
	Metrics     prometheus.Registerer // may be nil
	MaxRecords  int                   // in a transaction; default 10,000
	MaxBytes    int                   // of values in a transaction, unless one record has more; default 8 MiB
	LagInterval time.Duration         // how often the lag is measured; default 5 s
}

// Topics are the topics that the projection folds.
func Topics(names topics.Names) []string {
	list := make([]string, 0, event.LaneCount)
	for _, lane := range event.Lanes() {
		list = append(list, names.Requests(lane))
	}
	return append(list, names.Jobs())
}

// Projector folds the log into the tables. Make it with New; Run may be called
// once, Ready from anywhere.
type Projector struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	sink    sink
	folder  folder
	topics  []string
	join    func(kafka.GroupConfig) (group, error)

	mu      sync.Mutex
	trouble error                          // why nothing is folded at present
	stopped map[kafka.TopicPartition]error // partitions that need a person
}

// group is the part of kafka.Group that is used.
type group interface {
	Poll(ctx context.Context) (kafka.Poll, error)
	Pause(tps ...kafka.TopicPartition)
	Resume(tps ...kafka.TopicPartition)
	Seek(tp kafka.TopicPartition, offset int64)
	Close()
}

// New makes a Projector. It speaks to nobody before Run.
func New(cfg Config) (*Projector, error) {
	if cfg.Cluster == nil || cfg.Pool == nil {
		return nil, errors.New("a projector needs a Kafka cluster and a PostgreSQL pool")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = topics.DefaultPrefix
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxRecords <= 0 {
		cfg.MaxRecords = defaultMaxRecords
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	if cfg.LagInterval <= 0 {
		cfg.LagInterval = defaultLagInterval
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	names := topics.Names{Prefix: cfg.Prefix}
	return &Projector{
		cfg: cfg, log: cfg.Log, metrics: m, sink: sink{cfg.Pool, copier{least: minCopied}}, folder: folder{names}, topics: Topics(names),
		join:    func(gc kafka.GroupConfig) (group, error) { return cfg.Cluster.NewGroup(gc) },
		stopped: map[kafka.TopicPartition]error{},
	}, nil
}

// Run folds until ctx ends, and returns nil then. What is away is waited for;
// an error says that the group could not be joined at all.
func (p *Projector) Run(ctx context.Context) error {
	both, ctx := errgroup.WithContext(ctx)
	l := newLoop(p)
	g, err := p.join(kafka.GroupConfig{
		Group: p.cfg.Prefix + "projections", Topics: p.topics, MaxPollRecords: p.cfg.MaxRecords, Pace: foldPace, Stand: kafka.StandStill,
		// A poll may be short; to find the starts takes what it takes.
		StartAt: func(_ context.Context, assigned []kafka.TopicPartition) (map[kafka.TopicPartition]int64, error) {
			return l.startAt(ctx, assigned)
		},
	})
	if err != nil {
		return fmt.Errorf("run the projections: %w", err)
	}
	l.group = g
	defer g.Close()
	both.Go(func() error { return l.run(ctx) })
	both.Go(func() error {
		p.measure(ctx)
		return nil
	})
	return both.Wait()
}

// measure keeps the lag's metrics.
func (p *Projector) measure(ctx context.Context) {
	store := NewStore(p.cfg.Pool, p.cfg.Cluster, p.topics, p.log)
	tick := time.NewTicker(p.cfg.LagInterval)
	defer tick.Stop()
	for {
		if behind, err := store.Behind(ctx); err == nil { // where it is not known, the loop tells why
			p.tellLag(ctx, behind)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tellLag sets the metrics. How old a record is is asked of the log, a small
// read for each partition that is behind.
func (p *Projector) tellLag(ctx context.Context, behind []Behind) {
	records, age := map[string]int64{}, map[string]time.Duration{}
	for _, b := range behind {
		records[b.Topic] += b.Records
		if at, err := p.cfg.Cluster.TimeAt(ctx, b.TopicPartition, b.Next); err == nil && !at.IsZero() {
			age[b.Topic] = max(age[b.Topic], time.Since(at))
		}
	}
	for _, topic := range p.topics {
		p.metrics.lag.WithLabelValues(topic).Set(float64(records[topic]))
		p.metrics.age.WithLabelValues(topic).Set(age[topic].Seconds())
	}
}

// Ready says what keeps the projection from going on, and nil where nothing does.
func (p *Projector) Ready(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trouble != nil {
		return p.trouble
	}
	errs := make([]error, 0, len(p.stopped))
	for tp, err := range p.stopped {
		errs = append(errs, fmt.Errorf("%s stands still: %w", tp, err))
	}
	return errors.Join(errs...)
}

// setTrouble says that nothing can be folded for now, and logs the first time.
func (p *Projector) setTrouble(ctx context.Context, err error) {
	p.mu.Lock()
	first := p.trouble == nil
	p.trouble = err
	p.mu.Unlock()
	if first {
		p.log.WarnContext(ctx, "the projection waits", slog.Any("error", err))
	}
}

func (p *Projector) endTrouble(ctx context.Context) {
	p.mu.Lock()
	had := p.trouble != nil
	p.trouble = nil
	p.mu.Unlock()
	if had {
		p.log.InfoContext(ctx, "the projection goes on")
	}
}

func (p *Projector) setStopped(tp kafka.TopicPartition, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.stopped, tp)
		return
	}
	p.stopped[tp] = err
}
