// Command gotest is what `make test` runs: go vet, then go test under the race
// detector, and after it the share of statements that the whole run has
// executed, over all packages.
//
//	gotest [-min 90] [-out .build] [-first packages] [-norace packages] [package ...]
//
// go test starts packages in the order in which they are named, a core each, so
// those that take longest are best begun first: -first names them. Those that
// -norace names are pure searches in one goroutine. They are tested without the
// race detector, which has nothing to find there and makes them ten times as slow,
// and before all others.
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
	"slices"
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
	first    []string
	norace   []string
	report   bool
}

// units is the profile that the test binaries write.
func (c config) units() string { return filepath.Join(c.out, "cover-units.txt") }

// pure is the profile of those that are not watched for races.
func (c config) pure() string { return filepath.Join(c.out, "cover-pure.txt") }

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
	flags.Var((*list)(&c.first), "first", "packages to begin with, by commas")
	flags.Var((*list)(&c.norace), "norace", "packages to test without the race detector, by commas")
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

// list is a flag of names by commas.
type list []string

// String implements flag.Value.
func (l *list) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *list) Set(text string) error {
	*l = strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
	return nil
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
	for _, left := range []string{c.units(), c.pure(), c.total(), c.processes()} {
		if err := os.RemoveAll(left); err != nil {
			return fmt.Errorf("make room for coverage: %w", err)
		}
	}
	if err := os.MkdirAll(c.processes(), 0o750); err != nil {
		return fmt.Errorf("make room for coverage: %w", err)
	}
	profiles, failed := goTests(ctx, c, stdout, stderr)
	covered, err := collect(ctx, c, profiles)
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

// goTests runs all tests, and names the profiles that they wrote.
func goTests(ctx context.Context, c config, stdout, stderr io.Writer) (profiles []string, failed error) {
	raced, pure, err := c.order(ctx)
	if err != nil {
		return nil, err
	}
	if len(pure) > 0 {
		profiles = append(profiles, c.pure())
		how := []string{"-covermode=set", "-coverprofile=" + c.pure()}
		failed = goTest(ctx, c, append(how, pure...), stdout, stderr)
	}
	if len(raced) > 0 {
		profiles = append(profiles, c.units())
		how := []string{"-race", "-covermode=atomic", "-coverprofile=" + c.units()}
		failed = errors.Join(failed, goTest(ctx, c, append(how, raced...), stdout, stderr))
	}
	return profiles, failed
}

// order is the packages that are watched for races, those to begin with before
// the others, and those that are not.
func (c config) order(ctx context.Context) (raced, pure []string, err error) {
	all, err := goList(ctx, c.packages)
	if err != nil {
		return nil, nil, err
	}
	first, err := goList(ctx, c.first)
	if err != nil {
		return nil, nil, err
	}
	norace, err := goList(ctx, c.norace)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range all {
		if slices.Contains(norace, name) {
			pure = append(pure, name)
		} else if !slices.Contains(first, name) {
			raced = append(raced, name)
		}
	}
	first = slices.DeleteFunc(first, func(name string) bool { return !slices.Contains(all, name) || slices.Contains(norace, name) })
	return append(first, raced...), pure, nil
}

// goList finds the packages that patterns name, in the patterns' order.
func goList(ctx context.Context, patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	var names, complaint strings.Builder
	if err := goCommand(ctx, &names, &complaint, append([]string{"list"}, patterns...)...); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, complaint.String())
	}
	return strings.Fields(names.String()), nil
}

// goTest runs go test with more arguments, prints what it would, and fails if a
// test failed or was skipped.
func goTest(ctx context.Context, c config, more []string, stdout, stderr io.Writer) error {
	args := []string{"test", "-json", "-timeout", c.timeout.String(), "-coverpkg=" + strings.Join(c.packages, ",")}
	cmd := exec.CommandContext(ctx, "go", append(args, more...)...) //nolint:gosec // The caller's own tests.
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
func collect(ctx context.Context, c config, paths []string) (profile, error) {
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
