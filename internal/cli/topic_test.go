package cli

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
)

func embeddedBroker(t *testing.T) string {
	t.Helper()
	b, err := devstack.StartBroker(t.Context(), devstack.BrokerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b.Addr()
}

// eventually waits for a condition that is about to come true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func TestAProductionProcessIsSetUpStepByStep(t *testing.T) {
	t.Parallel()
	addr, database := embeddedBroker(t), testenv.Postgres(t)
	env := map[string]string{"PENSTOCK_KAFKA": addr, "PENSTOCK_POSTGRES": database, "PENSTOCK_PARTITIONS": "2"}
	c := call{env: env}
	runArgs := []string{"run", "--listen", "127.0.0.1:0", "--sim", "--grace", "2s", "--log-format", "text"}

	if o := c.run(t, runArgs...).want(t, exitFailed); !strings.Contains(o.stderr, "penstock topic apply") || !strings.Contains(o.stderr, "penstock migrate") {
		t.Errorf("without topics and a schema: %s", o.stderr)
	}
	plan := c.run(t, "topic", "plan").want(t, exitDone)
	golden(t, "topic_plan", plan.stdout)
	if o := c.run(t, "topic", "apply").want(t, exitDone); o.stdout != plan.stdout {
		t.Errorf("apply said %s, plan %s", o.stdout, plan.stdout)
	}
	if o := c.run(t, "topic", "plan").want(t, exitDone); o.stdout != "Nothing to change.\n" {
		t.Errorf("the plan after it: %s", o.stdout)
	}
	if o := c.run(t, runArgs...).want(t, exitFailed); !strings.Contains(o.stderr, "penstock migrate") {
		t.Errorf("without a schema: %s", o.stderr)
	}
	if o := c.run(t, "migrate").want(t, exitDone); !strings.HasPrefix(o.stdout, "Applied migration 1.\n") {
		t.Errorf("migrate: %s", o.stdout)
	}
	if o := c.run(t, "migrate").want(t, exitDone); o.stdout != "The schema is up to date.\n" {
		t.Errorf("migrate once more: %s", o.stdout)
	}
	args := append(runArgs, "--kafka", addr, "--postgres", database, "--partitions", "2")
	p := serving(t, args...)
	p.on(t, "job", "submit", "-m", quick, "--wait", "hi").want(t, exitDone)
	if code := p.stop(); code != exitDone {
		t.Errorf("the stop: %d, %s", code, p.stderr.String())
	}
	if p.stdout.String() != "" {
		t.Errorf("a production process printed %q", p.stdout.String())
	}
}

func TestAMismatchIsRefusedByName(t *testing.T) {
	t.Parallel()
	addr := embeddedBroker(t)
	run(t, "topic", "apply", "--kafka", addr, "--partitions", "2").want(t, exitDone)
	if o := run(t, "topic", "apply", "--kafka", addr, "--partitions", "5").want(t, exitFailed); !strings.Contains(o.stdout, "refuse penstock.tokens: it has 2 partitions where 5 are configured") ||
		!strings.Contains(o.stderr, "nothing was changed") {
		t.Errorf("apply: %s %s", o.stdout, o.stderr)
	}
	if o := run(t, "topic", "list", "--kafka", addr, "--partitions", "5").want(t, exitDone); !strings.Contains(o.stdout, "differs") {
		t.Errorf("list: %s", o.stdout)
	}
	if o := run(t, "topic", "list", "--kafka", addr, "--prefix", "other.", "-o", "jsonl").want(t, exitDone); !strings.Contains(o.stdout, `"topic":"other.tokens","status":"missing"`) {
		t.Errorf("list of another prefix: %s", o.stdout)
	}
}

func TestTopicTailShowsWhatCounts(t *testing.T) {
	t.Parallel()
	addr := embeddedBroker(t)
	run(t, "topic", "apply", "--kafka", addr, "--partitions", "2").want(t, exitDone)
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	p, err := c.NewProducer(kafka.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	now := time.Unix(1_790_000_000, 0)
	record := func(kind event.Type, epoch int64, data string) event.Record {
		h := event.Head{Type: kind, V: 1, Time: now, Tenant: "default", Lane: event.Batch, Epoch: epoch}
		if kind != event.LaneClaimed {
			h.Job, h.Attempt, h.Seq = "job_1", 1, 7
		}
		return event.Record{Topic: "penstock.tokens", Partition: 1, Value: event.Append(nil, &h, []byte(data)), Time: now}
	}
	_, err = p.Append(
		t.Context(),
		record(event.LaneClaimed, 5, `{"owner":"me","bound":0,"watermark":0}`),
		record(event.OutputDelta, 4, `{"index":0,"content":"zombie"}`),
		record(event.OutputDelta, 5, `{"index":0,"content":"hello"}`),
		event.Record{Topic: "penstock.tokens", Partition: 1, Value: []byte("nonsense"), Time: now},
		record(event.OutputDelta, 5, `{"index":0,"content":"`+strings.Repeat("long", 100)+`"}`),
	)
	if err != nil {
		t.Fatal(err)
	}
	tail := func(args ...string) []string {
		return append([]string{"topic", "tail", "tokens", "--kafka", addr, "--partition", "1", "--until-end"}, args...)
	}
	o := run(t, tail()...).want(t, exitDone)
	golden(t, "topic_tail", o.stdout)
	if o := run(t, tail("--offset", "2", "-o", "jsonl")...).want(t, exitDone); strings.Count(o.stdout, "\n") != 2 || !strings.Contains(o.stderr, "offset 3 holds no JSON") {
		t.Errorf("as JSON: %q and %q", o.stdout, o.stderr)
	}
	if o := run(t, tail("--offset", "latest")...).want(t, exitDone); o.stdout != "" {
		t.Errorf("at the end there is %q", o.stdout)
	}
	if o := run(t, tail("--offset", "99")...).want(t, exitFailed); !strings.Contains(o.stderr, "the earliest is 0, the end 5") {
		t.Errorf("behind the end: %q", o.stderr)
	}
	if o := run(t, tail("--offset", "soon")...).want(t, exitUsage); !strings.Contains(o.stderr, "earliest or latest") {
		t.Errorf("no offset: %q", o.stderr)
	}
	if o := run(t, "topic", "tail", "bogus", "--kafka", addr).want(t, exitFailed); !strings.Contains(o.stderr, "there is no penstock.bogus/0: `penstock topic list`") {
		t.Errorf("no topic: %q", o.stderr)
	}
	follows(t, addr, p, record(event.OutputDelta, 5, `{"index":0,"content":"news"}`))
}

// follows looks whether a tail waits for what is to come, until it is left.
func follows(t *testing.T, addr string, p *kafka.Producer, news event.Record) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs text
	ended := make(chan int, 1)
	go func() {
		ended <- Run(ctx, []string{"topic", "tail", "tokens", "--kafka", addr, "--partition", "1", "--offset", "2"}, System{Stdout: &out, Stderr: &errs})
	}()
	eventually(t, "what is there is shown", func() bool { return strings.Contains(out.String(), "hello") })
	if _, err := p.Append(t.Context(), news); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what comes is shown", func() bool { return strings.Contains(out.String(), "news") })
	cancel()
	if code := <-ended; code != exitDone {
		t.Errorf("leaving exits with %d: %s", code, errs.String())
	}
}

func TestAKafkaThatIsAwayIsToldWithWhatToDo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for _, name := range []string{"plan", "apply", "list"} {
		var out, errs text
		code := Run(ctx, []string{"topic", name, "--kafka", "127.0.0.1:1"}, System{Stdout: &out, Stderr: &errs})
		if code != exitFailed || !strings.HasPrefix(errs.String(), "penstock: kafka at 127.0.0.1:1 does not answer") || !strings.Contains(errs.String(), "--kafka") {
			t.Errorf("topic %s: %d, %q", name, code, errs.String())
		}
	}
}

func TestAKafkaThatIsNotTrustedIsToldAtOnce(t *testing.T) {
	t.Parallel()
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	stranger.StartTLS() // with a certificate that nobody vouches for
	defer stranger.Close()
	for name, tc := range map[string]struct {
		args []string
		code int
		said string
	}{
		"an unknown authority": {[]string{"--kafka-tls"}, exitFailed, "kafka does not accept who asks"},
		"no such mechanism":    {[]string{"--kafka-sasl", "gssapi"}, exitUsage, "it must be one of plain, scram-sha-256, scram-sha-512"},
		"files without TLS":    {[]string{"--kafka-ca", "ca.pem"}, exitUsage, "TLS is off"},
	} {
		var out, errs text
		args := append([]string{"topic", "list", "--kafka", stranger.Listener.Addr().String()}, tc.args...)
		code := Run(t.Context(), args, System{Stdout: &out, Stderr: &errs})
		if code != tc.code || !strings.Contains(errs.String(), tc.said) {
			t.Errorf("%s: %d, %q", name, code, errs.String())
		}
	}
}
