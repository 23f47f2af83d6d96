package gateway

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the gateway's. The streaming_ names are a promise.
type metrics struct {
	active      prometheus.Gauge
	chunks      prometheus.Counter
	completions *prometheus.CounterVec
	firstByte   prometheus.Histogram
	bytes       prometheus.Gauge
	followed    prometheus.Gauge
	catchUps    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, log *slog.Logger) *metrics {
	m := &metrics{
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "streaming_active_connections", Help: "Streams that are open.",
		}),
		chunks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "streaming_chunks_total", Help: "Events that were written to streams.",
		}),
		completions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streaming_completions_total",
			Help: "Streams that ended, by how: the job's end (completed, failed, cancelled), or gone, slow, drained, error.",
		}, []string{"status"}),
		firstByte: prometheus.NewHistogram(prometheus.HistogramOpts{ //nolint:promlinter // The name was asked for by users.
			Name: "streaming_first_byte_latency_ms", Help: "Milliseconds from a stream's request to its first event.",
			Buckets: []float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000},
		}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "penstock_gateway_hub_bytes", Help: "Bytes of recent records in memory.",
		}),
		followed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "penstock_gateway_followed_partitions", Help: "Partitions of the token topic that are followed.",
		}),
		catchUps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_gateway_catch_up_reads_total", Help: "Reads from Kafka for positions that were not in memory.",
		}),
	}
	if reg == nil {
		return m
	}
	for _, c := range []prometheus.Collector{m.active, m.chunks, m.completions, m.firstByte, m.bytes, m.followed, m.catchUps} {
		if err := reg.Register(c); err != nil {
			log.Warn("metric not registered", slog.Any("error", err))
		}
	}
	return m
}
