package projections

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the projector's. They count also where nobody registered them.
type metrics struct {
	records   *prometheus.CounterVec // by result
	batches   prometheus.Counter
	failures  prometheus.Counter
	seconds   prometheus.Histogram
	conflicts prometheus.Counter
	expired   *prometheus.CounterVec // by topic
	lag       *prometheus.GaugeVec   // by topic
	age       *prometheus.GaugeVec   // by topic
}

// The results of a record beside its verdicts.
const (
	resultRepeated = "repeated" // it was folded before
	resultStripped = "stripped" // the database refused its payload, and it was folded without
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	const prefix = "penstock_projections_"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, []string{label})
	}
	m := &metrics{
		records:  vec("records_total", "Records that were read, by what became of them.", "result"),
		batches:  counter("batches_total", "Transactions that took."),
		failures: counter("failures_total", "Transactions that did not take, and were tried again."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "transaction_duration_seconds", Help: "How long a transaction took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		conflicts: counter("checkpoint_conflicts_total", "Transactions that were rolled back, since a checkpoint was not where it was left."),
		expired:   vec("expired_records_total", "Records that retention took before they were folded.", "topic"),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: prefix + "lag_records", Help: "Records that are not folded yet.",
		}, []string{"topic"}),
		age: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: prefix + "lag_seconds", Help: "Age of the oldest record that is not folded yet; 0 where all are.",
		}, []string{"topic"}),
	}
	for v := range verdicts { // so that they show before they happen
		m.records.WithLabelValues(v.String())
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.records, m.batches, m.failures, m.seconds, m.conflicts, m.expired, m.lag, m.age} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the projections' metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) took(counts [verdicts]int, d time.Duration) {
	for v, n := range counts {
		m.records.WithLabelValues(verdict(v).String()).Add(float64(n))
	}
	m.batches.Inc()
	m.seconds.Observe(d.Seconds())
}
