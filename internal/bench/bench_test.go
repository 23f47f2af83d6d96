package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Settled(m)) }

// fixed is a trip that says that it took so long.
func fixed(d time.Duration) Trip {
	return func(context.Context, int) (time.Duration, error) { return d, nil }
}

func TestContendersTakeTurns(t *testing.T) {
	var mu sync.Mutex // the warm-up makes several at a time
	seen := map[int]bool{}
	ours := func(_ context.Context, n int) (time.Duration, error) {
		mu.Lock()
		defer mu.Unlock()
		if seen[n] {
			t.Errorf("trip %d twice", n)
		}
		seen[n] = true
		return time.Duration(n), nil
	}
	told := 0
	all := []Contender{{"bare", fixed(10)}, {"ours", ours}}
	err := Turns(t.Context(), all, Options{Concurrency: []int{1}, Trips: 40, Rounds: 4}, func(concurrency int, s []Sample) {
		told++
		if concurrency != 1 || len(s[0].Times) != 40 || len(s[1].Times) != 40 || s[1].Concurrency != 1 {
			t.Errorf("%d and %d trips at %d at a time", len(s[0].Times), len(s[1].Times), concurrency)
		}
		if s[1].Percentile(0) > s[1].Percentile(1) || s[1].PerSecond() <= 0 {
			t.Errorf("%+v", s[1])
		}
		if got := Ratio(&s[1], &s[0], .5); got != float64(s[1].Percentile(.5))/10 {
			t.Errorf("the ratio is %v", got)
		}
	})
	if err != nil || told != 1 {
		t.Errorf("told %d times, %v", told, err)
	}
}

func TestEveryoneAtATimeHasATrip(t *testing.T) {
	err := Turns(t.Context(), []Contender{{"ours", fixed(2)}}, Options{Concurrency: []int{7}, Trips: 3, Rounds: 1}, func(_ int, s []Sample) {
		if n := len(s[0].Times); n != 7 {
			t.Errorf("%d trips at 7 at a time", n)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTurnsEndAtTheFirstError(t *testing.T) {
	var made atomic.Int64
	broken := errors.New("broken")
	trip := func(context.Context, int) (time.Duration, error) {
		if made.Add(1) > 20 {
			return 0, broken
		}
		return 1, nil
	}
	all := []Contender{{"bare", fixed(1)}, {"ours", trip}}
	err := Turns(t.Context(), all, Options{Concurrency: []int{4}, Trips: 1000, Rounds: 1}, func(int, []Sample) {})
	if !errors.Is(err, broken) || made.Load() > 40 || !strings.Contains(err.Error(), "warming up ours") {
		t.Errorf("%v after %d trips", err, made.Load())
	}
	if err := Turns(t.Context(), all, Options{}, nil); err == nil {
		t.Error("nothing to measure was measured")
	}
}

func TestNothingMeasuredIsNotDividedBy(t *testing.T) {
	var s Sample
	if Ratio(&s, &s, .5) != 0 || s.PerSecond() != 0 {
		t.Error("a figure came of no trip")
	}
}

// stream answers as Penstock does, with these events.
func stream(t *testing.T, receipt string, events ...string) *Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusAccepted)
			_, _ = fmt.Fprint(w, receipt)
			return
		}
		if r.URL.Path != "/events" || r.Header.Get("Authorization") != "Bearer k" {
			http.Error(w, "asked wrongly", http.StatusBadRequest)
			return
		}
		for _, e := range events {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", e)
		}
	}))
	t.Cleanup(srv.Close)
	s := NewServer(srv.URL+"/", "k", 1)
	t.Cleanup(s.Close)
	return s
}

const (
	goodReceipt = `{"links":{"events":"/events"}}`
	started     = `{"type":"output.started","v":1}`
	delta       = `{"type":"output.delta","v":1}`
	completed   = `{"type":"output.completed","v":1}`
)

func TestTimeToFirstToken(t *testing.T) {
	d, err := stream(t, goodReceipt, started, delta, completed).TimeToFirstToken(t.Context(), 1)
	if err != nil || d <= 0 {
		t.Errorf("%v, %v", d, err)
	}
}

func TestTimeToFirstTokenWantsATokenAndAnEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		receipt string
		events  []string
		want    string
	}{
		"no token":    {goodReceipt, []string{started, completed}, "without a token"},
		"cut":         {goodReceipt, []string{started, delta}, "without a token and a completion"},
		"no receipt":  {"nonsense", nil, "receipt"},
		"refused":     {`{"links":{"events":"/elsewhere"}}`, nil, "400 Bad Request"},
		"a long line": {goodReceipt, []string{strings.Repeat("x", 2<<20)}, "the stream broke"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := stream(t, tc.receipt, tc.events...).TimeToFirstToken(t.Context(), 1)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want one that says %q", err, tc.want)
			}
		})
	}
}

func TestNobodyThereIsSaid(t *testing.T) {
	if _, err := NewServer("http://127.0.0.1:1", "", 1).TimeToFirstToken(t.Context(), 1); err == nil {
		t.Error("nobody answered, and it was measured")
	}
	if _, err := NewServer("::", "", 1).TimeToFirstToken(t.Context(), 1); err == nil {
		t.Error("that is no URL")
	}
}

func TestTimeToFirstTokenOverASocket(t *testing.T) {
	end := `{"op":"end","sub":"a","status":"completed"}`
	accepted := `{"op":"accepted","id":"job_1"}`
	d, err := streamingServer(t, accepted, framed(eventOf("started", 0, "{}")), framed(eventOf("delta", 1, "{}")), end).TimeToFirstTokenOverSocket(t.Context(), 1)
	if err != nil || d <= 0 {
		t.Errorf("%v, %v", d, err)
	}
	for want, frames := range map[string][]string{
		"without a token":    {accepted, framed(eventOf("started", 0, "{}")), end},
		"and a completion":   {accepted, framed(eventOf("delta", 0, "{}")), `{"op":"end","sub":"a","status":"failed"}`},
		"the server says":    {`{"op":"error","ref":"1","code":"overloaded"}`},
		"over a WebSocket: ": {accepted},
	} {
		_, err := streamingServer(t, frames...).TimeToFirstTokenOverSocket(t.Context(), 1)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one that says %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := streamingServer(t).TimeToFirstTokenOverSocket(ctx, 1); err == nil {
		t.Error("it was measured though nobody waited")
	}
}
