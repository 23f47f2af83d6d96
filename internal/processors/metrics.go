package processors

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	inFlight, owned, paused prometheus.Gauge
	waiting                 *prometheus.GaugeVec
	started, ended, taken   *prometheus.CounterVec
	dead, expired, skipped  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_processor_" + name, Help: help})
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_processor_" + name, Help: help}, labels)
	}
	m := &metrics{
		inFlight: gauge("calls_in_flight", "Model calls that have not ended."),
		owned:    gauge("lanes_owned", "Lanes of partitions that are claimed."),
		paused:   gauge("lanes_paused", "Lanes of partitions whose window is full."),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "penstock_processor_requests_waiting", Help: "Requests taken in and not started.",
		}, []string{"lane"}),
		started: counter("calls_started_total", "Model calls started.", "lane"),
		ended:   counter("jobs_ended_total", "Jobs ended, by the fact that they became.", "lane", "fact"),
		taken:   counter("jobs_taken_over_total", "Half-finished jobs taken over, by how.", "how"),
		dead:    counter("dead_letters_total", "Requests that can never be run.", "lane"),
		skipped: counter("events_skipped_total", "Events of a type or version that this build does not know, or that are none.", "topic"),
		expired: counter("requests_expired_total", "Requests that retention took before anybody ran them.", "lane"),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.inFlight, m.owned, m.paused, m.waiting, m.started, m.ended, m.taken, m.dead, m.expired, m.skipped,
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("processors: %w", err)
		}
	}
	return m, nil
}
