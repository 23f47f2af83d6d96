//go:build unix

package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/devstack"
)

// server is the one PostgreSQL of this run; tests take a database each.
var server *devstack.Postgres

func TestMain(m *testing.M) {
	ctx := context.Background()
	var err error
	if server, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{Throwaway: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := server.Stop(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// database makes an empty database and returns its address.
func database(t *testing.T) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text()) // the same test may run more than once
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(server.URL(), "/postgres?", "/"+name+"?", 1)
}

func open(t *testing.T, cfg Config) *pgxpool.Pool {
	t.Helper()
	pool, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestMigrateMakesTheTablesOnce(t *testing.T) {
	t.Parallel()
	pool := open(t, Config{URL: database(t)})
	pending, err := Pending(t.Context(), pool)
	if err != nil || len(pending) == 0 || pending[0] != 1 {
		t.Fatalf("pending %v, %v", pending, err)
	}
	var there bool
	if err := pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'penstock')`).Scan(&there); err != nil || there {
		t.Errorf("asking what is pending changed the database: %v %v", there, err)
	}
	applied, err := Migrate(t.Context(), pool, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pending, applied); diff != "" {
		t.Error(diff)
	}
	if pending, err = Pending(t.Context(), pool); err != nil || len(pending) != 0 {
		t.Errorf("pending after migrating: %v, %v", pending, err)
	}
	if applied, err = Migrate(t.Context(), pool, nil); err != nil || len(applied) != 0 {
		t.Errorf("applied again: %v, %v", applied, err)
	}
	for _, table := range []string{"idempotency_keys", "jobs", "checkpoints"} {
		if _, err := pool.Exec(t.Context(), "SELECT FROM penstock."+table); err != nil {
			t.Error(err)
		}
	}
}

func TestMigrateByManyAtOnceAppliesEachVersionOnce(t *testing.T) {
	t.Parallel()
	url := database(t)
	const many = 6
	var applied [many][]int64
	var wg sync.WaitGroup
	for i := range many {
		pool := open(t, Config{URL: url, MaxConns: 2})
		wg.Go(func() {
			var err error
			if applied[i], err = Migrate(t.Context(), pool, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := map[int64]int{}
	for _, versions := range applied {
		for _, v := range versions {
			seen[v]++
		}
	}
	if len(seen) == 0 {
		t.Error("nothing was applied")
	}
	for v, n := range seen {
		if n != 1 {
			t.Errorf("version %d was applied %d times", v, n)
		}
	}
}

func TestMigrateThatFailsKeepsWhatCameBeforeAndLetsGoOfItsLock(t *testing.T) {
	t.Parallel()
	pool := open(t, Config{URL: database(t)})
	files := fstest.MapFS{
		"0001_good.sql": {Data: []byte("-- +goose Up\nCREATE TABLE penstock.good (x int);")},
		"0002_bad.sql":  {Data: []byte("-- +goose Up\nCREATE TABLE penstock.half (x int);\nCREATE GARBAGE;")},
	}
	applied, err := migrate(t.Context(), pool, files, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "0002_bad.sql") {
		t.Errorf("got %v, want the failed file's name", err)
	}
	if diff := cmp.Diff([]int64{1}, applied); diff != "" {
		t.Error(diff)
	}
	if _, err := pool.Exec(t.Context(), "SELECT FROM penstock.half"); err == nil {
		t.Error("half of a failed migration stayed")
	}
	files["0002_bad.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE penstock.half (x int);")}
	if applied, err = migrate(t.Context(), pool, files, nil); err != nil || !cmp.Equal(applied, []int64{2}) {
		t.Errorf("after mending: %v, %v", applied, err)
	}
}

func TestMigrateSaysWhichRightIsMissing(t *testing.T) {
	t.Parallel()
	url := database(t)
	pool := open(t, Config{URL: url})
	role := "humble_" + strings.ToLower(rand.Text())
	if _, err := pool.Exec(t.Context(), `CREATE ROLE `+role+` LOGIN PASSWORD 'x'`); err != nil {
		t.Fatal(err)
	}
	at := strings.Index(url, "@")
	humble := open(t, Config{URL: "postgres://" + role + ":x" + url[at:]})
	if _, err := Migrate(t.Context(), humble, nil); err == nil || !strings.Contains(err.Error(), "grant CREATE") || Unavailable(err) {
		t.Errorf("got %v", err)
	}
	if _, err := Migrate(t.Context(), pool, nil); err != nil {
		t.Errorf("the failed one kept the lock: %v", err)
	}
}

func TestMigrateAndPendingTellThatTheServerIsAway(t *testing.T) {
	t.Parallel()
	pool := open(t, Config{URL: database(t)})
	pool.Close()
	if _, err := Migrate(t.Context(), pool, nil); err == nil {
		t.Error("migrated through a closed pool")
	}
	if _, err := Pending(t.Context(), pool); err == nil {
		t.Error("asked a closed pool")
	}
}

func TestMigrationsCanBeReadWithoutAGap(t *testing.T) {
	t.Parallel()
	pool := open(t, Config{URL: database(t)})
	pending, err := Pending(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range pending {
		if v != int64(i)+1 {
			t.Errorf("versions %v: a number is missing or twice", pending)
		}
	}
	if _, err := migrate(t.Context(), pool, fstest.MapFS{}, nil); err == nil {
		t.Error("an empty set of migrations passed")
	}
}

func TestOpenBoundsThePoolAndNamesItself(t *testing.T) {
	t.Parallel()
	pool := open(t, Config{URL: server.URL(), MaxConns: 3})
	if got := pool.Config().MaxConns; got != 3 {
		t.Errorf("%d connections", got)
	}
	var name string
	if err := pool.QueryRow(t.Context(), `SHOW application_name`).Scan(&name); err != nil || name != "penstock" {
		t.Errorf("application %q, %v", name, err)
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := nobody.Addr().String()
	_ = nobody.Close()
	wrong := strings.Replace(server.URL(), "/postgres?", "/nowhere?", 1)
	at := strings.Index(server.URL(), "@")
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no address":       {Config{}, "--postgres"},
		"a broken address": {Config{URL: "postgres://u:secret@h:x/"}, "has to look like"},
		"too many":         {Config{URL: server.URL(), MaxConns: 1 << 20}, "a few dozen"},
		"nobody there":     {Config{URL: "postgres://u:secret@" + away + "/d?sslmode=disable", Patience: 300 * time.Millisecond}, "see that it runs"},
		"no such database": {Config{URL: wrong}, "is there but refuses us"},
		"a wrong password": {Config{URL: "postgres://postgres:secret" + server.URL()[at:]}, "is there but refuses us"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(t.Context(), c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the password is in %v", err)
			}
		})
	}
}

func TestOpenWaitsForAServerAndStopsWhenToldTo(t *testing.T) {
	t.Parallel()
	// A listener that never answers stands for a server that hangs.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			cancel()
			_ = c.Close()
		}
	}()
	_, err = Open(ctx, Config{URL: "postgres://u@" + l.Addr().String() + "/d?sslmode=disable", Patience: time.Minute})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestUnavailableTellsAServerThatIsAwayFromABadStatement(t *testing.T) {
	t.Parallel()
	pe := func(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }
	for _, err := range []error{
		pe("57P01"), pe("57P02"), pe("57P03"), pe("57P05"), pe("53300"), pe("53100"), pe("08006"), pe("25006"),
		io.ErrUnexpectedEOF, net.ErrClosed, pgconn.ErrConnClosed, context.DeadlineExceeded,
		&net.OpError{Op: "read", Err: errors.New("reset")}, &pgconn.ConnectError{},
	} {
		if !Unavailable(err) {
			t.Errorf("%v is not taken for the server's absence", err)
		}
	}
	for _, err := range []error{
		nil, pe("23505"), pe("42601"), pe("40001"), pe("28P01"), pe("3D000"), pe("57014"),
		context.Canceled, pgx.ErrNoRows, errors.New("something"),
	} {
		if Unavailable(err) {
			t.Errorf("%v is taken for the server's absence", err)
		}
	}
}

func TestUnavailableOnRealErrors(t *testing.T) {
	t.Parallel()
	pool := open(t, Config{URL: server.URL(), MaxConns: 1})
	_, err := pool.Exec(t.Context(), "SELEC 1")
	if err == nil || Unavailable(err) {
		t.Errorf("a typo: %v", err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := pool.Exec(short, "SELECT 1"); !Unavailable(err) {
		t.Errorf("a pool with nothing free: %v", err)
	}
	admin := open(t, Config{URL: server.URL()})
	if _, err := admin.Exec(t.Context(), "SELECT pg_terminate_backend($1)", conn.Conn().PgConn().PID()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1"); !Unavailable(err) {
		t.Errorf("a session that was ended: %v", err)
	}
	conn.Release()
	if _, err := pool.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the pool did not recover by itself: %v", err)
	}
	gone, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Throwaway: true})
	if err != nil {
		t.Fatal(err)
	}
	lost := open(t, Config{URL: gone.URL()})
	if err := gone.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := lost.Exec(t.Context(), "SELECT 1"); !Unavailable(err) {
			t.Errorf("a server that was stopped: %v", err)
		}
	}
	if _, err := Migrate(t.Context(), lost, nil); !Unavailable(err) {
		t.Errorf("migrating on a server that was stopped: %v", err)
	}
	if _, err := Pending(t.Context(), lost); !Unavailable(err) {
		t.Errorf("asking a server that was stopped: %v", err)
	}
}

func TestAPoolTellsItsConnections(t *testing.T) {
	t.Parallel()
	pool := open(t, Config{URL: server.URL(), MaxConns: 3})
	reg := prometheus.NewRegistry()
	if err := Register(reg, pool); err != nil {
		t.Fatal(err)
	}
	if err := Register(reg, pool); err == nil {
		t.Error("a registry took the metrics twice")
	}
	if err := Register(nil, pool); err != nil {
		t.Errorf("without a registry: %v", err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	for name, want := range map[string]float64{
		"penstock_postgres_connections_max": 3, "penstock_postgres_connections_used": 1, "penstock_postgres_connections_open": 1,
	} {
		if got[name] != want {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
	if got["penstock_postgres_acquires_total"] < 2 { // Open's, and ours
		t.Errorf("acquires: %v", got)
	}
}
