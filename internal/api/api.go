// Package api holds the HTTP rules that all routes share: one shape of error,
// one way to read and write JSON, request ids, metrics, health, and a server
// that stops in order. It knows no route of its own but health.
//
// The package starts no goroutine but the server's and one a health check, each
// with a bound: a check that has not answered is not asked again.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/fault"
)

const (
	// DefaultMaxBody bounds a request's body, in bytes.
	DefaultMaxBody = 4 << 20
	// defaultTenant is whose request it is while there are no keys.
	defaultTenant = "default"
	// writePatience is Config.WritePatience by default.
	writePatience = 10 * time.Second
)

// Config says what the routes of one listener share. Its zero value works.
type Config struct {
	Log      *slog.Logger          // nil discards
	Registry prometheus.Registerer // nil keeps no metrics
	MaxBody  int64                 // bytes; 0 is DefaultMaxBody
	Now      func() time.Time      // nil is time.Now
	// BodyPatience bounds how long a body may take to arrive; 0 is 30 seconds.
	BodyPatience time.Duration
	// WritePatience bounds how long a client may take for a WritePiece of an answer
	// that is no stream; 0 is 10 seconds.
	WritePatience time.Duration
}

// NewRouter makes a router on which every answer has an x-request-id, every
// error the one shape, and every body a bound. What takes a GET takes a HEAD (RFC
// 9110, 9.3.2): the server leaves the body away. A handler that panics is a 500.
func NewRouter(cfg Config) chi.Router {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.BodyPatience <= 0 {
		cfg.BodyPatience = 30 * time.Second
	}
	shell := &shell{Config: cfg, metrics: newMetrics(cfg.Registry, cfg.Log)}
	r := chi.NewRouter()
	r.Use(shell.around, middleware.GetHead)
	r.NotFound(notFound)
	r.MethodNotAllowed(methodNotAllowed)
	return r
}

func notFound(w http.ResponseWriter, r *http.Request) {
	WriteError(w, r, fault.New(fault.NotFound, "there is nothing at %.200q: see the paths in the API's documentation", r.URL.Path))
}

// methodNotAllowed tells in Allow which methods the path takes (RFC 9110, 15.5.6).
// The router comes here with every method that it does not know, whatever the path.
func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	if routes := chi.RouteContext(r.Context()).Routes; routes != nil {
		for _, m := range methods() {
			as := m
			if m == http.MethodHead {
				as = http.MethodGet
			}
			if routes.Match(chi.NewRouteContext(), as, r.URL.Path) {
				allowed = append(allowed, m)
			}
		}
	}
	if len(allowed) == 0 {
		notFound(w, r)
		return
	}
	list := strings.Join(allowed, ", ")
	w.Header().Set("Allow", list)
	WriteError(w, r, fault.New(fault.MethodNotAllowed, "%s does not take %.20q: use %s", r.URL.Path, r.Method, list))
}

// methods are those that a metric tells apart, and that Allow may name.
func methods() [7]string {
	return [...]string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
	}
}

// request is what the shell knows of one request.
type request struct {
	id     string
	tenant string
	log    *slog.Logger
	// patience is Config.WritePatience; 0 outside of a router.
	patience time.Duration
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	if q, ok := ctx.Value(requestKey{}).(*request); ok {
		return q
	}
	return &request{tenant: defaultTenant}
}

// Detach is a context for what outlives its request, such as a connection that
// has left HTTP. It knows whose the request was, and holds nothing else of it, of
// the connection's buffers and contexts least of all.
func Detach(ctx context.Context) context.Context {
	return context.WithValue(context.Background(), requestKey{}, requestOf(ctx))
}

// Tenant tells whose request it is.
func Tenant(ctx context.Context) string { return requestOf(ctx).tenant }

// RequestID gives the request's x-request-id; "" outside of a request.
func RequestID(ctx context.Context) string { return requestOf(ctx).id }

// Log gives a logger whose lines name the request.
func Log(ctx context.Context) *slog.Logger {
	q := requestOf(ctx)
	if q.log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return q.log.With(slog.String("request_id", q.id))
}
