package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/app"
	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/telemetry"
	"github.com/penstock-io/penstock/internal/topics"
)

const (
	// devGrace is short: what is cut off goes on at the next start.
	devGrace = 3 * time.Second
	// devStopTime bounds how long the private database takes to stop in order.
	devStopTime = 10 * time.Second
	// hintAfter is when a start is slow enough for a word about it.
	hintAfter = 1500 * time.Millisecond
)

// DevCmd runs everything in one process.
type DevCmd struct {
	Data     string   `setting:"" placeholder:"DIR" help:"Where the embedded parts keep their data; default is penstock/dev in the user's data directory."`
	Kafka    []string `setting:"" placeholder:"HOST:PORT" help:"A real Kafka in place of the embedded broker."`
	Postgres string   `setting:"" secret:"" placeholder:"URL" help:"A real PostgreSQL in place of the private one."`
	SecurityFlags
	UpstreamFlags
	TopicFlags
	ProcessFlags
}

// UpstreamFlags say which server answers for the models that are not simulated.
type UpstreamFlags struct {
	Upstream    string `setting:"" secret:"" placeholder:"URL" help:"An OpenAI-compatible server, such as http://127.0.0.1:8000/v1, that dev sends every other model name to."`
	UpstreamKey string `setting:"" secret:"" placeholder:"KEY" help:"What dev shows to that server; better given in the environment."`
}

// Run implements the command.
func (c *DevCmd) Run(ctx context.Context, sys *System, common *Common, set *settings) error {
	common.begin("warn", set)
	log := common.logger(sys)
	servers, err := modelServers(c.Providers, sys.Env)
	if err != nil {
		return usageError{err}
	}
	work, err := c.work()
	if err != nil {
		return usageError{err}
	}
	stack, err := c.start(ctx, sys, log)
	if ctx.Err() != nil {
		return stack.stop(ctx) // while it started
	}
	if err != nil {
		return err
	}
	a, err := app.New(app.Config{
		Listen: c.Listen, MetricsListen: c.MetricsListen,
		Origins: c.Origins, MaxConnections: c.MaxConnections, TrustedProxies: c.TrustedProxies,
		MaxConnectionsPerTenant: c.MaxConnectionsPerTenant, MaxConnectionsPerAddress: c.MaxConnectionsPerAddress,
		Kafka: stack.kafka, Security: c.security(), Postgres: stack.postgres, Topics: c.options(),
		Apply: true, Simulated: true, Servers: servers, Models: c.Models, Work: work, SessionTimeout: c.SessionTimeout,
		FirstToken: c.FirstTokenTimeout, NextToken: c.NextTokenTimeout, Tries: c.ModelTries, Grace: devGrace,
		Budgets: c.budgets(), Upstream: c.Upstream, UpstreamKey: c.UpstreamKey,
		Traces: telemetry.TracesURL(sys.Env),
	}, log)
	if err != nil {
		return errors.Join(usageError{err}, stack.stop(ctx))
	}
	err = errors.Join(stack.serve(ctx, a, func(addr string) {
		c.welcome(sys, addr, stack)
		if sys.Started != nil {
			sys.Started(addr)
		}
	}), stack.stop(ctx))
	if err == nil {
		fmt.Fprintln(sys.Stdout, "Stopped.")
	}
	return err
}

// devStack is what dev runs on: embedded, or real and somebody else's.
type devStack struct {
	data     string // "" where nothing is embedded
	kafka    []string
	postgres string
	broker   *devstack.Broker
	database *devstack.Postgres
}

// start starts the embedded parts, side by side.
func (c *DevCmd) start(ctx context.Context, sys *System, log *slog.Logger) (*devStack, error) {
	s := &devStack{kafka: c.Kafka, postgres: c.Postgres}
	if len(c.Kafka) > 0 && c.Postgres != "" {
		return s, nil
	}
	var err error
	if s.data, err = c.dataDir(sys.Env); err != nil {
		return nil, usageError{err}
	}
	hint := "Starting."
	if _, err := os.Stat(s.data); err != nil {
		hint = "Starting; the first start fetches the binaries of PostgreSQL."
	}
	if err := os.MkdirAll(s.data, 0o711); err != nil { //nolint:gosec // PostgreSQL's account has to pass where this one is root
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	defer time.AfterFunc(hintAfter, func() { fmt.Fprintln(sys.Stderr, hint) }).Stop()
	both, bothCtx := errgroup.WithContext(ctx)
	if len(c.Kafka) == 0 {
		both.Go(func() (err error) {
			s.broker, err = startBroker(bothCtx, filepath.Join(s.data, "kafka"), log)
			return err
		})
	}
	if c.Postgres == "" {
		both.Go(func() (err error) {
			s.database, err = devstack.StartPostgres(bothCtx, devstack.PostgresConfig{Dir: filepath.Join(s.data, "postgres"), Log: log})
			return err //nolint:wrapcheck // it says what it could not do
		})
	}
	if err := both.Wait(); err != nil {
		err = errors.Join(err, s.stop(ctx))
		if errors.Is(err, devstack.ErrInUse) {
			return nil, fmt.Errorf("another penstock dev works in %s: stop it, or choose another directory with --data", s.data)
		}
		return nil, err
	}
	if s.broker != nil {
		s.kafka = []string{s.broker.Addr()}
	}
	if s.database != nil {
		s.postgres = s.database.URL()
	}
	return s, nil
}

// startBroker starts the broker where it listened the last time, so that what
// was configured for it stays true, or elsewhere where that is taken.
func startBroker(ctx context.Context, dir string, log *slog.Logger) (*devstack.Broker, error) {
	note := filepath.Join(dir, "address")
	cfg := devstack.BrokerConfig{Dir: dir, Log: log}
	if last, err := os.ReadFile(note); err == nil { //nolint:gosec // in the data directory
		cfg.Listen = strings.TrimSpace(string(last))
	}
	b, err := devstack.StartBroker(ctx, cfg)
	if err != nil && cfg.Listen != "" && !errors.Is(err, devstack.ErrInUse) {
		log.WarnContext(ctx, "the broker's last address cannot be had again", slog.String("address", cfg.Listen), slog.Any("error", err))
		cfg.Listen = ""
		b, err = devstack.StartBroker(ctx, cfg)
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it could not do
	}
	if err := os.WriteFile(note, []byte(b.Addr()+"\n"), 0o600); err != nil {
		log.WarnContext(ctx, "the broker's address is not kept for the next start", slog.Any("error", err))
	}
	return b, nil
}

// serve runs the app on the stack, and no longer than its database runs.
func (s *devStack) serve(ctx context.Context, a *app.App, started func(addr string)) error {
	if s.database == nil {
		return serve(ctx, a, started)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	gone := errors.New("the private PostgreSQL has ended by itself: start anew; what was accepted is kept")
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-s.database.Done():
			cancel(gone)
		case <-ctx.Done():
		}
	}()
	err := serve(ctx, a, started)
	cancel(nil)
	<-watched
	if errors.Is(context.Cause(ctx), gone) {
		err = errors.Join(gone, err)
	}
	return err
}

// stop stops what start started.
func (s *devStack) stop(ctx context.Context) error {
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), devStopTime)
	defer cancel()
	var errs []error
	if s.broker != nil {
		errs = append(errs, s.broker.Close())
	}
	if s.database != nil {
		errs = append(errs, s.database.Stop(ctx))
	}
	return errors.Join(errs...)
}

// dataDir is where data are kept: they are the user's, no cache.
func (c *DevCmd) dataDir(env func(string) (string, bool)) (string, error) {
	if c.Data != "" {
		return filepath.Abs(c.Data) //nolint:wrapcheck // it names the directory
	}
	get := func(name string) string {
		if env == nil {
			return ""
		}
		v, _ := env(name)
		return v
	}
	base := get("XDG_DATA_HOME")
	home := get("HOME")
	switch {
	case filepath.IsAbs(base):
	case runtime.GOOS == "windows":
		base = get("LocalAppData")
	case home == "":
	case runtime.GOOS == "darwin":
		base = filepath.Join(home, "Library", "Application Support")
	default:
		base = filepath.Join(home, ".local", "share")
	}
	if base == "" {
		return "", errors.New("there is no home directory to keep data in: say where with --data DIR")
	}
	return filepath.Join(base, "penstock", "dev"), nil
}

// welcome says what there is to try.
func (c *DevCmd) welcome(sys *System, addr string, s *devStack) {
	base := "http://" + addr
	name := cmp.Or(sys.Name, "penstock")
	server := ""
	if base != defaultServer {
		server = " --server " + base
	}
	others := ""
	if c.Upstream != "" {
		others = "Models that are not known here are asked for at " + mask(c.Upstream) + "\n"
	}
	kept := s.data
	if kept == "" {
		kept = "in the Kafka and PostgreSQL that were named"
	}
	fmt.Fprintf(sys.Stdout, `Penstock is at %[1]s

  curl -sN %[1]s$(curl -s %[1]s/v1/jobs -H 'content-type: application/json' -d '{"body":{"model":"sim","messages":[{"role":"user","content":"hello"}]}}' | sed -E 's/.*"events":"([^"]+)".*/\1/')
  %[7]s job submit%[2]s --model sim --follow "hello"
  kcat -C -b %[3]s -t %[4]s

%[6]sData: %[5]s
Ctrl-C stops it.
`, base, server, strings.Join(s.kafka, ","), topics.Names{Prefix: c.Prefix}.Tokens(), kept, others, name)
}
