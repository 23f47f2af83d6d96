package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/internal/bench"
	"github.com/penstock-io/penstock/internal/bench/tally"
)

// BenchStreamsCmd measures how tokens get to those who watch.
type BenchStreamsCmd struct {
	ClientFlags
	Streams  int           `default:"2000" help:"Jobs that stream at once; the server needs --max-in-flight of more."`
	Watchers int           `default:"1" help:"Watchers of each job, every one on a WebSocket of its own."`
	Rate     int           `default:"50" help:"Tokens a second of each job, of a simulated model."`
	Warm     time.Duration `default:"10s" help:"How long they stream before anything is counted; they begin within half of it."`
	Measure  time.Duration `default:"10s" help:"How long is counted."`
}

// streamsRow is the result.
type streamsRow struct {
	Streams         int     `json:"streams"`
	Watchers        int     `json:"watchers"`
	Offered         float64 `json:"offered_per_second"`
	TokensPerSecond float64 `json:"tokens_per_second"` // delivered
	TokensPerEvent  float64 `json:"tokens_per_event"`
	EventsPerFrame  float64 `json:"events_per_frame"`
	P50             float64 `json:"p50_ms"` // from append to receipt
	P90             float64 `json:"p90_ms"`
	P99             float64 `json:"p99_ms"`
	Max             float64 `json:"max_ms"`
	OldestP50       float64 `json:"oldest_token_p50_ms"` // from when the model was to say it
	OldestP99       float64 `json:"oldest_token_p99_ms"`
}

// Run implements the command.
func (c *BenchStreamsCmd) Run(ctx context.Context, sys *System) error {
	const fastest = 1000 // a model's name has milliseconds at the least
	if c.Streams < 1 || c.Watchers < 1 || c.Rate < 1 || c.Rate > fastest || c.Measure <= 0 || c.Warm <= 0 {
		return usagef("--streams and --watchers must be 1 or more, --rate 1 to %d, --warm and --measure above 0", fastest)
	}
	fmt.Fprintf(sys.Stderr, "%d jobs stream to %d watchers each; what comes after %s is counted, for %s.\n", c.Streams, c.Watchers, c.Warm, c.Measure)
	server := bench.NewServer(c.Server, c.APIKey, c.Streams)
	defer server.Close()
	s, err := server.MeasureStreams(ctx, bench.StreamsOptions{
		Streams: c.Streams, Watchers: c.Watchers, Rate: c.Rate, Warm: c.Warm, Measure: c.Measure,
	})
	if err != nil {
		return err //nolint:wrapcheck // it says that it is bench's
	}
	ms := func(d *tally.Delays, p float64) float64 { return float64(d.Percentile(p)) / float64(time.Millisecond) }
	row := streamsRow{
		Streams: c.Streams, Watchers: c.Watchers, Offered: float64(c.Streams * c.Watchers * c.Rate),
		TokensPerSecond: s.TokensPerSecond(), TokensPerEvent: float64(s.Tokens.Load()) / float64(max(s.Events.Load(), 1)),
		EventsPerFrame: float64(s.Events.Load()) / float64(max(s.Pieces.Load(), 1)),
		P50:            ms(&s.Delays, .5), P90: ms(&s.Delays, .9), P99: ms(&s.Delays, .99), Max: ms(&s.Delays, 1),
		OldestP50: ms(&s.Ages, .5), OldestP99: ms(&s.Ages, .99),
	}
	if c.Output != asTable {
		return writeJSON(sys.Stdout, c.Output, row)
	}
	number := func(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }
	table(sys.Stdout, []string{"STREAMS", "WATCHERS EACH", "OFFERED", "DELIVERED", "TOKENS AN EVENT", "EVENTS A FRAME", "P50", "P90", "P99", "OLDEST TOKEN P50", "P99"}, [][]string{{
		strconv.Itoa(row.Streams), strconv.Itoa(row.Watchers), number(row.Offered, 0) + " tokens/s", number(row.TokensPerSecond, 0) + " tokens/s",
		number(row.TokensPerEvent, 2), number(row.EventsPerFrame, 2), number(row.P50, 1) + " ms", number(row.P90, 1) + " ms", number(row.P99, 1) + " ms",
		number(row.OldestP50, 1) + " ms", number(row.OldestP99, 1) + " ms",
	}})
	return nil
}
