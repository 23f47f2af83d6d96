package app

import (
	"net/http"
	"strings"
	"testing"
)

func TestReadBackRidesAlongWithTheGatewayInOneProcess(t *testing.T) {
	t.Parallel()
	r := start(t, base(t))
	shared := func() (n float64) {
		all, err := r.metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.GetName() == "penstock_kafka_shared_records_total" {
				for _, m := range f.GetMetric() {
					n += m.GetCounter().GetValue()
				}
			}
		}
		return n
	}
	eventually(t, "read-back is given records that the gateway fetched", func() bool {
		id := r.submit(t, "sim:tokens=20,ttft=0s,gap=5ms")
		status, events := r.ask(t, http.MethodGet, "/v1/jobs/"+id+"/events", "")
		if status != http.StatusOK || !strings.Contains(events, `"output.completed"`) {
			t.Fatalf("the stream of a job was %d %s", status, events)
		}
		return shared() > 0
	})
}
