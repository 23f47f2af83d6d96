// Command testenv runs a command beside a Kafka and a PostgreSQL that it starts
// for it and stops after it, whatever happens:
//
//	testenv -- go test ./...
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/penstock-io/penstock/internal/testenv"
)

func main() {
	argv := os.Args[1:]
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := testenv.Run(ctx, argv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
