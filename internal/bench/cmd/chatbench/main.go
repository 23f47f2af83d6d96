// Command chatbench measures servers of Chat Completions beside each other, on the
// same instant model server. `make bench-litellm` runs it:
//
//	chatbench -upstream 127.0.0.1:9000
//	chatbench straight=http://127.0.0.1:9000 penstock=http://127.0.0.1:8080
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/penstock-io/penstock/internal/bench"
)

// pieces is how many pieces of text the instant model answers with.
const pieces = 10

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chatbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("chatbench", flag.ContinueOnError)
	flags.SetOutput(out)
	upstream := flags.String("upstream", "", "serve the instant model server at this host:port, and measure nothing")
	model := flags.String("model", "instant", "the model to ask for")
	key := flags.String("key", "", "API key")
	trips := flags.Int("trips", 600, "requests of each server at each concurrency, at least")
	rounds := flags.Int("rounds", 3, "the servers take turns so often")
	if err := flags.Parse(args); err != nil {
		return err //nolint:wrapcheck // it says what is wrong with which flag
	}
	if *upstream != "" {
		return serve(ctx, *upstream)
	}
	opt := bench.Options{Concurrency: []int{1, 50}, Trips: *trips, Rounds: *rounds}
	var all []bench.Contender
	for _, arg := range flags.Args() {
		name, url, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q: a server is NAME=URL", arg)
		}
		s := bench.NewServer(url, *key, 50)
		defer s.Close()
		all = append(all, bench.Contender{Name: name, Trip: s.FirstChatToken(*model)})
	}
	if len(all) == 0 {
		return errors.New("no server to measure: give NAME=URL")
	}
	return measure(ctx, all, opt, out)
}

// measure prints a table; the ratios are those of the last contender to each of
// the others: how many times quicker to the first token, how many times the
// requests.
func measure(ctx context.Context, all []bench.Contender, opt bench.Options, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0) // its errors come with Flush
	_, _ = fmt.Fprintln(table, "AT A TIME\tSERVER\tFIRST TOKEN P50\tP99\tRATE\tLAST ONE QUICKER\tMORE REQUESTS")
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	err := bench.Turns(ctx, all, opt, func(concurrency int, samples []bench.Sample) {
		last := &samples[len(samples)-1]
		for i := range samples {
			s := &samples[i]
			_, _ = fmt.Fprintf(table, "%d\t%s\t%.2f ms\t%.2f ms\t%.0f/s\t%.2f times\t%.2f times\n", concurrency, all[i].Name,
				ms(s.Percentile(.5)), ms(s.Percentile(.99)), s.PerSecond(),
				ms(s.Percentile(.5))/ms(last.Percentile(.5)), last.PerSecond()/s.PerSecond())
		}
	})
	return errors.Join(err, table.Flush())
}

func serve(ctx context.Context, addr string) error {
	server := &http.Server{Addr: addr, Handler: bench.InstantUpstream(pieces), ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve at %s: %w", addr, err)
	}
	return nil
}
