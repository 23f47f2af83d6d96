package chaos

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestAClientHoldsWhatAGatewaySaysAgainstIt(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		body, what string // "" is no violation
	}{
		"it has no time":           {http.StatusServiceUnavailable, "", ""},
		"it knows no such job":     {http.StatusNotFound, "", "answers 404"},
		"nothing follows":          {http.StatusNoContent, "", "says that nothing follows"},
		"it tells of a gap":        {http.StatusOK, "data: {\"type\":\"stream.gap\",\"v\":1}\n\n", "tells of a gap"},
		"it says what is no event": {http.StatusOK, "data: {}\n\n", "no event of a job"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer s.Close()
			cl := &client{
				Reader: &Reader{Who: "a client", Job: "job_1"}, http: s.Client(), gateways: []string{s.URL},
				random: rand.New(rand.NewPCG(1, 1)), cursor: "c",
			}
			if err := cl.bySSE(t.Context(), s.URL); err == nil {
				t.Error("it read to an end that is none")
			}
			var said []string
			for _, v := range cl.found {
				said = append(said, v.String())
			}
			if got := strings.Join(said, "\n"); (c.what == "") != (got == "") || !strings.Contains(got, c.what) {
				t.Errorf("it found %q, want %q", got, c.what)
			}
		})
	}
}

func TestAReportShowsCountsFaultsAndViolations(t *testing.T) {
	r := &Report{
		Seed: 7, Took: time.Minute, Faults: map[string]int{killBroker: 3}, Evidence: []string{"what stands there"},
		Verdict: &Verdict{Accepted: 5, Completed: 4, Lost: 1, Violations: []Violation{{Lost, "job_1", "it has no end"}}},
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"seed 7, 1m0s", "5 accepted, 4 ended", "lost            1", "3 broker killed", "lost: job job_1: it has no end", "what stands there"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}
