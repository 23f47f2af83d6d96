package doctor

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/postgres"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(m)) }

// examine runs a doctor and gives its findings.
func examine(t *testing.T, cfg Config) []Finding {
	t.Helper()
	cfg.Watch, cfg.Patience = 100*time.Millisecond, 20*time.Second
	var list []Finding
	Run(t.Context(), cfg, func(f Finding) { list = append(list, f) })
	for _, f := range list {
		if f.Status != OK && (f.Why == "" || f.Do == "") {
			t.Errorf("it does not say why, or what to do: %+v", f)
		}
	}
	return list
}

// found wants a finding.
func found(t *testing.T, list []Finding, check string, status Status, what string) {
	t.Helper()
	if !slices.ContainsFunc(list, func(f Finding) bool {
		return f.Check == check && f.Status == status && strings.Contains(f.What, what)
	}) {
		t.Errorf("no finding %s %s with %q in\n%+v", check, status, what, list)
	}
}

func deployment(t *testing.T) (Config, *kafka.Cluster) {
	t.Helper()
	cfg := Config{
		Brokers: []string{testenv.Kafka(t)}, Postgres: testenv.Postgres(t),
		Topics: topics.Options{Prefix: testenv.Prefix(t), Partitions: 2, Replication: 1}, Models: []Model{{Name: "sim"}},
	}
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: cfg.Brokers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return cfg, c
}

func apply(t *testing.T, c *kafka.Cluster, opts topics.Options) {
	t.Helper()
	want := topics.Catalogue(opts)
	have, err := c.Describe(t.Context(), namesOf(want)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), topics.Plan(want, have)); err != nil {
		t.Fatal(err)
	}
}

func TestADeploymentIsExaminedFromNothingToWhole(t *testing.T) {
	t.Parallel()
	cfg, c := deployment(t)
	list := examine(t, cfg)
	found(t, list, "kafka", OK, cfg.Brokers[0])
	found(t, list, "kafka.listeners", OK, "1 broker")
	found(t, list, "kafka.version", OK, "Kafka")
	found(t, list, "topics", Fail, cfg.Topics.Prefix+"tokens")
	found(t, list, "postgres.schema", Fail, "behind this build")

	apply(t, c, cfg.Topics)
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: cfg.Postgres})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := postgres.Migrate(t.Context(), pool, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	list = examine(t, cfg)
	for _, check := range []string{"topics", "topics.copies", "topics.identity", "processors.lag", "postgres", "postgres.schema", "projections", "clocks.postgres", "models.sim"} {
		found(t, list, check, OK, "")
	}
	found(t, list, "processors", Warn, "nobody works, and nothing waits")

	// A request that nobody takes, old enough for the tables to be late.
	p, err := c.NewProducer(kafka.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	names := topics.Names{Prefix: cfg.Topics.Prefix}
	for _, rec := range []event.Record{
		{Topic: names.Requests(event.Standard), Time: time.Now().Add(-time.Hour), Value: []byte("{}")},
		{Topic: names.Pulse(), Time: time.Now().Add(time.Hour), Key: []byte("standard/0"), Value: []byte("{}")},
	} {
		if _, err := p.Append(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pool.Exec(t.Context(), `INSERT INTO penstock.schema_versions (version_id, is_applied) VALUES (9999, true)`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `INSERT INTO penstock.checkpoints (projection, version, topic, part, topic_id, next_offset)
		VALUES ('other', 1, $1, 0, 'of another', 0)`, names.Jobs()); err != nil {
		t.Fatal(err)
	}
	other := cfg
	other.Topics.Replication, other.Topics.MaxOutputBytes, other.MaxConns, other.Now = 3, 16<<20, 1000, func() time.Time { return time.Now().Add(-time.Minute) }
	list = examine(t, other)
	found(t, list, "processors", Fail, "nobody works, and 1 requests wait")
	found(t, list, "clocks.processors", Fail, "ahead")
	found(t, list, "clocks.postgres", Warn, "apart")
	found(t, list, "postgres.schema", Warn, "newer build")
	found(t, list, "postgres.connections", Warn, "max_connections")
	found(t, list, "topics.replication", Warn, "fewer copies")
	found(t, list, "topics.config", Fail, "max.message.bytes")
	found(t, list, "topics.identity", Fail, names.Jobs())
	if _, err := pool.Exec(t.Context(), `DELETE FROM penstock.checkpoints`); err != nil {
		t.Fatal(err)
	}
	found(t, examine(t, cfg), "projections", Fail, "1 records are not folded")
	other.Topics.Partitions = 5
	found(t, examine(t, other), "topics.partitions", Fail, "another partition count")
}

func TestWhoIsAwayIsNamed(t *testing.T) {
	t.Parallel()
	list := examine(t, Config{Brokers: []string{"127.0.0.1:1"}})
	found(t, list, "kafka", Fail, "no broker can be reached")
	found(t, list, "postgres", Warn, "no database")
	found(t, list, "models", Warn, "no model")
	found(t, examine(t, Config{Brokers: []string{testenv.Kafka(t), "127.0.0.1:1"}}), "kafka", Warn, "127.0.0.1:1")
	good, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	wrong, missing := *good, *good
	wrong.User = url.UserPassword("postgres", "wrong")
	missing.Path = "/nowhere"
	found(t, examine(t, Config{Brokers: []string{"127.0.0.1:1"}, Postgres: wrong.String()}), "postgres", Fail, "refuses this user or password")
	found(t, examine(t, Config{Brokers: []string{"127.0.0.1:1"}, Postgres: missing.String()}), "postgres", Fail, "no such database")
}

type brokers struct {
	list []kafka.Broker
	err  error
}

func (b brokers) Brokers(context.Context) ([]kafka.Broker, error) { return b.list, b.err }

func TestBrokersThatAreOldSilentOrForbidden(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	here := kafka.Broker{ID: 1, Addr: "a:1", Version: "v4.0", TopicIDs: true}
	away := kafka.Broker{ID: 2, Addr: "b:1", Err: errors.New("no route")}
	found(t, Listeners(ctx, brokers{list: []kafka.Broker{here, away}}), "kafka.listeners", Warn, "2 at b:1")
	found(t, Listeners(ctx, brokers{list: []kafka.Broker{away}}), "kafka.listeners", Fail, "2 at b:1")
	found(t, Listeners(ctx, brokers{list: []kafka.Broker{{ID: 3, Version: "v2.5"}}}), "kafka.version", Fail, "3 (v2.5)")
	list := Listeners(ctx, brokers{err: kafka.ErrDenied})
	if len(list) != 1 || !strings.Contains(list[0].Do, "grant this client's principal") {
		t.Errorf("access denied: %+v", list)
	}
}

func TestAKafkaThatIsNotTrustedIsNamed(t *testing.T) {
	t.Parallel()
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	stranger.StartTLS() // with a certificate that nobody vouches for
	defer stranger.Close()
	var list []Finding
	cfg := Config{Brokers: []string{stranger.Listener.Addr().String()}, Security: kafka.Security{TLS: true}}
	Run(t.Context(), cfg, func(f Finding) { list = append(list, f) })
	found(t, list, "kafka", Fail, "does not accept who asks")
}

func TestModelsThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	list := Models(t.Context(), []Model{
		{Name: "good", Check: func(context.Context) error { return nil }},
		{Name: "key", Check: func(context.Context) error { return fault.New(fault.ProviderRejected, "401") }},
		{Name: "gone", Check: func(context.Context) error { return errors.New("refused") }},
	})
	found(t, list, "models.good", OK, "")
	found(t, list, "models.key", Fail, "the key")
	found(t, list, "models.gone", Fail, "does not answer")
}

func TestLagThatGrowsAndLanesWithoutAnOwner(t *testing.T) {
	t.Parallel()
	tp := kafka.TopicPartition{Topic: "r", Partition: 0}
	members := []kafka.Member{{ID: "m", Partitions: []kafka.TopicPartition{tp}}}
	lag := map[kafka.TopicPartition]int64{tp: 3}
	if f := owners(members, lag); f.Status != OK {
		t.Errorf("all owned: %+v", f)
	}
	lag[kafka.TopicPartition{Topic: "r", Partition: 1}] = 7
	if f := owners(members, lag); f.Status != Fail || !strings.Contains(f.What, "r/1, in which 7") {
		t.Errorf("one alone: %+v", f)
	}
}
