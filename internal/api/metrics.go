package api

import (
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count requests. Their labels are bounded: routes by their pattern,
// methods by a list.
type metrics struct {
	seconds *prometheus.HistogramVec
	open    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, log *slog.Logger) *metrics {
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "penstock_http_request_seconds",
			Help:    "How long requests took, by route, method and status. A stream lasts as long as it is read.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route", "method", "status"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "penstock_http_requests_open",
			Help: "Requests being answered, streams included.",
		}),
	}
	m.seconds = register(reg, log, m.seconds)
	m.open = register(reg, log, m.open)
	return m
}

// register hands out the collector that is there already where two routers
// share a registry. A name that means something else is a defect, but no reason
// to answer nobody.
func register[C prometheus.Collector](reg prometheus.Registerer, log *slog.Logger, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if there, ok := already.ExistingCollector.(C); ok {
			return there
		}
	}
	if err != nil {
		log.Error("metric not registered", slog.Any("error", err))
	}
	return c
}

func (m *metrics) observe(route, method string, status int, took time.Duration) {
	known := methods()
	if !slices.Contains(known[:], method) {
		method = "other"
	}
	m.seconds.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
}
