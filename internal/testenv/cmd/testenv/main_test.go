package main

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the program, as a process of its own, with a command that waits to
// be ended, and returns the addresses of the two servers.
func start(t *testing.T) (cmd *exec.Cmd, kafka, postgres string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "testenv")
	build := exec.CommandContext(t.Context(), "go", "build", "-cover", "-covermode=atomic",
		"-coverpkg=github.com/penstock-io/penstock/...", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	coverage := os.Getenv("PENSTOCK_COVERDIR")
	if coverage == "" {
		coverage = t.TempDir()
	}
	cmd = exec.CommandContext(t.Context(), program, "--", "sh", "-c",
		`echo "$PENSTOCK_TEST_KAFKA $PENSTOCK_TEST_POSTGRES"; exec sleep 600 >/dev/null 2>&1`)
	// Not the run's own servers: these are going to be lost.
	cmd.Env = append(os.Environ(), "PENSTOCK_TEST_KAFKA=", "PENSTOCK_TEST_POSTGRES=", "GOCOVERDIR="+coverage)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the command never ran: %v", errors.Join(err, cmd.Wait()))
	}
	kafka, server, _ := strings.Cut(strings.TrimSpace(line), " ")
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{kafka, u.Host} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("a server that does not serve: %v", err)
		}
		_ = conn.Close()
	}
	return cmd, kafka, u.Host
}

// requireGone waits until nobody listens on addr.
func requireGone(t *testing.T, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		_ = conn.Close()
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("the server on %s is still there", addr)
		}
	}
}

func TestTerminatedRunLeavesNoServerBehind(t *testing.T) {
	cmd, kafka, postgres := start(t)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGTERM) {
		t.Errorf("ended with %v, want the command's status", err)
	}
	requireGone(t, kafka)
	requireGone(t, postgres)
}

func TestKilledRunTakesItsServersAlong(t *testing.T) {
	cmd, kafka, postgres := start(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	requireGone(t, kafka)
	requireGone(t, postgres)
}
