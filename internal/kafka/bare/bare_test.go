package bare

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Settled(m)) }

func TestATripComesBack(t *testing.T) {
	broker, err := devstack.StartBroker(t.Context(), devstack.BrokerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = broker.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	trips, err := Start(ctx, []string{broker.Addr()}, "bare")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if d, err := trips.Trip(ctx, n); err != nil || d <= 0 {
			t.Fatalf("trip %d: %v, %v", n, d, err)
		}
	}
	trips.Close(ctx)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := trips.Trip(ended, 4); err == nil {
		t.Error("a trip came back after the end")
	}
}

func TestNoBrokerIsSaid(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, []string{"127.0.0.1:1"}, "bare"); err == nil {
		t.Error("started without a broker")
	}
	if _, err := Start(ctx, nil, "bare"); err == nil {
		t.Error("started without an address")
	}
}
