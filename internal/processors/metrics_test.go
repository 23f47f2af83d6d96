package processors

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

func TestAnAnswerIsToldAsItsClientSeesIt(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m, err := newMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1000, 0)
	m.served.tell(answer{
		endpoint: "/v1/chat/completions", started: event.Started{Model: "sim:tokens=5", Provider: "sim"},
		asked: at, first: at.Add(time.Second), last: at.Add(3 * time.Second), tokens: 5,
	})
	m.served.tell(answer{endpoint: "/v1/embeddings", asked: at, last: at.Add(-time.Minute), failure: "model_not_found"})
	for _, kind := range []error{nil, kafka.ErrNotMember, kafka.ErrUnavailable} {
		m.committed(kind)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			parts := []string{f.GetName()}
			for _, l := range s.GetLabel() {
				parts = append(parts, l.GetValue())
			}
			key := strings.Join(parts, " ")
			if h := s.GetHistogram(); h != nil {
				got[key] = h.GetSampleSum()
			} else if c := s.GetCounter(); c != nil {
				got[key] = c.GetValue()
			}
		}
	}
	for key, want := range map[string]float64{
		"gen_ai_server_request_duration_seconds  chat sim sim":                              3,
		"gen_ai_server_request_duration_seconds model_not_found embeddings unknown unknown": 0, // clocks apart
		"gen_ai_server_time_to_first_token_seconds chat sim sim":                            1,
		"gen_ai_server_time_per_output_token_seconds chat sim sim":                          0.5,
		"penstock_processor_commits_total ok":                                               1,
		"penstock_processor_commits_total not_member":                                       1,
		"penstock_processor_commits_total failed":                                           1,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s: %v (%v), want %v", key, v, ok, want)
		}
	}
	if _, err := newMetrics(reg); err == nil {
		t.Error("a registry took the metrics twice")
	}
}
