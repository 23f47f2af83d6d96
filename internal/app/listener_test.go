package app

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/topics"
)

// listening tells the address of the metrics' listener, which only the log has.
type listening struct {
	slog.Handler
	addr chan string
}

func (listening) Enabled(context.Context, slog.Level) bool { return true }

func (l listening) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "metrics are served" {
		r.Attrs(func(a slog.Attr) bool {
			l.addr <- a.Value.String()
			return true
		})
	}
	return nil
}

func (l listening) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l listening) WithGroup(string) slog.Handler { return l }

func TestFiguresAndProfilesHaveAListenerOfTheirOwn(t *testing.T) {
	t.Parallel()
	log := listening{slog.DiscardHandler, make(chan string, 1)}
	a, err := New(Config{
		Roles: []Role{Processors}, Listen: "127.0.0.1:0", MetricsListen: "127.0.0.1:0", Kafka: []string{startBroker(t)},
		Topics: topics.Options{Partitions: 1}, Apply: true, Simulated: true, Grace: time.Second,
	}, slog.New(log))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	addr := <-log.addr
	<-a.Ready()
	get := func(addr, path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close() //nolint:errcheck // a test's
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	if status, body := get(addr, "/metrics"); status != http.StatusOK || !strings.Contains(body, `penstock_part_ready{part="kafka"} 1`) {
		t.Errorf("/metrics: %d %s", status, body)
	}
	if status, body := get(addr, "/debug/pprof/"); status != http.StatusOK || !strings.Contains(body, "goroutine") {
		t.Errorf("/debug/pprof/: %d", status)
	}
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		if status, _ := get(a.Addr(), path); status != http.StatusNotFound {
			t.Errorf("%s is on the other listener too: %d", path, status)
		}
	}
	if status, _ := get(addr, "/readyz"); status != http.StatusNotFound {
		t.Errorf("health is on the metrics' listener: %d", status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
