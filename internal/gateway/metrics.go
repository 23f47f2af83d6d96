package gateway

import (
	"log/slog"
	"time"

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
	memory      prometheus.Gauge
	segments    prometheus.Gauge
	evicted     prometheus.Counter // segments
	catchUps    prometheus.Counter
	catchUpByte prometheus.Counter
	catchUpErrs prometheus.Counter
	gaps        *prometheus.CounterVec // by reason
	delay       prometheus.Histogram

	sockets       prometheus.Gauge
	subscriptions prometheus.Gauge
	refused       *prometheus.CounterVec // by whose bound it was
	frames        *prometheus.CounterVec
	framesIn      prometheus.Counter
	framesOut     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, log *slog.Logger) *metrics {
	m := &metrics{
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "streaming_active_connections", Help: "Connections that stream: SSE streams and WebSockets.",
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
	}
	m.addReading()
	m.addSockets()
	if reg == nil {
		return m
	}
	for _, c := range []prometheus.Collector{
		m.active, m.chunks, m.completions, m.firstByte, m.bytes, m.memory, m.followed, m.segments, m.evicted,
		m.catchUps, m.catchUpByte, m.catchUpErrs, m.gaps, m.delay,
		m.sockets, m.subscriptions, m.refused, m.frames,
	} {
		if err := reg.Register(c); err != nil {
			log.Warn("metric not registered", slog.Any("error", err))
		}
	}
	return m
}

// addReading makes what tells of reading the log.
func (m *metrics) addReading() {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_gateway_" + name, Help: help})
	}
	m.memory = prometheus.NewGauge(prometheus.GaugeOpts{ //nolint:promlinter // The name was asked for by users.
		Name: "streaming_memory_mb", Help: "Megabytes (10^6) of recent records that streams are served from: penstock_gateway_hub_bytes.",
	})
	m.segments = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "penstock_gateway_segments", Help: "Segments of recent records in memory.",
	})
	m.evicted = counter("segments_evicted_total", "Segments that went for the byte budget.")
	m.catchUps = counter("catch_up_reads_total", "Reads from Kafka for positions that were not in memory.")
	m.catchUpByte = counter("catch_up_bytes_total", "Bytes of records that such reads brought.")
	m.catchUpErrs = counter("catch_up_errors_total", "Such reads that failed.")
	m.gaps = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "penstock_gateway_gaps_total", Help: "Times that a reader was told that records are missing, by reason.",
	}, []string{"reason"})
	for _, reason := range []string{gapRetention, gapTruncated, gapRecreated, gapMissing, gapCorrupt, gapUnreadable} {
		m.gaps.WithLabelValues(reason) // so that they show before they happen
	}
	m.delay = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "penstock_gateway_tail_delay_seconds", Help: "From the time of a record to its being in memory, the oldest of each read.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
}

// addSockets makes what tells of WebSockets.
func (m *metrics) addSockets() {
	m.sockets = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "penstock_gateway_websockets", Help: "WebSockets that are open.",
	})
	m.subscriptions = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "penstock_gateway_subscriptions", Help: "Subscriptions on WebSockets.",
	})
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "penstock_gateway_connections_refused_total", Help: "WebSockets and SSE streams that were refused, by whose bound it was: process, tenant, address.",
	}, []string{"by"})
	for _, by := range []string{ofProcess, ofTenant, ofAddress} {
		m.refused.WithLabelValues(by)
	}
	m.frames = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "penstock_gateway_frames_total", Help: "Frames on WebSockets, by direction: in, out.",
	}, []string{"direction"})
	m.framesIn, m.framesOut = m.frames.WithLabelValues("in"), m.frames.WithLabelValues("out")
}

// debut is when a stream was asked for, and whether its first event was written.
type debut struct {
	began time.Time
	made  bool
}

// sent notes events that were written to a stream.
func (g *Gateway) sent(d *debut, events int) {
	if events == 0 {
		return
	}
	g.metrics.chunks.Add(float64(events))
	if !d.made {
		d.made = true
		g.metrics.firstByte.Observe(float64(g.cfg.Now().Sub(d.began).Microseconds()) / 1000)
	}
}

// held notes what the window holds.
func (m *metrics) held(bytes, segments int) {
	m.bytes.Set(float64(bytes))
	m.memory.Set(float64(bytes) / 1e6)
	m.segments.Set(float64(segments))
}
