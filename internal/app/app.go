// Package app wires the roles into one process: it opens Kafka and PostgreSQL,
// looks whether topics and schema are what this build expects, builds what the
// roles need, serves HTTP, and stops everything in order.
//
// An App is a value that commands and tests start. Its Run owns every goroutine
// of the process, by way of the parts' own Run methods, in stages: listener,
// gateway, processors, projections. On a stop each stage ends before the next is
// told to, then producers are flushed and clients closed; the grace period
// bounds all of it.
package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/doctor"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/genai"
	"github.com/penstock-io/penstock/internal/telemetry"
)

// App is one process's worth of Penstock.
type App struct {
	cfg     Config
	log     *slog.Logger
	metrics *prometheus.Registry
	models  *llm.Registry
	traces  *telemetry.Tracing // nil: none
	calls   *genai.Observer    // of models
	hangUp  func()             // lets go of connections to model servers
	owner   string

	ready chan struct{}
	once  sync.Once
	addr  string // set before ready is closed
}

// New makes an App, which speaks to nobody before Run. The error says what is
// wrong with the configuration. A nil logger discards.
func New(cfg Config, log *slog.Logger) (*App, error) {
	cfg, err := withDefaults(cfg)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &App{cfg: cfg, log: log, metrics: prometheus.NewRegistry(), owner: newOwner(), ready: make(chan struct{})}
	if err := a.provide(); err != nil {
		return nil, err
	}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(),
	} {
		if err := a.metrics.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return a, nil
}

// buildInfo is a metric that tells which build runs.
func buildInfo() prometheus.Collector {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_build_info", Help: "Always 1; its label says which build runs."}, []string{"version"})
	g.WithLabelValues(version()).Set(1)
	return g
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// watch opens what watches calls: the tracing, and the observer of models.
func (a *App) watch(ctx context.Context) (err error) {
	a.traces, err = telemetry.NewTracing(ctx, telemetry.TracingConfig{
		URL: a.cfg.Traces, Version: version(), Instance: a.owner, Log: a.log, Metrics: a.metrics,
	})
	if err != nil {
		return err //nolint:wrapcheck // it says what it could not do
	}
	a.calls, err = genai.New(a.metrics, a.traces.Tracer())
	return err //nolint:wrapcheck // it says what it could not do
}

// Close lets go of the model servers of an App that was not run.
func (a *App) Close() { a.hangUp() }

// Checks are the providers, for a doctor to ask.
func (a *App) Checks() []doctor.Model {
	var all []doctor.Model
	for _, p := range a.models.Providers() {
		m := doctor.Model{Name: p.Name()}
		if c, ok := p.(llm.Checker); ok {
			m.Check = c.Check
		}
		all = append(all, m)
	}
	return all
}

// newOwner names this process's incarnation, so that its claims are told from
// those of every other, before and after.
func newOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	var b [6]byte
	_, _ = rand.Read(b[:]) // it never fails
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), hex.EncodeToString(b[:]))
}

// Metrics are the process's.
func (a *App) Metrics() prometheus.Gatherer { return a.metrics }

// Ready is closed once the listener is bound and the process takes requests.
func (a *App) Ready() <-chan struct{} { return a.ready }

// Addr is where the listener is bound, host:port; "" before Ready.
func (a *App) Addr() string {
	select {
	case <-a.ready:
		return a.addr
	default:
		return ""
	}
}

// Run works until ctx ends and everything has stopped in order, and returns nil
// then. An error says what could not be started, or what failed and had the
// rest stopped. It may be called once.
func (a *App) Run(ctx context.Context) error {
	defer a.hangUp()
	if err := a.watch(ctx); err != nil {
		return err
	}
	defer a.traces.Shutdown(context.WithoutCancel(ctx))
	p, err := a.open(ctx)
	if err != nil {
		if ctx.Err() != nil { // stopped while it started
			a.log.InfoContext(ctx, "stopped while starting", slog.Any("error", err))
			return nil
		}
		return err
	}
	defer p.close(context.WithoutCancel(ctx))
	return runStages(ctx, a.log, a.cfg.Grace, a.stages(p))
}

func (a *App) stages(p *parts) []stage {
	listener := stage{"listener", []func(context.Context) error{func(ctx context.Context) error { return a.listen(ctx, p) }}}
	gateway, processing, projecting := stage{name: "gateway"}, stage{name: "processors"}, stage{name: "projections"}
	if p.gateway != nil {
		gateway.runs = append(gateway.runs, p.gateway.Run, p.positions.Run, p.load.Run)
	}
	if p.processor != nil {
		processing.runs = append(processing.runs, p.process)
	}
	if p.projector != nil {
		projecting.runs = append(projecting.runs, p.projector.Run)
	}
	if a.cfg.has(Ingest) {
		projecting.runs = append(projecting.runs, p.ingest.Run)
	}
	stages := []stage{listener, gateway, processing, projecting}
	if a.cfg.MetricsListen != "" { // last, so that a stop can be watched
		stages = append(stages, stage{"metrics", []func(context.Context) error{a.serveMetrics}})
	}
	return stages
}

// listenerGrace is how long requests may go on after a stop. Streams and waits
// are told to end, so that what is left takes milliseconds.
func (a *App) listenerGrace() time.Duration {
	return min(a.cfg.Grace/3+time.Millisecond, 5*time.Second)
}

func (a *App) listen(ctx context.Context, p *parts) error {
	//nolint:wrapcheck // it says what it could not do
	return api.Serve(ctx, a.cfg.Listen, a.traces.HTTP(a.router(p), "/livez", "/readyz", "/health", "/metrics"), api.ServerConfig{
		Log:   a.log,
		Grace: a.listenerGrace(),
		Listening: func(addr net.Addr) {
			a.addr = addr.String()
			a.log.InfoContext(ctx, "ready", slog.String("listen", a.addr), slog.Any("roles", a.cfg.Roles))
			a.once.Do(func() { close(a.ready) })
		},
		Stopping: func() {
			p.stopWaits()
			if p.gateway != nil {
				p.gateway.Drain()
			}
		},
	})
}
