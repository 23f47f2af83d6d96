//go:build unix

package devstack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
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
		_, _ = fmt.Fprintln(os.Stdout, "error", err)
		os.Exit(1)
	}
	_, _ = fmt.Fprintln(os.Stdout, "ok", line)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(0)
}

// startChild runs this binary as a child in a role, and returns what it said.
func startChild(t *testing.T, role string, env ...string) (*exec.Cmd, string) {
	t.Helper()
	return startProgram(t, os.Args[0], nil, append(env, childVariable+"="+role)...)
}

// startProgram runs a copy of this binary, as an account if there is one.
func startProgram(t *testing.T, path string, as *account, env ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path)
	cmd.Env = append(os.Environ(), env...)
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: as.uid, Gid: as.gid}}
		cmd.Dir = "/"
	}
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
	deadline := time.NewTimer(time.Minute)
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

// keep writes what a later start has to find.
func keep(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // a test's
	if _, err := conn.Exec(t.Context(), `create table kept as select 'yes' as v`); err != nil {
		t.Fatal(err)
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
	dir, err := os.MkdirTemp("", "penstock-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// sleepIn runs a process in a directory that ends only when it is killed, which
// the function that it returns does.
func sleepIn(t *testing.T, dir string) (end func()) {
	t.Helper()
	deaf := exec.CommandContext(t.Context(), "sh", "-c", `trap "" QUIT; echo ready; while :; do sleep 1; done`)
	deaf.Dir = dir
	out, err := deaf.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	deaf.WaitDelay = time.Millisecond // its last sleep may hold the pipe
	if err := deaf.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = deaf.Wait()
	}()
	end = func() {
		_ = deaf.Process.Kill()
		<-ended
		eventually(t, "its children have gone too", func() bool {
			pids, err := serversOn(dir)
			return err == nil && len(pids) == 0
		})
	}
	t.Cleanup(func() { _ = deaf.Process.Kill(); <-ended })
	return end
}

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}
