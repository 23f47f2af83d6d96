package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/gateway/web"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/telemetry"
)

// router has every route of the process.
func (a *App) router(p *parts) http.Handler {
	r := api.NewRouter(api.Config{Log: a.log, Registry: a.metrics})
	if a.traces != nil {
		r.Use(named)
	}
	p.health.Routes(r)
	if a.cfg.MetricsListen == "" {
		r.Method(http.MethodGet, "/metrics", a.metricsHandler())
	}
	if !a.cfg.serves() {
		return r
	}
	p.ingest.Routes(r)
	p.load.Routes(r)
	p.questions.Routes(r)
	if a.cfg.has(Gateway) {
		p.gateway.Routes(r)
		web.Routes(r)
	}
	return r
}

// named names the span of a request by its route.
func named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { //nolint:contextcheck // the request's own
			if rctx := chi.RouteContext(r.Context()); rctx != nil {
				telemetry.Route(r.Context(), r.Method, rctx.RoutePattern())
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func (a *App) metricsHandler() http.Handler {
	return promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{Registry: a.metrics})
}

// serveMetrics serves figures and profiles on their own listener.
func (a *App) serveMetrics(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.metricsHandler())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return api.Serve(ctx, a.cfg.MetricsListen, mux, api.ServerConfig{ //nolint:wrapcheck // it says what it could not do
		Log: a.log, Grace: time.Second,
		Listening: func(addr net.Addr) {
			a.log.InfoContext(ctx, "metrics are served", slog.String("listen", addr.String()))
		},
	})
}

// checks are the parts without which the process is of no use.
func (p *parts) checks() []api.Check {
	checks := []api.Check{
		{Name: "kafka", Probe: p.cluster.Ping},
		{Name: "topics", Probe: p.sameTopics},
	}
	if p.pool != nil {
		checks = append(checks, api.Check{Name: "postgres", Probe: p.pool.Ping})
	}
	if p.processor != nil {
		checks = append(checks, api.Check{Name: "processors", Probe: func(context.Context) error {
			if err := p.trouble.Load(); err != nil {
				return *err
			}
			return p.processor.Ready()
		}})
	}
	if p.projector != nil {
		checks = append(checks, api.Check{Name: "projections", Probe: p.projector.Ready})
	}
	return checks
}

// sameTopics says which topics are gone, or others than at the start: a process
// must not go on, on a log that is not the one it knows.
func (p *parts) sameTopics(ctx context.Context) error {
	names := make([]string, 0, len(p.ids))
	for name := range p.ids {
		names = append(names, name)
	}
	have, err := p.cluster.Describe(ctx, names...)
	if err != nil {
		return fmt.Errorf("ask for the topics: %w", err)
	}
	var errs []error
	found := make(map[string]bool, len(have))
	for _, d := range have {
		found[d.Name] = true
		if p.ids[d.Name] != d.ID {
			errs = append(errs, fmt.Errorf("%s was deleted and created anew since this process started: restart it", d.Name))
		}
	}
	for _, name := range names {
		if !found[name] {
			errs = append(errs, fmt.Errorf("%s is gone", name))
		}
	}
	return errors.Join(errs...)
}

// served tells the gateway which models there are.
type served struct{ *llm.Registry }

// Provider implements gateway.Models.
func (s served) Provider(model string) (string, error) {
	p, _, err := s.Resolve(model)
	if err != nil {
		return "", err //nolint:wrapcheck // a fault already
	}
	return p.Name(), nil
}

// known tells ingest which models are served.
type known struct{ models *llm.Registry }

// Known implements ingest.Models.
func (k known) Known(model string) error {
	_, _, err := k.models.Resolve(model)
	return err //nolint:wrapcheck // a fault already
}
