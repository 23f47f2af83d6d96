package app

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/internal/admission"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/ingest"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
	"github.com/penstock-io/penstock/internal/topics"
)

// Role is a part of the work that a process may take on.
type Role string

// The roles.
const (
	Ingest      Role = "ingest"      // takes jobs in over HTTP
	Processors  Role = "processors"  // calls the models
	Projections Role = "projections" // folds the log into PostgreSQL
	Gateway     Role = "gateway"     // serves streams and the page
)

// Roles returns every role.
func Roles() []Role { return []Role{Ingest, Processors, Projections, Gateway} }

// ParseRole reads a role's name.
func ParseRole(name string) (Role, error) {
	if r := Role(name); slices.Contains(Roles(), r) {
		return r, nil
	}
	return "", fmt.Errorf("%q is no role: it must be ingest, processors, projections or gateway", name)
}

const (
	defaultListen = "127.0.0.1:8080"
	// defaultGrace is how long what is in flight gets to end after a stop.
	defaultGrace = 30 * time.Second
	// defaultPatience is how long a start waits for Kafka and PostgreSQL.
	defaultPatience = 30 * time.Second
)

// Config says what a process is. The zero value of a field takes its default.
type Config struct {
	Roles  []Role       // default all
	Lanes  []event.Lane // that the processors work on; default all
	Listen string       // host:port of the HTTP listener; default 127.0.0.1:8080
	// MetricsListen is the host:port of a listener for /metrics and /debug/pprof
	// alone; "" serves /metrics on Listen and no profiles.
	MetricsListen string

	// Origins are those of browsers' pages that may open a WebSocket, beside the
	// server's own; "*" is any.
	Origins        []string
	MaxConnections int // WebSockets and SSE streams of events at once; default 20,000
	// Of those, one tenant's, and those from one address; 0: no bound.
	MaxConnectionsPerTenant, MaxConnectionsPerAddress int
	// TrustedProxies are addresses, or networks such as 10.0.0.0/8, of proxies that
	// say in X-Forwarded-For where a request comes from.
	TrustedProxies []string

	Kafka    []string       // bootstrap addresses, host:port; at least one
	Security kafka.Security // of the connections to Kafka
	Topics   topics.Options // prefix, partitions and copies of the topics
	Postgres string         // URL; needed by every role but the processors

	// Apply makes missing topics and brings the database's schema up to date at
	// start-up. Without it a process refuses to start on what does not match.
	Apply bool

	// Simulated serves the simulated models.
	Simulated bool
	// Servers are the model servers that are called by "name/model".
	Servers []ModelServer
	// Models gives bare names to models: "fast" -> "openai/gpt-5-mini".
	Models map[string]string
	// Upstream is the base URL of an OpenAI-compatible server that is sent every
	// model name that is not known otherwise; "" for none. It is for development:
	// a typo becomes a call.
	Upstream    string
	UpstreamKey string // bearer token for Upstream; "" sends none

	// Budgets bound what is let in, by lane, for each partition; a lane that is
	// left out, and a zero, have ingest.DefaultBudgets.
	Budgets map[event.Lane]admission.Limits

	// Traces is where a collector takes traces by OTLP over HTTP, such as
	// http://127.0.0.1:4318/v1/traces; "" makes none (telemetry.TracesURL).
	Traces string

	Work           engine.Config // bounds of the processors' work; defaults the engine's
	SessionTimeout time.Duration // of the processors' group; default kafka.GroupConfig's, 6 s

	FirstToken time.Duration // how long a model may take to its first token; default the processors', 60 s
	NextToken  time.Duration // how long it may fall silent after that; default the processors', 30 s
	Tries      int           // calls of a model that fail before the first token, in all; default the processors', 3
	Grace      time.Duration // how long what is in flight gets to end; default 30 s
	Patience   time.Duration // how long to wait for Kafka and PostgreSQL at start; default 30 s

	proxies []netip.Prefix // TrustedProxies, read
}

// ModelServer is a server of models. The one named anthropic speaks Anthropic's
// Messages API, every other OpenAI's.
type ModelServer struct {
	Name string // its models' prefix, such as openai
	URL  string // as the API's own SDKs take it
	Key  string // "" sends none
}

// withDefaults fills in what was left out and says what cannot be.
func withDefaults(c Config) (Config, error) {
	if len(c.Roles) == 0 {
		c.Roles = Roles()
	}
	for _, r := range c.Roles {
		if _, err := ParseRole(string(r)); err != nil {
			return c, err
		}
	}
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	if c.Topics.Prefix == "" {
		c.Topics.Prefix = topics.DefaultPrefix
	}
	if c.Topics.Partitions == 0 {
		c.Topics.Partitions = topics.DefaultPartitions
	}
	if c.Grace <= 0 {
		c.Grace = defaultGrace
	}
	if c.Patience <= 0 {
		c.Patience = defaultPatience
	}
	var errs []error
	c.Budgets, errs = budgets(c.Budgets)
	for name, addr := range map[string]string{"listen": c.Listen, "metrics-listen": c.MetricsListen} {
		if addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is no address: it must be host:port, such as 127.0.0.1:8080", name, addr))
		}
	}
	if c.MaxConnections < 0 || c.MaxConnectionsPerTenant < 0 || c.MaxConnectionsPerAddress < 0 {
		errs = append(errs, errors.New("max-connections, max-connections-per-tenant, max-connections-per-address: they must be 0 or more"))
	}
	for _, text := range c.TrustedProxies {
		p, err := network(text)
		if err != nil {
			errs = append(errs, err)
		}
		c.proxies = append(c.proxies, p)
	}
	if c.FirstToken < 0 || c.NextToken < 0 || c.Tries < 0 {
		errs = append(errs, errors.New("first-token-timeout, next-token-timeout, model-tries: they must be above 0"))
	}
	if err := c.Work.Validate(); err != nil {
		errs = append(errs, err)
	}
	if len(c.Kafka) == 0 {
		errs = append(errs, errors.New("kafka: no broker is configured: give at least one host:port"))
	}
	for _, b := range c.Kafka {
		if _, _, err := net.SplitHostPort(strings.TrimSpace(b)); err != nil {
			errs = append(errs, fmt.Errorf("kafka: %q is no broker: it must be host:port", b))
		}
	}
	if err := c.Security.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("kafka: %w", err))
	}
	if c.Postgres == "" && c.needsPostgres() {
		errs = append(errs, errors.New("postgres: no database is configured: give its URL, such as postgres://user:password@host:5432/penstock; only the processors go without"))
	}
	return c, errors.Join(errs...)
}

// network reads an address, which is a network of one, or a network.
func network(text string) (netip.Prefix, error) {
	text = strings.TrimSpace(text)
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("trusted-proxies: %q is no address: it must be one, or a network, such as 10.0.0.0/8", text)
	}
	return p, nil
}

// budgets fills in what was left out of the lanes' budgets.
func budgets(given map[event.Lane]admission.Limits) (map[event.Lane]admission.Limits, []error) {
	var errs []error
	all := ingest.DefaultBudgets()
	for _, lane := range event.Lanes() {
		b, def := given[lane], all[lane]
		if b.Wait == 0 {
			b.Wait = def.Wait
		}
		if b.Outstanding == 0 {
			b.Outstanding = def.Outstanding
		}
		if b.Wait < 0 {
			errs = append(errs, fmt.Errorf("max-wait: %s for %s: it must be above zero, such as %s", b.Wait, lane, def.Wait))
		}
		if b.Outstanding < 0 {
			errs = append(errs, fmt.Errorf("max-outstanding: %d for %s: it must be 1 or more, such as %d", b.Outstanding, lane, def.Outstanding))
		}
		all[lane] = b
	}
	return all, errs
}

func (c *Config) has(roles ...Role) bool {
	return slices.ContainsFunc(roles, func(r Role) bool { return slices.Contains(c.Roles, r) })
}

// serves tells whether the process answers questions about jobs: it then builds
// all that this takes, whichever of the two roles it has.
func (c *Config) serves() bool { return c.has(Ingest, Gateway) }

func (c *Config) needsPostgres() bool { return c.has(Ingest, Gateway, Projections) }
