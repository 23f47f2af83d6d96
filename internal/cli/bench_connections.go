package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/internal/bench"
)

// BenchConnectionsCmd measures what connections cost that wait.
type BenchConnectionsCmd struct {
	ClientFlags
	Metrics     string        `default:"http://127.0.0.1:9090" placeholder:"URL" help:"The server's --metrics-listen: its memory is read there. Start the server anew for each kind, since what it once had is not given back at once."`
	Kind        string        `default:"ws" enum:"ws,ws-watching,sse,sse-http2" help:"What is opened: ${enum}; ws-watching has one subscription, sse-http2 shares connections, 250 streams on each."`
	Connections int           `default:"10000" help:"Connections that are held at once."`
	AtATime     int           `default:"50" help:"Connections that are opened at once."`
	Partitions  int32         `default:"12" help:"Partitions of the token topic, which they watch by turns."`
	Hold        time.Duration `default:"10s" help:"How long they are held before the memory is read."`
}

// connectionsRow is the result, sizes in bytes.
type connectionsRow struct {
	Kind             string  `json:"kind"`
	Connections      int     `json:"connections"`
	OpenedPerSecond  float64 `json:"opened_per_second"`
	ResidentEach     float64 `json:"resident_each"`
	HeapEach         float64 `json:"heap_each"`
	StackEach        float64 `json:"stack_each"`
	ResidentBefore   int64   `json:"resident_before"`
	ResidentHeld     int64   `json:"resident_held"`
	ResidentAfter    int64   `json:"resident_after"`
	GoroutinesBefore int     `json:"goroutines_before"`
	GoroutinesHeld   int     `json:"goroutines_held"`
	GoroutinesAfter  int     `json:"goroutines_after"`
	BackMS           int64   `json:"back_ms"` // until the goroutines were gone
}

// Run implements the command.
func (c *BenchConnectionsCmd) Run(ctx context.Context, sys *System) error {
	if c.Connections < 1 || c.AtATime < 1 || c.Partitions < 1 {
		return usagef("--connections, --at-a-time and --partitions must be 1 or more")
	}
	fmt.Fprintf(sys.Stderr, "%d connections are opened, and held for %s.\n", c.Connections, c.Hold)
	server := bench.NewServer(c.Server, c.APIKey, 2)
	defer server.Close()
	m, err := server.MeasureConnections(ctx, bench.ConnectionsOptions{
		Kind: c.Kind, N: c.Connections, AtATime: c.AtATime, Partitions: c.Partitions, Hold: c.Hold, Listener: c.Metrics,
	})
	if err != nil {
		return err //nolint:wrapcheck // it says that it is bench's
	}
	row := connectionsRow{
		Kind: m.Kind, Connections: m.N, OpenedPerSecond: float64(m.N) / m.Opening.Seconds(),
		ResidentEach:   m.Each(func(p *bench.Process) int64 { return p.Resident }),
		HeapEach:       m.Each(func(p *bench.Process) int64 { return p.Heap }),
		StackEach:      m.Each(func(p *bench.Process) int64 { return p.Stacks }),
		ResidentBefore: m.Before.Resident, ResidentHeld: m.Held.Resident, ResidentAfter: m.After.Resident,
		GoroutinesBefore: m.Before.Goroutines, GoroutinesHeld: m.Held.Goroutines, GoroutinesAfter: m.After.Goroutines,
		BackMS: m.Back.Milliseconds(),
	}
	if c.Output != asTable {
		return writeJSON(sys.Stdout, c.Output, row)
	}
	kb := func(b float64) string { return strconv.FormatFloat(b/1024, 'f', 1, 64) + " KiB" }
	mb := func(b int64) string { return strconv.FormatInt(b>>20, 10) + " MiB" }
	table(sys.Stdout, []string{"KIND", "HELD", "OPENED", "RESIDENT EACH", "HEAP EACH", "STACK EACH", "RESIDENT BEFORE / HELD / AFTER", "GOROUTINES", "BACK AFTER"}, [][]string{{
		row.Kind, strconv.Itoa(row.Connections), strconv.FormatFloat(row.OpenedPerSecond, 'f', 0, 64) + "/s",
		kb(row.ResidentEach), kb(row.HeapEach), kb(row.StackEach),
		mb(row.ResidentBefore) + " / " + mb(row.ResidentHeld) + " / " + mb(row.ResidentAfter),
		fmt.Sprintf("%d / %d / %d", row.GoroutinesBefore, row.GoroutinesHeld, row.GoroutinesAfter),
		m.Back.Round(time.Millisecond).String(),
	}})
	return nil
}
