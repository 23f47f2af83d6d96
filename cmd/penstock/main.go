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
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals // the first one stops in order
		stop()
		<-signals // a second one ends the process at once
		os.Exit(1)
	}()
	os.Exit(cli.Run(ctx, os.Args[1:], cli.System{Name: os.Args[0], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.LookupEnv}))
}
