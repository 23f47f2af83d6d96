// Command penstock is all of Penstock: see `penstock --help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/penstock-io/penstock/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal stops in order; a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Run(ctx, os.Args[1:], cli.System{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.LookupEnv,
	}))
}
