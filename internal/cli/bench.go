package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/internal/bench"
	"github.com/penstock-io/penstock/internal/kafka/bare"
)

// BenchCmd measures a running deployment.
type BenchCmd struct {
	TTFT        BenchTTFTCmd        `cmd:"" name:"ttft" help:"Time to the first token of an instant model, over HTTP and over WebSockets, beside the bare Kafka trip."`
	Connections BenchConnectionsCmd `cmd:"" help:"What connections that wait cost the server in memory."`
	Tasks       BenchTasksCmd       `cmd:"" help:"Tasks a second of a Penstock of its own, beside the bare task loop."`
	Streams     BenchStreamsCmd     `cmd:"" help:"Tokens of many jobs to as many WebSockets, from their append to their receipt."`
}

// BenchTTFTCmd measures the time from a request to its first token.
type BenchTTFTCmd struct {
	ClientFlags
	Kafka       []string `setting:"" default:"127.0.0.1:9092" placeholder:"HOST:PORT" help:"Bootstrap addresses of the deployment's Kafka."`
	Concurrency []int    `default:"1,16,100" placeholder:"N" help:"Requests at a time; each is measured by itself."`
	Trips       int      `default:"3000" help:"Requests of each kind at each concurrency, at least."`
	Rounds      int      `default:"3" help:"The kinds take turns so often."`
}

// ttftRow is one line of the result, times in microseconds.
type ttftRow struct {
	Concurrency int     `json:"concurrency"`
	Trip        string  `json:"trip"` // one of the three names below
	Trips       int     `json:"trips"`
	P50         float64 `json:"p50_us"`
	P90         float64 `json:"p90_us"`
	P99         float64 `json:"p99_us"`
	Max         float64 `json:"max_us"`
	PerSecond   float64 `json:"per_second"`
	RatioP50    float64 `json:"ratio_p50,omitzero"` // ours over bare
	RatioP99    float64 `json:"ratio_p99,omitzero"`
}

// The trips that are measured beside each other.
const (
	tripBare   = "bare"
	tripHTTP   = "penstock"
	tripSocket = "penstock-websocket"
)

func rowOf(trip string, s *bench.Sample) ttftRow {
	us := func(p float64) float64 { return float64(s.Percentile(p)) / float64(time.Microsecond) }
	return ttftRow{
		Concurrency: s.Concurrency, Trip: trip, Trips: len(s.Times),
		P50: us(.5), P90: us(.9), P99: us(.99), Max: us(1), PerSecond: s.PerSecond(),
	}
}

// Run implements the command.
func (c *BenchTTFTCmd) Run(ctx context.Context, sys *System) error {
	most := 0
	for _, n := range c.Concurrency {
		if n < 1 {
			return usagef("--concurrency: %d: it must be 1 or more", n)
		}
		most = max(most, n)
	}
	if c.Rounds < 1 || c.Trips < c.Rounds {
		return usagef("--trips: %d in %d rounds: at least one a round is needed", c.Trips, c.Rounds)
	}
	name := "bench." + strconv.FormatInt(time.Now().UnixNano(), 36)
	trips, err := bare.Start(ctx, c.Kafka, name)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer trips.Close(ctx)
	server := bench.NewServer(c.Server, c.APIKey, most)
	defer server.Close()
	all := []bench.Contender{
		{Name: tripBare, Trip: trips.Trip},
		{Name: tripHTTP, Trip: server.TimeToFirstToken},
		{Name: tripSocket, Trip: server.TimeToFirstTokenOverSocket},
	}
	var rows []ttftRow
	err = bench.Turns(ctx, all, bench.Options{
		Concurrency: c.Concurrency, Trips: c.Trips, Rounds: c.Rounds,
	}, func(concurrency int, samples []bench.Sample) {
		fmt.Fprintf(sys.Stderr, "measured %d at a time\n", concurrency)
		for i := range samples {
			row := rowOf(all[i].Name, &samples[i])
			if i > 0 {
				row.RatioP50, row.RatioP99 = bench.Ratio(&samples[i], &samples[0], .5), bench.Ratio(&samples[i], &samples[0], .99)
			}
			rows = append(rows, row)
		}
	})
	if err != nil {
		return err //nolint:wrapcheck // it says that it is bench's
	}
	return c.write(sys, rows)
}

func (c *BenchTTFTCmd) write(sys *System, rows []ttftRow) error {
	if c.Output != asTable {
		for _, r := range rows {
			if err := writeJSON(sys.Stdout, c.Output, r); err != nil {
				return err
			}
		}
		return nil
	}
	ms := func(us float64) string { return strconv.FormatFloat(us/1000, 'f', 2, 64) + " ms" }
	cells := make([][]string, len(rows))
	for i, r := range rows {
		ratio := ""
		if r.RatioP50 > 0 {
			ratio = fmt.Sprintf("%.2f / %.2f", r.RatioP50, r.RatioP99)
		}
		cells[i] = []string{
			strconv.Itoa(r.Concurrency), r.Trip, ms(r.P50), ms(r.P90), ms(r.P99), ms(r.Max),
			strconv.FormatFloat(r.PerSecond, 'f', 0, 64) + "/s", ratio,
		}
	}
	table(sys.Stdout, []string{"AT A TIME", "TRIP", "P50", "P90", "P99", "MAX", "RATE", "RATIO P50 / P99"}, cells)
	return nil
}
