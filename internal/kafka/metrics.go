package kafka

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// partitionLabel is how a metric names a partition.
func partitionLabel(partition int32) string { return strconv.Itoa(int(partition)) }

// metrics are the package's counters. They count also where nobody registered
// them.
type metrics struct {
	produced    *prometheus.CounterVec // by topic: acknowledged
	refused     *prometheus.CounterVec // by topic: surely not in the log
	unknown     *prometheus.CounterVec // by topic: may be in the log
	full        prometheus.Counter
	buffered    prometheus.Gauge // records, all producers together
	bufferBytes prometheus.Gauge
	ackSeconds  *prometheus.HistogramVec // by topic
	fetched     *prometheus.CounterVec   // by topic: records read
	shared      *prometheus.CounterVec   // by topic: of those, records that another tail had fetched
	fetchErrors *prometheus.CounterVec   // by kind
	faults      *prometheus.CounterVec   // by topic: partitions that stopped
	corrupt     *prometheus.CounterVec   // by topic: batches that could not be decoded, whoever met them
	standing    *prometheus.GaugeVec     // by topic and partition: readers that stand at such a batch
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
		buffered: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "penstock_kafka_producer_buffered_records", Help: "Records that producers hold until the log has them.",
		}),
		bufferBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "penstock_kafka_producer_buffered_bytes", Help: "Bytes of the records that producers hold.",
		}),
		ackSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "penstock_kafka_produce_seconds", Help: "From a record's being handed over to the log's acknowledgement.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"topic"}),
		fetched:     vec("fetched_records_total", "Records that were read.", "topic"),
		shared:      vec("shared_records_total", "Of the records that were read, those that another tail of the process had fetched.", "topic"),
		fetchErrors: vec("fetch_errors_total", "Fetches that failed and were tried again.", "kind"),
		faults:      vec("partition_faults_total", "Partitions whose reading stopped.", "topic"),
		corrupt:     vec("corrupt_batches_total", "Batches that could not be decoded, each time that somebody came to one.", "topic"),
		standing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "penstock_kafka_standing_readers", Help: "Readers that stand still at a batch that cannot be decoded.",
		}, []string{"topic", "partition"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.produced, m.refused, m.unknown, m.full, m.buffered, m.bufferBytes, m.ackSeconds, m.fetched, m.shared, m.fetchErrors, m.faults,
		m.corrupt, m.standing,
	} {
		if err := reg.Register(c); err != nil {
			if _, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
				return nil, fmt.Errorf("register Kafka's metrics: a registry serves one cluster: %w", err)
			}
			return nil, fmt.Errorf("register Kafka's metrics: %w", err)
		}
	}
	return m, nil
}
