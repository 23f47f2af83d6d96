package kafka

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the package's counters. They count also where nobody registered
// them.
type metrics struct {
	produced    *prometheus.CounterVec // by topic: acknowledged
	refused     *prometheus.CounterVec // by topic: surely not in the log
	unknown     *prometheus.CounterVec // by topic: may be in the log
	full        prometheus.Counter
	fetched     *prometheus.CounterVec // by topic: records read
	fetchErrors *prometheus.CounterVec // by kind
	faults      *prometheus.CounterVec // by topic: partitions that stopped
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_kafka_" + name, Help: help}, []string{label})
	}
	m := &metrics{
		produced: vec("produced_records_total", "Records that the log acknowledged.", "topic"),
		refused:  vec("refused_records_total", "Records that are surely not in the log.", "topic"),
		unknown:  vec("unknown_outcomes_total", "Records that may be in the log or not.", "topic"),
		full: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_kafka_producer_full_total", Help: "Records that a full producer did not take.",
		}),
		fetched:     vec("fetched_records_total", "Records that were read.", "topic"),
		fetchErrors: vec("fetch_errors_total", "Fetches that failed and were tried again.", "kind"),
		faults:      vec("partition_faults_total", "Partitions whose reading stopped.", "topic"),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.produced, m.refused, m.unknown, m.full, m.fetched, m.fetchErrors, m.faults} {
		if err := reg.Register(c); err != nil {
			if _, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
				return nil, fmt.Errorf("register Kafka's metrics: a registry serves one cluster: %w", err)
			}
			return nil, fmt.Errorf("register Kafka's metrics: %w", err)
		}
	}
	return m, nil
}
