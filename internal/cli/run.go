package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/penstock-io/penstock/internal/admission"
	"github.com/penstock-io/penstock/internal/app"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/telemetry"
	"github.com/penstock-io/penstock/internal/topics"
)

// KafkaFlags say where the log is and how its topics are made.
type KafkaFlags struct {
	Kafka []string `setting:"" default:"127.0.0.1:9092" placeholder:"HOST:PORT" help:"Bootstrap addresses of Kafka."`
	SecurityFlags
	TopicFlags
}

// SecurityFlags say how a process and Kafka come to trust each other.
type SecurityFlags struct {
	KafkaTLS      bool   `setting:"" help:"Speak TLS to Kafka."`
	KafkaCA       string `setting:"" placeholder:"FILE" help:"PEM certificates that vouch for the brokers, in place of the system's."`
	KafkaCert     string `setting:"" placeholder:"FILE" help:"The process's own certificate in PEM, for brokers that ask for one; it is read anew at every connection."`
	KafkaKey      string `setting:"" placeholder:"FILE" help:"The key of that certificate in PEM."`
	KafkaSASL     string `setting:"" placeholder:"MECHANISM" help:"How to say a name to Kafka: plain, scram-sha-256 or scram-sha-512."`
	KafkaUser     string `setting:"" placeholder:"NAME" help:"The name that is said."`
	KafkaPassword string `setting:"" secret:"" placeholder:"PASSWORD" help:"Its password; better given in the environment."`
}

func (f SecurityFlags) security() kafka.Security {
	return kafka.Security{
		TLS: f.KafkaTLS, CA: f.KafkaCA, Cert: f.KafkaCert, Key: f.KafkaKey,
		SASL: f.KafkaSASL, User: f.KafkaUser, Password: f.KafkaPassword,
	}
}

// TopicFlags say how the topics are made.
type TopicFlags struct {
	Prefix      string `setting:"" default:"penstock." help:"What stands before the name of every topic and group."`
	Partitions  int32  `setting:"" default:"12" help:"Partitions of the topics; fixed for a prefix's life."`
	Replication int16  `setting:"" default:"1" help:"Copies of each partition; 3 in production."`
}

func (f TopicFlags) options() topics.Options {
	return topics.Options{Prefix: f.Prefix, Partitions: f.Partitions, Replication: f.Replication}
}

// PostgresFlags say where the database is.
type PostgresFlags struct {
	Postgres string `setting:"" secret:"" placeholder:"URL" help:"PostgreSQL, such as postgres://user:password@host:5432/penstock."`
}

// ProcessFlags say how a process works.
type ProcessFlags struct {
	Listen        string            `setting:"" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to serve HTTP."`
	MetricsListen string            `setting:"" placeholder:"HOST:PORT" help:"A listener for /metrics and /debug/pprof alone."`
	Providers     map[string]string `setting:"" secret:"" placeholder:"NAME=URL" help:"OpenAI-compatible servers of models, called by NAME/MODEL; the key of each is in the variable NAME_API_KEY."`
	Models        map[string]string `setting:"" placeholder:"NAME=MODEL" help:"Bare names of models."`
	WorkFlags
	FirstTokenTimeout time.Duration `setting:"" default:"60s" help:"How long a model may take to its first token."`
	NextTokenTimeout  time.Duration `setting:"" default:"30s" help:"How long a model may fall silent after that."`
	ModelTries        int           `setting:"" default:"3" help:"How often a model is called that fails before its first token; 1 tries nothing again."`
	Origins           []string      `setting:"" placeholder:"ORIGIN" help:"Origins of browsers' pages that may open a WebSocket, beside the server's own; * is any."`
	ConnectionFlags
	BudgetFlags
}

// ConnectionFlags bound who may watch.
type ConnectionFlags struct {
	MaxConnections           int      `setting:"" default:"20000" help:"WebSockets and SSE streams of events at once."`
	MaxConnectionsPerTenant  int      `setting:"" default:"0" help:"Of those, one tenant's; 0 is no bound."`
	MaxConnectionsPerAddress int      `setting:"" default:"0" help:"Of those, from one address (of IPv6: one network of 64 bits); 0 is no bound. Behind a proxy set --trusted-proxies too."`
	TrustedProxies           []string `setting:"" placeholder:"ADDRESS" help:"Addresses or networks of proxies that say in X-Forwarded-For where a request comes from."`
}

// BudgetFlags bound what is let in.
type BudgetFlags struct {
	MaxWait        map[event.Lane]time.Duration `setting:"" default:"interactive=15s;standard=1m;batch=24h" placeholder:"LANE=TIME" help:"How long a request may have to wait before it is begun, by lane; more are refused."`
	MaxOutstanding map[event.Lane]int64         `setting:"" default:"interactive=2000;standard=20000;batch=100000" placeholder:"LANE=N" help:"Requests that may be let in and not done, by lane, in each partition; more are refused."`
}

func (f BudgetFlags) budgets() map[event.Lane]admission.Limits {
	all := map[event.Lane]admission.Limits{}
	for _, lane := range event.Lanes() {
		all[lane] = admission.Limits{Wait: f.MaxWait[lane], Outstanding: f.MaxOutstanding[lane]}
	}
	return all
}

// RoleFlags say which part of the work a process takes on.
type RoleFlags struct {
	Roles    []string      `setting:"" default:"ingest,processors,projections,gateway" placeholder:"ROLE" help:"Roles that this process has."`
	Lanes    []event.Lane  `setting:"" default:"interactive,standard,batch" placeholder:"LANE" help:"Lanes that the processors work on."`
	Sim      bool          `setting:"" help:"Serve the simulated models."`
	Grace    time.Duration `setting:"" default:"30s" help:"How long what is in flight gets to end after a stop."`
	Patience time.Duration `setting:"" default:"30s" help:"How long to wait for Kafka and PostgreSQL at start."`
}

// RunCmd runs a production process.
type RunCmd struct {
	KafkaFlags
	PostgresFlags
	ProcessFlags
	RoleFlags
}

// Run implements the command.
func (c *RunCmd) Run(ctx context.Context, sys *System, common *Common) error {
	servers, err := modelServers(c.Providers, sys.Env)
	if err != nil {
		return usageError{err}
	}
	work, err := c.work()
	if err != nil {
		return usageError{err}
	}
	cfg := app.Config{
		Lanes: c.Lanes, Listen: c.Listen, MetricsListen: c.MetricsListen,
		Origins: c.Origins, MaxConnections: c.MaxConnections, TrustedProxies: c.TrustedProxies,
		MaxConnectionsPerTenant: c.MaxConnectionsPerTenant, MaxConnectionsPerAddress: c.MaxConnectionsPerAddress,
		Kafka: c.Kafka, Security: c.security(), Topics: c.options(), Postgres: c.Postgres,
		Simulated: c.Sim, Servers: servers, Models: c.Models, Work: work, SessionTimeout: c.SessionTimeout, Budgets: c.budgets(),
		FirstToken: c.FirstTokenTimeout, NextToken: c.NextTokenTimeout, Tries: c.ModelTries, Grace: c.Grace, Patience: c.Patience,
		Traces: telemetry.TracesURL(sys.Env),
	}
	for _, name := range c.Roles {
		role, err := app.ParseRole(name)
		if err != nil {
			return usageError{err}
		}
		cfg.Roles = append(cfg.Roles, role)
	}
	a, err := app.New(cfg, common.logger(sys))
	if err != nil {
		return usageError{err}
	}
	return serve(ctx, a, sys.Started)
}

// serve runs an app and tells its address once it serves.
func serve(ctx context.Context, a *app.App, started func(addr string)) error {
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	select {
	case err := <-ended:
		return wrapRun(err)
	case <-a.Ready():
	}
	if started != nil {
		started(a.Addr())
	}
	return wrapRun(<-ended)
}

func wrapRun(err error) error {
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}
