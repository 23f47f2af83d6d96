package processors

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

type metrics struct {
	inFlight, owned, paused prometheus.Gauge
	writes, cancelsKept     prometheus.Gauge
	waiting                 *prometheus.GaugeVec
	lag, uncommitted        *prometheus.GaugeVec
	boundUsed, boundLimit   *prometheus.GaugeVec
	started, ended, taken   *prometheus.CounterVec
	dead, expired, skipped  *prometheus.CounterVec
	claims, commits         *prometheus.CounterVec
	retries, cancels        *prometheus.CounterVec
	evictions               *prometheus.CounterVec
	claimFailures, noBeats  prometheus.Counter
	wait                    *prometheus.HistogramVec
	served                  serving
}

// serving is how answers look to those who asked for them, by OpenTelemetry's
// names.
type serving struct {
	names llm.ModelNames

	duration, firstToken, perToken *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{}
	all := append(m.gauges(), m.counters()...)
	all = append(all, m.histograms()...)
	if reg == nil {
		return m, nil
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("processors: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) gauges() []prometheus.Collector {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_processor_" + name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_processor_" + name, Help: help}, labels)
	}
	m.inFlight = gauge("calls_in_flight", "Model calls that have not ended.")
	m.owned = gauge("lanes_owned", "Lanes of partitions that are claimed.")
	m.paused = gauge("lanes_paused", "Lanes of partitions whose window is full.")
	m.writes = gauge("writes_waiting", "Facts and dead letters that wait for room in the producer.")
	m.cancelsKept = gauge("cancels_remembered", "Cancels of jobs that are not done, or not known yet.")
	m.waiting = vec("requests_waiting", "Requests taken in and not started.", "lane")
	m.lag = vec("consumer_lag_records", "From a partition's watermark to the end of its log, by its owner.", "lane", "partition")
	m.uncommitted = vec("commit_lag_records", "Requests taken in beyond a partition's watermark, by its owner.", "lane", "partition")
	m.boundUsed = vec("bound_used", "How much of a bound is used, where there are many of a kind by the fullest.", "bound")
	m.boundLimit = vec("bound_limit", "The bound, as it is set; 0 is none.", "bound")
	return []prometheus.Collector{
		m.inFlight, m.owned, m.paused, m.writes, m.cancelsKept, m.waiting, m.lag, m.uncommitted, m.boundUsed, m.boundLimit,
	}
}

func (m *metrics) counters() []prometheus.Collector {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_processor_" + name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_processor_" + name, Help: help}, labels)
	}
	m.started = vec("calls_started_total", "Model calls started.", "lane")
	m.ended = vec("jobs_ended_total", "Jobs ended, by the fact that they became.", "lane", "fact")
	m.taken = vec("jobs_taken_over_total", "Half-finished jobs taken over, by how.", "how")
	m.dead = vec("dead_letters_total", "Requests that can never be run, by the part that is wrong.", "lane", "reason")
	m.skipped = vec("events_skipped_total", "Events of a type or version that this build does not know, or that are none.", "topic")
	m.expired = vec("requests_expired_total", "Requests that retention took before anybody ran them.", "lane")
	m.retries = vec("retries_total", "Calls that failed before they said anything, and are made again, by why.", "lane", "code")
	m.cancels = vec("cancels_total", "Cancels read, by what became of them.", "result")
	m.claims = vec("claims_total", "Claims of lanes of partitions that took.", "lane")
	m.claimFailures = counter("claim_failures_total", "Claims that Kafka did not take, or of which it is not known.")
	m.commits = vec("commits_total", "Commits of offsets, by result: ok, not_member, failed.", "result")
	m.evictions = vec("evictions_total", "Peers found silent, by what became of their removal: removed, gone, failed.", "result")
	m.noBeats = counter("heartbeat_failures_total", "Heartbeats that the group's coordinator did not answer, or refused.")
	return []prometheus.Collector{
		m.started, m.ended, m.taken, m.dead, m.skipped, m.expired, m.retries, m.cancels, m.claims, m.claimFailures, m.commits, m.noBeats,
		m.evictions,
	}
}

func (m *metrics) histograms() []prometheus.Collector {
	labels := []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"}
	vec := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m.wait = vec("penstock_processor_job_wait_seconds", "From a request's time to the start of its call.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}, "lane")
	// The buckets are those that the conventions advise.
	m.served.duration = vec("gen_ai_server_request_duration_seconds", "From a request's time to the end of its answer.",
		prometheus.ExponentialBuckets(0.01, 2, 14), append(labels[:3:3], "error_type")...)
	m.served.firstToken = vec("gen_ai_server_time_to_first_token_seconds", "From a request's time to the first piece of its answer.",
		[]float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}, labels...)
	m.served.perToken = vec("gen_ai_server_time_per_output_token_seconds", "Time a token of an answer, after the first.",
		[]float64{.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5}, labels...)
	return []prometheus.Collector{m.wait, m.served.duration, m.served.firstToken, m.served.perToken}
}

// answer is what there is to tell of a job's end.
type answer struct {
	endpoint    string
	started     event.Started // its newest attempt
	asked       time.Time
	first, last time.Time // of its pieces; first is zero where none came, or from another process
	tokens      int       // of output; 0: not known
	failure     string    // the fault's code; "" for none
}

// answer is what there is to tell of an output that has ended.
func (o *output) answer(s *engine.Start) answer {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := &o.transcript
	a := answer{endpoint: s.Request.Data.Endpoint, started: o.started, asked: s.Request.Time, last: o.now()}
	if s.Resume == nil { // else the first may be another process's
		a.first = o.firstAt
	}
	if u := t.Completed.Usage; u != nil {
		a.tokens = u.CompletionTokens
	}
	switch t.End {
	case event.OutputFailed:
		a.failure = t.Failed.Code
	case event.OutputCancelled:
		a.failure = "cancelled"
	default:
	}
	return a
}

// tell counts a job's end.
func (s *serving) tell(a answer) {
	operation, provider, model := llm.Operation(a.endpoint), a.started.Provider, s.names.Of(a.started.Provider, a.started.Model)
	if provider == "" {
		provider = "unknown"
	}
	s.duration.WithLabelValues(operation, provider, model, a.failure).Observe(since(a.asked, a.last))
	if a.first.IsZero() {
		return
	}
	s.firstToken.WithLabelValues(operation, provider, model).Observe(since(a.asked, a.first))
	if a.tokens > 1 && a.failure == "" {
		s.perToken.WithLabelValues(operation, provider, model).Observe(since(a.first, a.last) / float64(a.tokens-1))
	}
}

// since is at least 0: times may be of different clocks.
func since(from, to time.Time) float64 { return max(0, to.Sub(from).Seconds()) }
