package app

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(m)) }

func startBroker(t *testing.T) string {
	t.Helper()
	b, err := devstack.StartBroker(t.Context(), devstack.BrokerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b.Addr()
}

// base is a configuration on an embedded broker and an empty database.
func base(t *testing.T) Config {
	t.Helper()
	return Config{
		Listen: "127.0.0.1:0", Kafka: []string{startBroker(t)}, Postgres: testenv.Postgres(t),
		Topics: topics.Options{Partitions: 2}, Apply: true, Simulated: true, Grace: 5 * time.Second, Patience: 20 * time.Second,
	}
}

// running is an App that runs.
type running struct {
	*App
	stop  func() error // stops it and gives what Run returned
	begin func()       // begins the stop
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	a, err := New(cfg, slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	r := &running{App: a, begin: cancel}
	var stopped bool
	var result error
	r.stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			result = <-ended
		}
		return result
	}
	t.Cleanup(func() { _ = r.stop() })
	select {
	case <-a.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("it ended before it was ready: %v", err)
	}
	return r
}

// logWriter hands an App's log to its test.
type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Helper()
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// ask sends a request and returns status and body.
func (r *running) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.Addr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // a test's
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (r *running) submit(t *testing.T, model string) string {
	t.Helper()
	status, body := r.ask(t, http.MethodPost, "/v1/jobs", `{"body":{"model":"`+model+`","messages":[{"role":"user","content":"hello"}]}}`)
	var j job.Resource
	if err := json.Unmarshal([]byte(body), &j); status != http.StatusAccepted || err != nil {
		t.Fatalf("submitting a job: %d %s, %v", status, body, err)
	}
	return j.ID
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
