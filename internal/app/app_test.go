package app

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

func TestNewSaysWhatIsWrongWithAConfiguration(t *testing.T) {
	t.Parallel()
	good := Config{Kafka: []string{"127.0.0.1:9092"}, Postgres: "postgres://u@h/d"}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // "" for none
	}{
		"nothing":                 {func(*Config) {}, ""},
		"no broker":               {func(c *Config) { c.Kafka = nil }, "at least one host:port"},
		"a broker without port":   {func(c *Config) { c.Kafka = []string{"localhost"} }, `"localhost" is no broker`},
		"no database":             {func(c *Config) { c.Postgres = "" }, "postgres: no database is configured"},
		"a user and no mechanism": {func(c *Config) { c.Security.User = "me" }, "kafka: a user or password is given without a SASL mechanism"},
		"processors without one": {func(c *Config) {
			c.Postgres = ""
			c.Roles = []Role{Processors}
		}, ""},
		"a role that is none":   {func(c *Config) { c.Roles = []Role{"cook"} }, `"cook" is no role`},
		"an address without":    {func(c *Config) { c.Listen = "8080" }, `listen: "8080" is no address`},
		"a metrics address":     {func(c *Config) { c.MetricsListen = "x" }, `metrics-listen: "x" is no address`},
		"a bound below nothing": {func(c *Config) { c.MaxConnectionsPerTenant = -1 }, "max-connections-per-tenant"},
		"a proxy that is none":  {func(c *Config) { c.TrustedProxies = []string{"10.0.0.1", "lb"} }, `trusted-proxies: "lb" is no address`},
		"proxies":               {func(c *Config) { c.TrustedProxies = []string{"10.0.0.1", " fd00::/8"} }, ""},
		"a model that is none":  {func(c *Config) { c.Models = map[string]string{"fast": ""} }, "models"},
		"a model of a provider": {func(c *Config) { c.Models = map[string]string{"fast": "openai/gpt"} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
			c.change(&cfg)
			_, err := New(cfg, nil)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("New: %v, want %q", err, c.want)
			}
		})
	}
}

func TestRunTakesAJobToItsEndAndAnswersForIt(t *testing.T) {
	t.Parallel()
	cfg := base(t)
	cfg.MetricsListen = "127.0.0.1:0"
	r := start(t, cfg)
	id := r.submit(t, "sim:tokens=3,ttft=0s,gap=0s")
	status, body := r.ask(t, http.MethodGet, "/v1/jobs/"+id+"?wait=30s", "")
	if status != http.StatusOK || !strings.Contains(body, `"status":"completed"`) {
		t.Fatalf("the job: %d %s", status, body)
	}
	if _, body := r.ask(t, http.MethodGet, "/v1/jobs/"+id+"/events", ""); !strings.Contains(body, "output.completed") {
		t.Errorf("its events: %s", body)
	}
	eventually(t, "every part is ready", func() bool {
		status, _ := r.ask(t, http.MethodGet, "/readyz", "")
		return status == http.StatusOK
	})
	if status, body := r.ask(t, http.MethodGet, "/", ""); status != http.StatusOK || !strings.Contains(body, "<!doctype html>") {
		t.Errorf("the page: %d", status)
	}
	if status, body := r.ask(t, http.MethodPost, "/v1/jobs", `{"body":{"model":"nobody"}}`); status != http.StatusNotFound || !strings.Contains(body, "model_not_found") {
		t.Errorf("an unknown model: %d %s", status, body)
	}
	if status, _ := r.ask(t, http.MethodGet, "/metrics", ""); status != http.StatusNotFound {
		t.Errorf("/metrics on the main listener: %d, want 404 where it has its own", status)
	}
	if err := r.stop(); err != nil {
		t.Errorf("the stop: %v", err)
	}
}

func TestAStopAnswersThoseWhoWait(t *testing.T) {
	t.Parallel()
	cfg := base(t)
	cfg.Roles = []Role{Ingest, Projections, Gateway} // without processors the job does not end
	cfg.Grace = time.Minute                          // nothing is cut off before the wait ends by itself
	r := start(t, cfg)
	id := r.submit(t, "sim")
	eventually(t, "the job has its row, from which it is answered when the log is let go already", func() bool {
		_, body := r.ask(t, http.MethodGet, "/v1/jobs", "")
		return strings.Contains(body, id)
	})
	answered := make(chan string, 1)
	began := time.Now()
	go func() {
		_, body := r.ask(t, http.MethodGet, "/v1/jobs/"+id+"?wait=60s", "")
		answered <- body
	}()
	eventually(t, "the request is there, beside the one for the metrics", func() bool {
		_, body := r.ask(t, http.MethodGet, "/metrics", "")
		return strings.Contains(body, "\npenstock_http_requests_open 2\n")
	})
	r.begin()
	if body := <-answered; !strings.Contains(body, `"id":"`+id) || !strings.Contains(body, `"status":"queued"`) {
		t.Errorf("who waited was told %s, want the job as it stands", body)
	}
	if took := time.Since(began); took > 50*time.Second {
		t.Errorf("who waited was answered after %v: the stop did not end the wait", took)
	}
	if err := r.stop(); err != nil {
		t.Errorf("the stop: %v", err)
	}
}

func TestProcessorsAloneNeedNoDatabaseAndServeHealthOnly(t *testing.T) {
	t.Parallel()
	addr := startBroker(t)
	r := start(t, Config{
		Roles: []Role{Processors}, Listen: "127.0.0.1:0", Kafka: []string{addr},
		Topics: topics.Options{Partitions: 1}, Apply: true, Grace: time.Second,
	})
	if status, _ := r.ask(t, http.MethodGet, "/livez", ""); status != http.StatusOK {
		t.Errorf("/livez: %d", status)
	}
	if status, _ := r.ask(t, http.MethodGet, "/v1/jobs", ""); status != http.StatusNotFound {
		t.Errorf("/v1/jobs: %d, want 404", status)
	}
	if status, body := r.ask(t, http.MethodGet, "/metrics", ""); status != http.StatusOK || !strings.Contains(body, "go_goroutines") {
		t.Errorf("/metrics: %d", status)
	}
}

func TestAnUpstreamServesEveryOtherName(t *testing.T) {
	t.Parallel()
	cfg := Config{Kafka: []string{"127.0.0.1:1"}, Postgres: "postgres://u@127.0.0.1:1/x", Models: map[string]string{"gone": "nobody/x"}}
	for _, c := range []struct {
		upstream, model string
		served          bool
	}{
		{"", "gpt-x", false},
		{"http://127.0.0.1:1/v1", "gpt-x", true},
		{"http://127.0.0.1:1/v1", "openai/gpt-x", true},
		{"http://127.0.0.1:1/v1", "gone", false},
	} {
		cfg.Upstream = c.upstream
		a, err := New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := (known{a.models}).Known(c.model); (err == nil) != c.served {
			t.Errorf("with %q, %s: %v", c.upstream, c.model, err)
		}
	}
	cfg.Upstream = "127.0.0.1:1"
	if _, err := New(cfg, nil); err == nil || !strings.HasPrefix(err.Error(), "upstream: ") {
		t.Errorf("an address that is none: %v", err)
	}
}

func TestRunRefusesTopicsAndSchemaThatDoNotMatch(t *testing.T) {
	t.Parallel()
	cfg := base(t)
	cfg.Apply = false
	run := func(cfg Config) error {
		a, err := New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		return a.Run(t.Context())
	}
	noSchema := cfg // is refused at the same time, and whichever is first is told
	noSchema.Roles, noSchema.Postgres = []Role{Processors}, ""
	if err := run(noSchema); err == nil || !strings.Contains(err.Error(), "penstock.tokens") || !strings.Contains(err.Error(), "penstock topic apply") {
		t.Errorf("without topics: %v", err)
	}
	topicsOnly := cfg
	topicsOnly.Apply, topicsOnly.Roles, topicsOnly.Postgres = true, []Role{Processors}, ""
	if err := start(t, topicsOnly).stop(); err != nil {
		t.Fatal(err)
	}
	if err := run(cfg); err == nil || !strings.Contains(err.Error(), "penstock migrate") {
		t.Errorf("without a schema: %v", err)
	}
	cfg.Topics.Partitions = 5
	if err := run(cfg); err == nil || !strings.Contains(err.Error(), "it has 2 partitions where 5 are configured") {
		t.Errorf("with another partition count: %v", err)
	}
}

func TestRunSaysWhoIsAway(t *testing.T) {
	t.Parallel()
	gone, err := devstack.StartBroker(t.Context(), devstack.BrokerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Roles: []Role{Processors}, Listen: "127.0.0.1:0", Kafka: []string{gone.Addr()}, Patience: 200 * time.Millisecond,
	}
	a, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "kafka at "+gone.Addr()+" did not answer within 200ms") {
		t.Errorf("without Kafka: %v", err)
	}
	cfg.Kafka, cfg.Roles, cfg.Postgres, cfg.Apply = []string{startBroker(t)}, nil, "postgres://nobody@"+gone.Addr()+"/none", true
	if a, err = New(cfg, nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "open the database") {
		t.Errorf("without PostgreSQL: %v", err)
	}
}

func TestAStopDuringTheStartIsNoFailure(t *testing.T) {
	t.Parallel()
	a, err := New(Config{Roles: []Role{Processors}, Kafka: []string{"127.0.0.1:1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if a.Addr() != "" {
		t.Errorf("it has the address %q and never listened", a.Addr())
	}
}

func TestAListenerThatIsTakenEndsTheStart(t *testing.T) {
	t.Parallel()
	cfg := Config{
		Roles: []Role{Processors}, Listen: "127.0.0.1:0", Kafka: []string{startBroker(t)},
		Topics: topics.Options{Partitions: 1}, Apply: true, Grace: time.Second,
	}
	r := start(t, cfg)
	cfg.Listen = r.Addr()
	a, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen on") {
		t.Errorf("on a taken address: %v", err)
	}
}

func TestReadinessTellsOfATopicThatWasCreatedAnew(t *testing.T) {
	t.Parallel()
	cfg := base(t)
	r := start(t, cfg)
	eventually(t, "every part is ready", func() bool {
		status, _ := r.ask(t, http.MethodGet, "/readyz", "")
		return status == http.StatusOK
	})
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: cfg.Kafka})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	names := topics.Names{Prefix: topics.DefaultPrefix}
	if err := c.DeleteTopics(t.Context(), names.Tokens()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "readiness tells that the topic is gone", func() bool {
		status, body := r.ask(t, http.MethodGet, "/readyz", "")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "penstock.tokens is gone")
	})
	want := topics.Catalogue(cfg.Topics)
	have, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), topics.Plan(want, have)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "readiness tells that the topic is another one", func() bool {
		status, body := r.ask(t, http.MethodGet, "/readyz", "")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "penstock.tokens was deleted and created anew")
	})
}
