package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/internal/app"
	"github.com/penstock-io/penstock/internal/bench"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// BenchTasksCmd measures tasks a second.
type BenchTasksCmd struct {
	Kafka    []string        `setting:"" default:"127.0.0.1:9092" placeholder:"HOST:PORT" help:"Bootstrap addresses of Kafka."`
	Postgres string          `setting:"" secret:"" placeholder:"URL" required:"" help:"PostgreSQL, on which a database is made for the run."`
	Tasks    int             `default:"200000" help:"Tasks of each kind, in each round."`
	Rounds   int             `default:"3" help:"The two kinds take turns so often."`
	Latency  []time.Duration `placeholder:"TIME" help:"Measure work that takes so long, such as 10ms,50ms,100ms, in place of tasks that cost nothing."`
	InFlight int             `name:"in-flight" default:"1000" help:"Calls at once, of work that takes some time."`
	Seconds  int             `default:"10" help:"How long work that takes some time goes on, at its ideal rate."`
	Lane     event.Lane      `default:"standard" help:"The tasks' lane."`
	Stream   bool            `help:"Write the tasks' tokens as they come, as of watched jobs."`
	Listen   string          `default:"127.0.0.1:0" placeholder:"HOST:PORT" help:"Where the Penstock that is measured serves HTTP."`
	Metrics  string          `name:"metrics-listen" placeholder:"HOST:PORT" help:"A listener for its metrics and profiles."`
	Keep     bool            `help:"Leave topics and database behind."`
	Output   format          `short:"o" enum:"table,json,jsonl" default:"table" help:"How to write the result: table, json or jsonl."`
}

// taskRow is one line of the result.
type taskRow struct {
	Kind      string  `json:"kind"` // "bare" or "penstock"
	Round     int     `json:"round,omitzero"`
	Latency   string  `json:"latency,omitzero"`
	InFlight  int     `json:"in_flight,omitzero"`
	Tasks     int     `json:"tasks"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	Middle    float64 `json:"middle_per_second,omitzero"` // the same between a tenth of the tasks and nine tenths
	CPU       float64 `json:"cpu_us"`                     // of this process, a task
	Of        float64 `json:"of,omitzero"`                // the share of the bare loop's rate; of the ideal one, by the middle
}

// Run implements the command.
func (c *BenchTasksCmd) Run(ctx context.Context, sys *System, common *Common) error {
	if c.Tasks < 1 || c.Rounds < 1 || c.InFlight < 1 || c.Seconds < 1 {
		return usagef("--tasks, --rounds, --in-flight and --seconds must be 1 or more")
	}
	for _, d := range c.Latency {
		if d < time.Millisecond {
			return usagef("--latency: %s: it must be 1ms or more", d)
		}
	}
	cfg := bench.TasksConfig{
		Kafka: c.Kafka, Postgres: c.Postgres, Tasks: c.Tasks, Lane: c.Lane,
		Keep: c.Keep, Stream: c.Stream, Log: common.logger(sys),
	}
	cfg.Penstock = c.penstock(cfg.Log, 0)
	measure := c.besideBare
	if len(c.Latency) > 0 {
		measure = c.slowWork
	}
	rows, err := measure(ctx, sys, cfg)
	if err != nil {
		return err
	}
	return c.write(sys, rows)
}

// penstock makes the Penstock that is measured; inFlight 0 is its default.
func (c *BenchTasksCmd) penstock(log *slog.Logger, inFlight int) func(bench.Deployment) (bench.Penstock, error) {
	calls := inFlight * 1024 / 1000 // some are reserved for the other lanes
	return func(d bench.Deployment) (bench.Penstock, error) {
		a, err := app.New(app.Config{
			Kafka: d.Kafka, Topics: d.Topics, Postgres: d.Postgres, Listen: c.Listen, MetricsListen: c.Metrics,
			Apply: true, Simulated: true, Work: engine.Config{MaxInFlight: calls},
		}, log)
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		return a, nil
	}
}

func (c *BenchTasksCmd) besideBare(ctx context.Context, sys *System, cfg bench.TasksConfig) ([]taskRow, error) {
	var rows []taskRow
	for round := range c.Rounds {
		plain, err := bench.BareTasks(ctx, cfg)
		if err != nil {
			return nil, err //nolint:wrapcheck // it says that it is bench's
		}
		ours, err := bench.Tasks(ctx, cfg)
		if err != nil {
			return nil, err //nolint:wrapcheck // as above
		}
		fmt.Fprintf(sys.Stderr, "measured round %d of %d\n", round+1, c.Rounds)
		a, b := rowOfTasks("bare", plain), rowOfTasks("penstock", ours)
		a.Round, b.Round, b.Of = round+1, round+1, ours.PerSecond()/plain.PerSecond()
		rows = append(rows, a, b)
	}
	return rows, nil
}

func (c *BenchTasksCmd) slowWork(ctx context.Context, sys *System, cfg bench.TasksConfig) ([]taskRow, error) {
	var rows []taskRow
	for _, d := range c.Latency {
		ideal := float64(c.InFlight) / d.Seconds()
		cfg.Model, cfg.Tasks = "sim:tokens=1,gap=0s,ttft="+d.String(), int(ideal)*c.Seconds
		cfg.Penstock = c.penstock(cfg.Log, c.InFlight)
		run, err := bench.Tasks(ctx, cfg)
		if err != nil {
			return nil, err //nolint:wrapcheck // it says that it is bench's
		}
		fmt.Fprintf(sys.Stderr, "measured work of %s\n", d)
		r := rowOfTasks("penstock", run)
		r.Latency, r.InFlight, r.Of = d.String(), c.InFlight, run.Middle/ideal
		rows = append(rows, r)
	}
	return rows, nil
}

func rowOfTasks(kind string, r bench.TaskRun) taskRow {
	return taskRow{
		Kind: kind, Tasks: r.Tasks, Seconds: r.Elapsed.Seconds(), PerSecond: r.PerSecond(), Middle: r.Middle,
		CPU: float64(r.CPU.Microseconds()) / float64(r.Tasks),
	}
}

func (c *BenchTasksCmd) write(sys *System, rows []taskRow) error {
	if c.Output != asTable {
		for _, r := range rows {
			if err := writeJSON(sys.Stdout, c.Output, r); err != nil {
				return err
			}
		}
		return nil
	}
	first, of := "ROUND", "OF BARE"
	if len(c.Latency) > 0 {
		first, of = "WORK OF", "OF IDEAL, MIDDLE"
	}
	rate := func(v float64) string {
		if v == 0 {
			return ""
		}
		return strconv.FormatFloat(v, 'f', 0, 64) + "/s"
	}
	cells := make([][]string, len(rows))
	for i, r := range rows {
		share := ""
		if r.Of > 0 {
			share = strconv.FormatFloat(100*r.Of, 'f', 1, 64) + "%"
		}
		what := r.Latency
		if what == "" {
			what = strconv.Itoa(r.Round)
		}
		cells[i] = []string{
			what, r.Kind, strconv.Itoa(r.Tasks), strconv.FormatFloat(r.Seconds, 'f', 2, 64) + " s",
			rate(r.PerSecond), rate(r.Middle), share, strconv.FormatFloat(r.CPU, 'f', 0, 64) + " µs",
		}
	}
	table(sys.Stdout, []string{first, "LOOP", "TASKS", "TOOK", "RATE", "MIDDLE", of, "CPU A TASK"}, cells)
	fmt.Fprintln(sys.Stdout, "RATE is from the first request that is read to the last row; MIDDLE leaves out the first tenth of the tasks and the last. CPU is of this process alone.")
	return nil
}
