// Package processors runs requests: it owns lanes of partitions by the fence's
// protocol, calls the models, appends every token to the log, and commits what
// is done. It is the loop around the pure engine in processors/engine.
//
// One goroutine, Run's own, has the engine and carries out its effects; it never
// waits for Kafka or a model. Around it: one goroutine each that polls the
// group, the token topic, the control topic and the pulses, one that sends
// heartbeats, one that commits, one that measures the lag, and the workers: one a
// call (engine.Config.MaxInFlight at most, and MaxEndings that end what was
// cancelled while it waited), and maxResting that rest between two. They tell the
// loop through a mailbox.
//
// Retries have one owner, this package: a call that failed before it said
// anything, with a fault that says that a retry may help, is made again.
package processors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/processors/engine"
	"github.com/penstock-io/penstock/internal/telemetry"
	"github.com/penstock-io/penstock/internal/topics"
)

// Config says how a Processor works. Zero fields take their defaults.
type Config struct {
	Names  topics.Names
	Group  string             // the consumer group; default Names.Prefix + "processors"
	Owner  string             // unique to this process's incarnation
	Lanes  []event.Lane       // default all
	Engine engine.Config      // its Owner is set from Owner
	Grace  time.Duration      // how long Run lets calls in flight end; default 30 s
	Now    func() time.Time   // default time.Now
	Traces *telemetry.Tracing // nil makes no spans

	// FirstToken is how long a model may take to its first token, and NextToken
	// from one piece of its answer to the next; then the call is broken off with
	// provider_timeout. Defaults 60 s and 30 s.
	FirstToken, NextToken time.Duration
	Retry                 engine.Backoff // default 3 tries, 500 ms, 30 s
	Random                func() float64 // of [0, 1), for the backoff's jitter; default math/rand/v2's

	CoalesceEvery  time.Duration // least time between two deltas of a job; default 10 ms
	CoalesceBytes  int           // text that is written before that; default 4 KiB
	SessionTimeout time.Duration // of the group; default kafka.GroupConfig's
	MaxTokenBytes  int           // topics' max.message.bytes; default the catalogue's
	MaxJobBytes    int
	MaxDeadBytes   int
}

func (c Config) withDefaults() Config {
	if c.Group == "" {
		c.Group = c.Names.Prefix + "processors"
	}
	if len(c.Lanes) == 0 {
		c.Lanes = event.Lanes()
	}
	if c.Grace == 0 {
		c.Grace = 30 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.CoalesceEvery == 0 {
		c.CoalesceEvery = 10 * time.Millisecond
	}
	if c.CoalesceBytes == 0 {
		c.CoalesceBytes = 4 << 10
	}
	orTime := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	orTime(&c.FirstToken, time.Minute)
	orTime(&c.NextToken, 30*time.Second)
	if c.Retry.Tries <= 0 {
		c.Retry.Tries = 3
	}
	orTime(&c.Retry.Base, 500*time.Millisecond)
	orTime(&c.Retry.Cap, 30*time.Second)
	if c.Random == nil {
		c.Random = rand.Float64
	}
	c.Engine.Owner = c.Owner
	return c
}

func (c Config) coalesce() coalesce { return coalesce{every: c.CoalesceEvery, bytes: c.CoalesceBytes} }

func (c Config) limits() limits {
	const usual = 1 << 20 // kafka.ProducerConfig's default
	l := limits{event: c.MaxTokenBytes, fact: c.MaxJobBytes, dead: c.MaxDeadBytes}
	if l.event == 0 {
		l.event = usual
	}
	if l.fact == 0 {
		l.fact = l.event
	}
	if l.dead == 0 {
		l.dead = l.event
	}
	return l
}

// Models finds who serves a model.
type Models interface {
	Resolve(model string) (llm.Provider, string, error)
}

// Processor is one process's share of the work.
type Processor struct {
	cfg     Config
	cluster *kafka.Cluster
	models  Models
	log     *slog.Logger
	now     func() time.Time
	began   time.Time
	metrics *metrics
	tempo   *tempo // of all calls

	tokens, jobs string // topics

	box     *mailbox
	out     writer          // tokens, jobs, dead
	pulses  *kafka.Producer // its own client: a stall of one does not touch the other
	group   *kafka.Group
	tail    *kafka.Tail
	ctl     *kafka.Tail // control
	workers *workers
	alive   context.Context //nolint:containedctx // of the calls: Run's, without the caller's end

	// The loop's alone.
	engine  *engine.Engine
	gates   map[engine.LP]*gate
	running map[callKey]*call
	again   []func() error // writes that found the producer full
	intake  *intake
	commit  *committer
	lags    lagMeter
	// forgotten is how many forgotten cancels were told.
	forgotten uint64

	ready atomic.Bool
}

// New makes a Processor; Run runs it.
func New(cfg Config, cluster *kafka.Cluster, models Models, log *slog.Logger, reg prometheus.Registerer) (*Processor, error) {
	cfg = cfg.withDefaults()
	if cfg.Owner == "" {
		return nil, errors.New("processors: an owner's name is needed, unique to this process's incarnation")
	}
	if err := cfg.Engine.Validate(); err != nil {
		return nil, fmt.Errorf("processors: %w", err)
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, err
	}
	p := &Processor{
		cfg: cfg, cluster: cluster, models: models, log: log, now: cfg.Now, began: cfg.Now(), tempo: newTempo(cfg.Now()), metrics: m,
		tokens: cfg.Names.Tokens(), jobs: cfg.Names.Jobs(),
		box: newMailbox(), engine: engine.New(cfg.Engine), gates: map[engine.LP]*gate{},
		running: map[callKey]*call{},
	}
	p.workers = newWorkers(p.run)
	return p, nil
}

// Ready tells whether the process has joined its group and owns all that it was
// given, and if not, why.
func (p *Processor) Ready() error {
	if !p.ready.Load() {
		return errors.New("the processors have not claimed all of their partitions")
	}
	return nil
}

// Run works until ctx ends, then starts nothing more, lets what is in flight
// end within the grace period, and hands over. It returns an error where the
// log is not what it was (a topic is another): whoever starts it anew starts from
// what is there.
func (p *Processor) Run(ctx context.Context) error {
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer p.close()
	if err := p.open(); err != nil {
		return err
	}
	work, workCtx := errgroup.WithContext(live)
	p.alive = workCtx
	from, err := p.readPulses(workCtx)
	if err != nil {
		return err
	}
	p.intake = newIntake(p, p.group)
	p.commit = newCommitter(p)
	work.Go(func() error { return p.intake.run(workCtx) })
	work.Go(func() error { return p.tailTokens(workCtx) })
	work.Go(func() error { return p.tailControl(workCtx) })
	work.Go(func() error { return p.tailPulses(workCtx, from) })
	work.Go(func() error { return p.heartbeats(workCtx) })
	work.Go(func() error { return p.commit.run(workCtx) })
	work.Go(func() error { return p.measure(workCtx) })
	work.Go(func() error {
		err := p.loop(ctx, workCtx)
		stop()
		return err
	})
	if err := work.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// stage is what dead letters call this part.
const stage = "processors"

// readBackPace gathers what is read back under load: nobody waits for it but
// facts and commits.
const readBackPace = 5 * time.Millisecond

// gather is how long what nobody waits for by the millisecond waits for others
// where busyWrites or more of it are written a second: one request in place of
// hundreds. That are facts, the ends of unwatched jobs, and deltas that are not a
// job's first.
const gather = 5 * time.Millisecond

// busyWrites is when records are gathered for that long, by the second.
const busyWrites = 20_000

func (p *Processor) open() (err error) {
	names := p.cfg.Names
	out, err := p.cluster.NewProducer(kafka.ProducerConfig{
		MaxRecordBytes: p.cfg.MaxTokenBytes, Gather: gather, Busy: busyWrites,
		TopicBytes: map[string]int{names.Jobs(): p.cfg.MaxJobBytes, names.Dead(): p.cfg.MaxDeadBytes},
	})
	if err != nil {
		return fmt.Errorf("processors: %w", err)
	}
	p.out = out
	const pulseLife = time.Second // an old pulse is worth nothing
	if p.pulses, err = p.cluster.NewProducer(kafka.ProducerConfig{DeliveryTimeout: pulseLife}); err != nil {
		return fmt.Errorf("processors: %w", err)
	}
	if p.tail, err = p.cluster.NewTail(kafka.TailConfig{Topic: names.Tokens(), Pace: readBackPace, Guest: true, Stand: kafka.StandStill}); err != nil {
		return fmt.Errorf("processors: %w", err)
	}
	if p.ctl, err = p.cluster.NewTail(kafka.TailConfig{Topic: names.Control(), Stand: kafka.StandStill}); err != nil {
		return fmt.Errorf("processors: %w", err)
	}
	lanes := make([]string, len(p.cfg.Lanes))
	for i, lane := range p.cfg.Lanes {
		lanes[i] = names.Requests(lane)
	}
	p.group, err = p.cluster.NewGroup(kafka.GroupConfig{
		Group: p.cfg.Group, Topics: lanes, SessionTimeout: p.cfg.SessionTimeout, Stand: kafka.StandStill,
	})
	if err != nil {
		return fmt.Errorf("processors: %w", err)
	}
	return nil
}

// close ends what open made, and waits for the calls.
func (p *Processor) close() {
	for _, g := range p.gates {
		g.shut()
	}
	p.workers.end()
	if p.group != nil {
		p.group.Close()
	}
	if p.tail != nil {
		p.tail.Close()
	}
	if p.ctl != nil {
		p.ctl.Close()
	}
	if p.pulses != nil {
		p.pulses.Close()
	}
	if p.out != nil {
		p.out.Close()
	}
}

// tick is how often the engine is told that time has passed.
const tick = 25 * time.Millisecond

// loop has the engine. stopping is the caller's context: its end begins the
// drain. ctx ends everything at once.
func (p *Processor) loop(stopping, ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var (
		buf   []engine.Input
		end   = stopping.Done()
		grace <-chan time.Time
	)
	for {
		select {
		case <-p.box.some:
		case <-ticker.C:
			p.retry()
			p.watch()
			p.step(engine.Tick{})
			p.observe()
		case <-end:
			end = nil
			timer := time.NewTimer(p.cfg.Grace)
			defer timer.Stop()
			grace = timer.C
			p.step(engine.Drain{})
		case <-grace:
			p.log.WarnContext(ctx, "the grace period is over: calls in flight are handed over", "in_flight", p.engine.Stats().InFlight)
			return p.leave(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
		buf = p.box.take(buf)
		p.renew()
		for i, in := range buf {
			p.renew()
			p.step(in)
			buf[i] = nil
		}
		if end == nil && p.engine.Idle() {
			return p.leave(ctx)
		}
	}
}

// watch breaks off the calls that are silent for too long.
func (p *Processor) watch() {
	now := p.now()
	for _, c := range p.running {
		c.check(now)
	}
}

// renew takes a lease that was renewed meanwhile.
func (p *Processor) renew() {
	if lease, ok := p.box.renewed(); ok {
		p.step(lease)
	}
}

func (p *Processor) step(in engine.Input) {
	if ended, ok := in.(engine.Ended); ok {
		delete(p.running, callKey{ended.LP, ended.Gen, ended.Offset})
	}
	for _, f := range p.engine.Step(p.now(), in) {
		p.do(f)
	}
}

// observe sets the gauges, and readiness.
func (p *Processor) observe() {
	s := p.engine.Stats()
	p.ready.Store(s.Assigned == s.Owned && p.intake.joined.Load())
	p.metrics.inFlight.Set(float64(s.InFlight))
	p.metrics.owned.Set(float64(s.Owned))
	p.metrics.paused.Set(float64(s.Paused))
	p.metrics.writes.Set(float64(len(p.again)))
	p.metrics.cancelsKept.Set(float64(s.Cancels))
	if n := s.CancelsForgotten - p.forgotten; n > 0 {
		p.forgotten = s.CancelsForgotten
		p.metrics.cancels.WithLabelValues("forgotten").Add(float64(n))
		p.log.Error("cancels were forgotten, since more are remembered than there is room for: their jobs will be run", "count", n)
	}
	for _, b := range s.Bounds {
		p.metrics.boundUsed.WithLabelValues(b.Name).Set(float64(b.Used))
		p.metrics.boundLimit.WithLabelValues(b.Name).Set(float64(b.Limit))
	}
	for _, lane := range event.Lanes() {
		p.metrics.waiting.WithLabelValues(lane.String()).Set(float64(s.Waiting[lane]))
	}
}

// leave hands everything over: what can be committed is, every lane is said to
// be released, and the group is left.
func (p *Processor) leave(ctx context.Context) error {
	p.ready.Store(false)
	for lp := range p.gates {
		p.step(engine.Revoked{LP: lp})
	}
	p.commit.releases.Wait()
	const goodbye = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, goodbye)
	defer cancel()
	if err := p.out.Flush(ctx); err != nil {
		p.log.WarnContext(ctx, "some outputs were not acknowledged before leaving", "error", err)
	}
	if err := p.group.Leave(ctx); err != nil {
		p.log.WarnContext(ctx, "the group was not left in order", "error", err)
	}
	return nil
}
