package projections

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/kafka"
)

// gate is a way to a database that can be shut.
type gate struct {
	mu    sync.Mutex
	shut  bool
	conns []net.Conn
}

// pool opens a database by way of the gate.
func (g *gate) pool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.DialFunc = g.dial
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func (g *gate) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return nil, errors.Join(syscall.ECONNREFUSED, conn.Close())
	}
	g.conns = append(g.conns, conn)
	return conn, nil
}

// set shuts or opens the gate; shutting breaks what has passed it.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut = shut; shut {
		for _, c := range g.conns {
			_ = c.Close()
		}
		g.conns = nil
	}
}

func TestProjectorOutlivesPostgresAndLosesNothing(t *testing.T) {
	w := newWorld(t, 2)
	var g gate
	gated := *w
	gated.pool = g.pool(t, w.pool.Config().ConnString())
	g.set(true)
	p, _ := gated.project(t, Config{MaxRecords: 50})
	tell := func(ready bool) {
		t.Helper()
		eventually(t, "readiness tells", func() bool { return (p.Ready(t.Context()) == nil) == ready })
	}
	tell(false)
	const n = 2000
	requests, facts := lives(n, 2)
	w.produce(t, requests...)
	g.set(false)
	tell(true)
	w.caughtUp(t)
	// Connections that break anywhere, also between a commit and its answer.
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	wg.Go(func() {
		tick := time.NewTicker(7 * time.Millisecond)
		defer tick.Stop()
		for range 30 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			g.set(true)
			g.set(false)
		}
	})
	w.produce(t, facts...)
	wg.Wait()
	stop()
	w.caughtUp(t)
	if got := w.count(t, "status = 'completed' AND request_topic IS NOT NULL AND output IS NOT NULL"); got != n {
		t.Errorf("%d of %d jobs are whole", got, n)
	}
	// A record may have been folded by a transaction of which we did not learn,
	// and is not counted then; more than once is none.
	if got := counted(t, p, folded.String()); got > 3*n || got < 2*n {
		t.Errorf("%v records were folded, %d were written", got, 3*n)
	}
	tell(true)
}

func TestProjectorWithoutPostgresStillHandsOver(t *testing.T) {
	w := newWorld(t, 2)
	var g gate
	gated := *w
	gated.pool = g.pool(t, w.pool.Config().ConnString())
	stuck, _ := gated.project(t, Config{})
	requests, facts := lives(100, 2)
	w.produce(t, requests...)
	w.caughtUp(t)
	g.set(true)
	w.produce(t, facts...)
	eventually(t, "the first is stuck", func() bool { return stuck.Ready(t.Context()) != nil })
	began := time.Now()
	other, _ := w.project(t, Config{})
	eventually(t, "the other has taken over a part", func() bool { return counted(t, other, folded.String()) > 0 })
	if took := time.Since(began); took > 25*time.Second { // one that is not let go waits for 30 s
		t.Errorf("the other got its part after %v: the first did not let go", took)
	}
	g.set(false)
	w.caughtUp(t)
	if got := w.count(t, "status = 'completed' AND request_topic IS NOT NULL"); got != 100 {
		t.Errorf("%d of 100 jobs are whole", got)
	}
}

func TestStoreTellsThatPostgresOrKafkaIsAway(t *testing.T) {
	var g gate
	pool := g.pool(t, database(t).Config().ConnString())
	store := NewStore(pool, noOffsets{}, []string{"t.jobs"}, nil)
	if _, err := store.Lag(t.Context()); !is(err, fault.Unavailable) {
		t.Errorf("the lag without Kafka: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Find(gone, event.DefaultTenant, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up: %v", err)
	}
	g.set(true)
	_, findErr := store.Find(t.Context(), event.DefaultTenant, "a")
	_, listErr := store.List(t.Context(), event.DefaultTenant, Filter{})
	_, afterErr := store.List(t.Context(), event.DefaultTenant, Filter{After: "a"})
	_, lagErr := store.Lag(t.Context())
	for what, err := range map[string]error{"find": findErr, "list": listErr, "list after": afterErr, "lag": lagErr} {
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != fault.Unavailable || f.RetryAfter == 0 {
			t.Errorf("%s without PostgreSQL: %v", what, err)
		}
	}
}

type noOffsets struct{}

func (noOffsets) Offsets(context.Context, string, kafka.At) (map[int32]int64, error) {
	return nil, kafka.ErrUnavailable
}

func TestNewWantsItsParts(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a projector of nothing was made")
	}
}
