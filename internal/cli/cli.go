// Package cli is the command line: it reads flags, environment and configuration
// file, and does what a command says. A command's result goes to stdout,
// everything about it to stderr.
//
// The package has no state: Run gets all that it touches in a System. A command
// waits for whatever goroutine it starts.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// System is what a command touches of the world around it.
type System struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Env            func(name string) (value string, set bool)
	// Name is how the program was called, for lines to copy; "" is penstock.
	Name string
	// Started, where set, is told the address of the HTTP listener that a command
	// serves on, once it serves.
	Started func(addr string)
}

// terminal tells whether a person looks at w.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// commands is the grammar of the command line.
type commands struct {
	Common

	Dev     DevCmd     `cmd:"" help:"Run everything in one process: an embedded broker, a private PostgreSQL, simulated models."`
	Run     RunCmd     `cmd:"" help:"Run a production process."`
	Topic   TopicCmd   `cmd:"" help:"Look at the topics, make them, follow one."`
	Job     JobCmd     `cmd:"" help:"Submit jobs, look at them, follow one."`
	Dead    DeadCmd    `cmd:"" help:"Look at the records that were refused, and write them back."`
	Migrate MigrateCmd `cmd:"" help:"Bring the database's schema up to date."`
	Health  HealthCmd  `cmd:"" help:"Ask a process how it and its parts are; fails unless all are ready."`
	Bench   BenchCmd   `cmd:"" help:"Measure a running deployment, beside what bare Kafka costs."`
	Doctor  DoctorCmd  `cmd:"" help:"Say what is wrong with a deployment, why, and what to do."`
	Config  ConfigCmd  `cmd:"" help:"Print the configuration that is in force, and where each value is from."`
	Version VersionCmd `cmd:"" help:"Print which build this is."`
}

// Common is what every command understands.
type Common struct {
	ConfigFile configFile `name:"config" placeholder:"FILE" help:"YAML file with settings, by the names of the flags."`
	LogLevel   string     `setting:"" default:"info" enum:"debug,info,warn,error" help:"Least level that is logged: ${enum}; dev begins at warn, topic and dead at error."`
	LogFormat  string     `setting:"" default:"auto" enum:"auto,text,json" help:"How log lines are written: ${enum}; auto is text on a terminal, else json."`
}

// usageError is wrong use: it exits with 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (e usageError) Unwrap() error { return e.error }

// errSilent fails a command that has said why already.
var errSilent = errors.New("failed")

// exit ends parsing early, after --help.
type exit int

// Run does what args say and returns the process's exit code: 0 done, 1 failed,
// 2 wrong use. When ctx ends, what was started is stopped in order.
func Run(ctx context.Context, args []string, sys System) (code int) {
	defer func() {
		if e := recover(); e != nil {
			done, ok := e.(exit)
			if !ok {
				panic(e)
			}
			code = int(done)
		}
	}()
	var cmd commands
	set := newSettings(sys.Env)
	parser, err := kong.New(&cmd,
		kong.Name("penstock"),
		kong.Description("LLM work as events on Kafka.\n\nFlags go before environment variables (PENSTOCK_ and the flag's name), those before the file of --config."),
		kong.Writers(sys.Stdout, sys.Stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.ValueFormatter(helpOf),
		kong.Resolvers(set),
		kong.Bind(set, &cmd.Common),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&sys),
	)
	if err != nil {
		panic("cli: the grammar is wrong: " + err.Error())
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if file, ok := errors.AsType[fileError](err); ok {
		fmt.Fprintf(sys.Stderr, "penstock: %v\n", file)
		return exitUsage
	}
	if err != nil {
		fmt.Fprintf(sys.Stderr, "penstock: %v\n", err)
		if perr, ok := errors.AsType[*kong.ParseError](err); ok && perr.Context != nil {
			fmt.Fprintf(sys.Stderr, "See `%s --help`.\n", commandOf(perr.Context))
		}
		return exitUsage
	}
	err = parsed.Run()
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errSilent):
		return exitFailed
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(sys.Stderr, "penstock: interrupted")
		return exitFailed
	}
	fmt.Fprintf(sys.Stderr, "penstock: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// commandOf is the command as far as it was understood.
func commandOf(c *kong.Context) string {
	name := []string{"penstock"}
	for _, p := range c.Path {
		if p.Command != nil {
			name = append(name, p.Command.Name)
		}
	}
	return strings.Join(name, " ")
}
