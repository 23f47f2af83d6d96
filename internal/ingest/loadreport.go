package ingest

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/admission"
	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// loadWire is the answer of GET /v1/load.
type loadWire struct {
	Object string     `json:"object"`
	At     job.Time   `json:"at"`
	Signal string     `json:"signal"` // fresh, stale or starting
	Lanes  []laneWire `json:"lanes"`
}

// laneWire is a lane: its fullest partition decides the wait.
type laneWire struct {
	Lane        event.Lane      `json:"lane"`
	State       string          `json:"state"` // open, shedding (some of its partitions) or stale
	Reasons     []string        `json:"reasons"`
	Wait        float64         `json:"estimated_wait_seconds"`
	Outstanding int64           `json:"outstanding"`
	Budget      budgetWire      `json:"budget"`
	Partitions  []partitionWire `json:"partitions"`
}

// budgetWire are the budgets of each partition.
type budgetWire struct {
	Wait        float64 `json:"wait_seconds"`
	Outstanding int64   `json:"outstanding"`
}

type partitionWire struct {
	Partition   int     `json:"partition"`
	State       string  `json:"state"` // open or shedding
	Reason      string  `json:"reason,omitzero"`
	Owner       string  `json:"owner"`
	Breaker     string  `json:"breaker,omitzero"` // where there is an owner
	Wait        float64 `json:"estimated_wait_seconds"`
	Outstanding int64   `json:"outstanding"`
	Waiting     int64   `json:"waiting"`
	Running     int     `json:"running"`
	Rate        float64 `json:"rate,omitzero"`
	RetryAfter  float64 `json:"retry_after_seconds,omitzero"`
}

// Routes adds GET /v1/load.
func (l *Load) Routes(r chi.Router) {
	r.Get("/v1/load", func(w http.ResponseWriter, r *http.Request) {
		api.WriteJSON(w, r, http.StatusOK, l.report())
	})
}

func (l *Load) report() loadWire {
	v := l.view.Load()
	rep := loadWire{Object: "load", At: job.Time{Time: v.At}, Signal: "fresh"}
	switch {
	case v.Stale:
		rep.Signal = "stale"
	case !v.Begun:
		rep.Signal = "starting"
	default:
	}
	for i, lane := range event.Lanes() {
		limits := l.limits[i]
		lw := laneWire{
			Lane: lane, State: "open", Reasons: []string{},
			Budget:     budgetWire{Wait: tenths(limits.Wait), Outstanding: limits.Outstanding},
			Partitions: make([]partitionWire, l.cfg.Partitions),
		}
		for p := range lw.Partitions {
			lw.add(p, v.Status(admission.LP{Lane: i, Partition: p}))
		}
		if v.Stale {
			lw.State, lw.Reasons = "stale", append(lw.Reasons, admission.Stale.String())
		}
		rep.Lanes = append(rep.Lanes, lw)
	}
	return rep
}

func (lw *laneWire) add(partition int, s admission.Status) {
	pw := partitionWire{
		Partition: partition, State: "open", Owner: s.Owner.String(), Wait: tenths(s.Wait),
		Outstanding: s.Outstanding, Waiting: s.Waiting, Running: s.Running,
		Rate: math.Round(s.Rate*100) / 100, RetryAfter: tenths(s.RetryAfter),
	}
	if s.Owner != admission.Nobody {
		pw.Breaker = "closed"
		if s.Stalled {
			pw.Breaker = "open"
		}
	}
	if s.Reason != admission.Open {
		pw.State, pw.Reason = "shedding", s.Reason.String()
		lw.State = pw.State
		if !slices.Contains(lw.Reasons, pw.Reason) {
			lw.Reasons = append(lw.Reasons, pw.Reason)
		}
	}
	lw.Wait = max(lw.Wait, pw.Wait)
	lw.Outstanding += s.Outstanding
	lw.Partitions[partition] = pw
}

// tenths are seconds, to a tenth.
func tenths(d time.Duration) float64 { return math.Round(d.Seconds()*10) / 10 }

// loadMetrics tell of the load as it is when they are asked for.
type loadMetrics struct {
	load                               *Load
	wait, outstanding, shedding, stale *prometheus.Desc
}

// Metrics are the load's gauges, by lane and partition.
func (l *Load) Metrics() prometheus.Collector {
	by := []string{"lane", "partition"}
	return &loadMetrics{
		load: l,
		wait: prometheus.NewDesc("penstock_load_wait_seconds",
			"How long a new request would wait before it is begun, as estimated.", by, nil),
		outstanding: prometheus.NewDesc("penstock_load_outstanding_jobs",
			"Requests that were let in and are not done.", by, nil),
		shedding: prometheus.NewDesc("penstock_load_shedding",
			"1 where new requests are refused.", by, nil),
		stale: prometheus.NewDesc("penstock_load_stale",
			"1 while how much work there is cannot be seen.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *loadMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.wait, m.outstanding, m.shedding, m.stale} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *loadMetrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	one := func(is bool) float64 {
		if is {
			return 1
		}
		return 0
	}
	v := m.load.view.Load()
	gauge(m.stale, one(v.Stale))
	for i, lane := range event.Lanes() {
		for p := range int(m.load.cfg.Partitions) {
			s := v.Status(admission.LP{Lane: i, Partition: p})
			labels := []string{lane.String(), strconv.Itoa(p)}
			gauge(m.wait, s.Wait.Seconds(), labels...)
			gauge(m.outstanding, float64(s.Outstanding), labels...)
			gauge(m.shedding, one(s.Reason != admission.Open), labels...)
		}
	}
}
