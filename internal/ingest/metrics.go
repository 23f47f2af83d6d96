package ingest

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
)

type metrics struct {
	accepted  *prometheus.CounterVec // by lane
	cancelled prometheus.Counter
	replayed  prometheus.Counter
	refused   *prometheus.CounterVec // by code
	shed      *prometheus.CounterVec // by lane and reason
	unsettled prometheus.Counter
	append    prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_ingest_accepted_total", Help: "Jobs that were written to the log, by lane.",
		}, []string{"lane"}),
		cancelled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_ingest_cancels_total", Help: "Cancels that were written to the log.",
		}),
		replayed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_ingest_replayed_total", Help: "Requests that got the answer, or the job, of an earlier one with the same key.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_ingest_refused_total", Help: "Requests that were refused, by the fault's code.",
		}, []string{"code"}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_ingest_shed_total", Help: "Of the refused, requests for which there was no room, by lane and reason.",
		}, []string{"lane", "reason"}),
		unsettled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_ingest_unsettled_keys_total", Help: "Accepted jobs whose answer could not be kept for their idempotency key.",
		}),
		append: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_ingest_append_seconds", Help: "How long Kafka took to acknowledge a request.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.accepted, m.cancelled, m.replayed, m.refused, m.shed, m.unsettled, m.append} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of ingest, of which a process has one: %w", err)
		}
	}
	return m, nil
}

// settled counts what became of a request.
func (m *metrics) settled(lane event.Lane, replayed bool, err error) {
	switch {
	case err != nil:
		if s, ok := errors.AsType[*ShedError](err); ok {
			m.shed.WithLabelValues(lane.String(), s.Reason.String()).Inc()
		}
		m.refuse(err)
	case replayed:
		m.replayed.Inc()
	default:
		m.accepted.WithLabelValues(lane.String()).Inc()
	}
}

func (m *metrics) refuse(err error) {
	m.refused.WithLabelValues(string(fault.From(err).Code)).Inc()
}
