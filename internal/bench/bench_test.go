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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed is a trip that says that it took so long.
func fixed(d time.Duration) Trip {
	return func(context.Context, int) (time.Duration, error) { return d, nil }
}

func TestCompareMeasuresBothKindsByTurns(t *testing.T) {
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
	pairs, err := Compare(t.Context(), ours, fixed(10), Options{Concurrency: []int{1}, Trips: 40, Rounds: 4}, func(*Pair) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	p := &pairs[0]
	if len(p.Ours.Times) != 40 || len(p.Bare.Times) != 40 || told != 1 {
		t.Errorf("%d and %d trips, told %d times", len(p.Ours.Times), len(p.Bare.Times), told)
	}
	if p.Ours.Percentile(0) > p.Ours.Percentile(1) || p.Ours.PerSecond() <= 0 {
		t.Errorf("%+v", p.Ours)
	}
	if got := p.Ratio(.5); got != float64(p.Ours.Percentile(.5))/10 {
		t.Errorf("the ratio is %v", got)
	}
}

func TestCompareMakesATripForEveryoneAtATime(t *testing.T) {
	pairs, err := Compare(t.Context(), fixed(2), fixed(1), Options{Concurrency: []int{7}, Trips: 3, Rounds: 1}, func(*Pair) {})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(pairs[0].Ours.Times); n != 7 {
		t.Errorf("%d trips at 7 at a time", n)
	}
}

func TestCompareEndsAtTheFirstError(t *testing.T) {
	var made atomic.Int64
	broken := errors.New("broken")
	trip := func(context.Context, int) (time.Duration, error) {
		if made.Add(1) > 20 {
			return 0, broken
		}
		return 1, nil
	}
	_, err := Compare(t.Context(), trip, fixed(1), Options{Concurrency: []int{4}, Trips: 1000, Rounds: 1}, func(*Pair) {})
	if !errors.Is(err, broken) || made.Load() > 40 {
		t.Errorf("%v after %d trips", err, made.Load())
	}
	if _, err := Compare(t.Context(), trip, trip, Options{}, nil); err == nil {
		t.Error("nothing to measure was measured")
	}
}

func TestNothingMeasuredIsNotDividedBy(t *testing.T) {
	var p Pair
	if p.Ratio(.5) != 0 || p.Ours.PerSecond() != 0 {
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
