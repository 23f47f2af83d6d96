// Command gotest is what `make test` runs: go vet, then go test under the race
// detector, and after it the share of statements that the whole run has
// executed, over all packages.
//
//	gotest [-min 90] [-out .build] [package ...]
//
// The output is go test's own, as it comes. Three things fail the run: what go
// vet or go test calls a failure, a test that was skipped (a service that a test
// wants is started or the test fails), and coverage below -min.
//
// Whole processes count too: a test that builds a program with
// `go build -cover -coverpkg=./...` and runs it with GOCOVERDIR set to
// $PENSTOCK_COVERDIR has its statements counted, provided that the process ends
// in good order. The denominator is every statement of every package that the
// patterns name, tests' helpers and commands included.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// coverDirVar names, to the tests, where the programs that they start are to
// leave their coverage.
const coverDirVar = "PENSTOCK_COVERDIR"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

// config is what the command line says.
type config struct {
	minimum  float64 // percent of statements
	out      string  // directory for profiles
	timeout  time.Duration
	packages []string
	report   bool
}

// units is the profile that the test binaries write.
func (c config) units() string { return filepath.Join(c.out, "cover-units.txt") }

// processes is where the programs under test write theirs.
func (c config) processes() string { return filepath.Join(c.out, "cover-processes") }

// total is the profile of both.
func (c config) total() string { return filepath.Join(c.out, "cover.txt") }

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("gotest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Float64Var(&c.minimum, "min", 90, "the least statement coverage, in percent")
	flags.StringVar(&c.out, "out", ".build", "directory for the coverage profiles")
	flags.DurationVar(&c.timeout, "timeout", 8*time.Minute, "the longest that one package's tests may take")
	flags.BoolVar(&c.report, "report", false, "run nothing, print the last run's coverage by package")
	if err := flags.Parse(args); err != nil {
		return config{}, fmt.Errorf("command line: %w", err)
	}
	c.packages = flags.Args()
	if len(c.packages) == 0 {
		c.packages = []string{"./..."}
	}
	out, err := filepath.Abs(c.out)
	if err != nil {
		return config{}, fmt.Errorf("find -out: %w", err)
	}
	c.out = out
	return c, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if c.report {
		covered, err := readProfiles(c.total())
		if err != nil {
			return fmt.Errorf("no coverage to report, run the tests first: %w", err)
		}
		covered.printPackages(stdout)
		return nil
	}
	if err := goCommand(ctx, stdout, stderr, append([]string{"vet"}, c.packages...)...); err != nil {
		return err
	}
	// What an earlier run left must not count for this one.
	if err := errors.Join(os.RemoveAll(c.units()), os.RemoveAll(c.total()), os.RemoveAll(c.processes()), os.MkdirAll(c.processes(), 0o750)); err != nil {
		return fmt.Errorf("make room for coverage: %w", err)
	}
	failed := goTest(ctx, c, stdout, stderr)
	covered, err := collect(ctx, c)
	if err != nil {
		return errors.Join(failed, err)
	}
	percent := covered.percent()
	_, err = fmt.Fprintf(stdout, "total statement coverage: %.1f%%\n", percent)
	if percent < c.minimum {
		covered.printPackages(stdout)
		failed = errors.Join(failed, fmt.Errorf("statement coverage %.2f%% is below %.2f%%", percent, c.minimum))
	}
	return errors.Join(failed, err, covered.write(c.total()))
}

// goTest runs the tests, prints what go test would, and fails if one failed or
// was skipped.
func goTest(ctx context.Context, c config, stdout, stderr io.Writer) error {
	args := []string{
		"test", "-json", "-race", "-timeout", c.timeout.String(), "-covermode=atomic",
		"-coverpkg=" + strings.Join(c.packages, ","), "-coverprofile=" + c.units(),
	}
	cmd := exec.CommandContext(ctx, "go", append(args, c.packages...)...) //nolint:gosec // The caller's own tests.
	cmd.Env = append(os.Environ(), coverDirVar+"="+c.processes())
	results := newPrinter(stdout)
	cmd.Stdout, cmd.Stderr = results, stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("go test: %w", err)
	}
	return errors.Join(err, results.close())
}

// collect joins the coverage of the tests with that of the processes that they
// started.
func collect(ctx context.Context, c config) (profile, error) {
	paths := []string{c.units()}
	entries, err := os.ReadDir(c.processes())
	if err != nil {
		return nil, fmt.Errorf("read the coverage of processes: %w", err)
	}
	if len(entries) > 0 {
		text := c.processes() + ".txt"
		var complaint strings.Builder
		if err := goCommand(ctx, &complaint, &complaint, "tool", "covdata", "textfmt", "-i="+c.processes(), "-o="+text); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, complaint.String())
		}
		paths = append(paths, text)
	}
	return readProfiles(paths...)
}

func goCommand(ctx context.Context, stdout, stderr io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // The callers' own words.
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w", args[0], err)
	}
	return nil
}
