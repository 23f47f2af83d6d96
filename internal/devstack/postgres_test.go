//go:build unix

package devstack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// child does what a test asks of a process of its own, says so in one line, and
// waits to be killed or for its input to end.
func child(role string) {
	ctx := context.Background()
	dir := os.Getenv(childVariable + "_DIR")
	var line string
	var err error
	switch role {
	case "postgres":
		var p *Postgres
		if p, err = StartPostgres(ctx, PostgresConfig{Dir: dir, rootState: os.Getenv(childVariable + "_STATE")}); err == nil {
			line = fmt.Sprintf("%d %s", p.cmd.Process.Pid, p.URL())
		}
	case "broker":
		var b *Broker
		if b, err = StartBroker(ctx, BrokerConfig{Dir: dir, SyncWrites: os.Getenv(childVariable+"_SYNC") != ""}); err == nil {
			line = b.Addr()
		}
	default:
		err = errors.New("unknown role " + role)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ok", line)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(0)
}

// startChild runs this binary as a child in a role, and returns what it said.
func startChild(t *testing.T, role string, env ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), childVariable+"="+role), env...)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child said nothing: %v", err)
	}
	said, ok := strings.CutPrefix(strings.TrimSpace(line), "ok ")
	if !ok {
		t.Fatalf("the child said %q", line)
	}
	return cmd, said
}

func kill9(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // a test's
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

func exec1(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // a test's
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func start(t *testing.T, cfg PostgresConfig) *Postgres {
	t.Helper()
	if cfg.rootState == "" {
		cfg.rootState = openDir(t)
	}
	began := time.Now()
	p, err := StartPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", time.Since(began))
	t.Cleanup(func() { _ = p.Stop(context.Background()) })
	return p
}

// openDir is a directory that every account can reach, which t.TempDir is not.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "penstock-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestPostgresKeepsItsDataOverStopAndStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	p := start(t, PostgresConfig{Dir: dir})
	exec1(t, p.URL(), `create table kept as select 'yes' as v`)
	if got := query(t, p.URL(), `show fsync`); got != "on" {
		t.Errorf("fsync is %s for data that are to be kept", got)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
	q := start(t, PostgresConfig{Dir: dir})
	if got := query(t, q.URL(), `select v from kept`); got != "yes" {
		t.Errorf("got %q", got)
	}
	if !strings.HasPrefix(q.Dir(), dir) {
		t.Errorf("a directory that can be reached was not used: data in %s, want below %s", q.Dir(), dir)
	}
}

func TestPostgresDiesWithAKilledParentAndStartsAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	parent, said := startChild(t, "postgres", childVariable+"_DIR="+dir)
	var pid int
	var url string
	if _, err := fmt.Sscan(said, &pid, &url); err != nil {
		t.Fatal(err)
	}
	exec1(t, url, `create table kept as select 'yes' as v`)
	kill9(t, parent)
	eventually(t, "the server ends with its parent", func() bool {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	})
	p := start(t, PostgresConfig{Dir: dir})
	if got := query(t, p.URL(), `select v from kept`); got != "yes" {
		t.Errorf("got %q", got)
	}
}
