package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// probePatience bounds one check.
	probePatience = 2 * time.Second
	// reportLife is how long a report is given out again, so that many askers
	// cost no more than one.
	reportLife = time.Second
)

// Check is a part that must be there for a process to be of use.
type Check struct {
	Name  string
	Probe func(ctx context.Context) error // must end when ctx does
}

// HealthRoutes answer whether the process is alive and ready. Make it with Health.
type HealthRoutes struct {
	parts []*part

	mu     sync.Mutex // held while a report is made: two seconds at most
	made   time.Time
	report report
}

// part is a check and the question under way, if there is one.
type part struct {
	Check
	flight chan error
}

// partReport is how one part is.
type partReport struct {
	Status  string `json:"status"` // "ok" or "unavailable"
	Message string `json:"message,omitzero"`
}

type report struct {
	Status string                `json:"status"`
	Parts  map[string]partReport `json:"parts,omitzero"`
}

const (
	healthy   = "ok"
	unhealthy = "unavailable"
)

// Health makes the routes /livez, which says that the process runs and nothing
// more, and /readyz and /health, which ask all parts side by side.
func Health(checks ...Check) *HealthRoutes {
	h := &HealthRoutes{}
	for _, c := range checks {
		h.parts = append(h.parts, &part{Check: c})
	}
	return h
}

// Routes adds the routes.
func (h *HealthRoutes) Routes(r chi.Router) {
	r.Get("/livez", func(w http.ResponseWriter, r *http.Request) { WriteJSON(w, r, http.StatusOK, report{Status: healthy}) })
	r.Get("/readyz", h.ready)
	r.Get("/health", h.ready)
}

// Ready is the readiness of the parts as a metric. A scrape asks them, and waits
// for two seconds at most.
func (h *HealthRoutes) Ready() prometheus.Collector {
	return readiness{h, prometheus.NewDesc("penstock_part_ready", "Whether a part is ready (1) or not (0), as /readyz has it.", []string{"part"}, nil)}
}

type readiness struct {
	health *HealthRoutes
	desc   *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (r readiness) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc }

// Collect implements prometheus.Collector.
func (r readiness) Collect(ch chan<- prometheus.Metric) {
	for name, part := range r.health.ask(context.Background()).Parts {
		value := 0.0
		if part.Status == healthy {
			value = 1
		}
		ch <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, value, name)
	}
}

func (h *HealthRoutes) ready(w http.ResponseWriter, r *http.Request) {
	status := http.StatusOK
	rep := h.ask(r.Context())
	if rep.Status != healthy {
		status = http.StatusServiceUnavailable
	}
	WriteJSON(w, r, status, rep)
}

func (h *HealthRoutes) ask(ctx context.Context) report {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.made.IsZero() && time.Since(h.made) < reportLife {
		return h.report
	}
	// An asker that leaves must not make the parts look ill to the next.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probePatience)
	defer cancel()
	for _, p := range h.parts {
		p.start(ctx)
	}
	rep := report{Status: healthy, Parts: make(map[string]partReport, len(h.parts))}
	for _, p := range h.parts {
		pr := p.wait(ctx)
		rep.Parts[p.Name] = pr
		if pr.Status != healthy {
			rep.Status = unhealthy
		}
	}
	h.report, h.made = rep, time.Now()
	return rep
}

// start asks, unless the last question has not been answered yet. An answer to
// it that came since is of no use any more.
func (p *part) start(ctx context.Context) {
	if p.flight != nil && len(p.flight) == 0 {
		return
	}
	flight := make(chan error, 1)
	p.flight = flight
	go func() { flight <- p.Probe(ctx) }()
}

func (p *part) wait(ctx context.Context) partReport {
	var err error
	select {
	case err = <-p.flight:
		p.flight = nil
	case <-ctx.Done():
		select { // both at once: the answer goes before
		case err = <-p.flight:
			p.flight = nil
		default:
			return partReport{Status: unhealthy, Message: "no answer within " + probePatience.String()}
		}
	}
	if err != nil {
		return partReport{Status: unhealthy, Message: err.Error()}
	}
	return partReport{Status: healthy}
}
