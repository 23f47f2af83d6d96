package testenv

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// interruptGrace is what a command gets to end by itself when the run is
// broken off.
const interruptGrace = 15 * time.Second

// Run starts Kafka and PostgreSQL, runs argv with KafkaVar and PostgresVar set,
// stops both, and returns the exit code to pass on: the command's, or 1 if the
// servers could not be started or stopped. When ctx ends, the command and all
// that it started get SIGTERM, and SIGKILL after a grace period.
func Run(ctx context.Context, argv []string, stdout, stderr io.Writer) int {
	if len(argv) == 0 {
		fmt.Fprintln(stderr, "testenv: no command: want testenv -- command [argument ...]")
		return 2
	}
	var servers services
	servers.open()
	code, err := runWith(ctx, &servers, argv, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "testenv:", err)
	}
	if err := servers.close(); err != nil {
		fmt.Fprintln(stderr, "testenv:", err)
		code = max(code, 1)
	}
	return code
}

func runWith(ctx context.Context, servers *services, argv []string, stdout, stderr io.Writer) (int, error) {
	kafka, postgres, err := startAll(ctx, servers)
	if err != nil {
		return 1, err
	}
	// The command's life is bounded below, group and all.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), argv[0], argv[1:]...) //nolint:gosec // To run what it is told is what this is for.
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = append(os.Environ(), KafkaVar+"="+kafka, PostgresVar+"="+postgres)
	p, err := startProcess(cmd)
	if err != nil {
		return 1, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		err = p.terminate(interruptGrace)
	}
	// Whatever the command left running would outlive its servers.
	_ = p.signal(syscall.SIGKILL)
	return max(exitCode(p.err), 0), err
}

// startAll starts both servers at once: each waits for a disk or a JVM.
func startAll(ctx context.Context, servers *services) (kafka, postgres string, err error) {
	var group errgroup.Group
	group.Go(func() (err error) {
		kafka, err = servers.kafkaAddr(ctx)
		return err
	})
	group.Go(func() (err error) {
		postgres, err = servers.postgresURL(ctx)
		return err
	})
	err = group.Wait()
	return kafka, postgres, err
}
