package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/cli/client"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// maxLine bounds a line of a file of jobs, in bytes.
const maxLine = 16 << 20

// SubmitCmd submits jobs.
type SubmitCmd struct {
	Prompt       []string      `arg:"" optional:"" help:"What to ask the model, in place of a file."`
	Model        string        `short:"m" placeholder:"NAME" help:"The model to ask, such as sim."`
	Lane         string        `enum:",interactive,standard,batch" default:"" placeholder:"LANE" help:"The prompt's lane: interactive, standard or batch."`
	Conversation string        `placeholder:"ID" help:"The prompt's conversation."`
	NoStream     bool          `name:"no-stream" help:"Do not write the prompt's answer as it comes: its only event is its end, which has all of it."`
	File         string        `short:"f" placeholder:"FILE" help:"A file of JSON lines, each the body of a POST /v1/jobs; - is stdin."`
	Wait         bool          `xor:"until" help:"Wait for each job's end."`
	Follow       bool          `xor:"until" help:"Write what each job says as it comes, one job after the other."`
	Concurrency  int           `default:"32" help:"Requests at once."`
	Patience     time.Duration `default:"30m" help:"How long a job waits for room, where its lane is full."`
	RunID        string        `name:"run-id" placeholder:"ID" help:"Names this run: the same file sent again under the same id submits nothing twice."`
	ClientFlags
}

// line is one job to be submitted.
type line struct {
	number int // from 1
	body   []byte
	size   int // of the input that it took
}

// result is what became of a line.
type result struct {
	line line
	job  *client.Job
	err  error
}

// failed tells whether the job was not submitted, or did not end well.
func (r *result) failed() bool {
	return r.err != nil || r.job.Status.Ended() && r.job.Status != job.Completed
}

// Run implements the command.
func (c *SubmitCmd) Run(ctx context.Context, sys *System) error {
	if err := c.check(); err != nil {
		return err
	}
	full := make(chan struct{}) // closed when a job waits for room
	told := func() { close(full) }
	if c.File == "" || c.Follow { // one goroutine, this one
		told = func() { c.tellFull(sys) }
	}
	cl, err := c.client(func(cfg *client.Config) { cfg.Patience, cfg.Full = c.Patience, sync.OnceFunc(told) })
	if err != nil {
		return err
	}
	defer cl.Close()
	if c.RunID == "" {
		var b [8]byte
		_, _ = rand.Read(b[:]) // it never fails
		c.RunID = hex.EncodeToString(b[:])
	}
	if c.File == "" {
		body, err := c.promptBody()
		if err != nil {
			return err
		}
		return c.single(ctx, sys, cl, line{number: 1, body: body})
	}
	in, total := sys.Stdin, int64(0)
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return usageError{err}
		}
		defer f.Close() //nolint:errcheck // it was only read
		if info, err := f.Stat(); err == nil {
			total = info.Size()
		}
		in = f
	}
	if c.Follow {
		return c.oneByOne(ctx, sys, cl, in)
	}
	return c.many(ctx, sys, cl, input{in, total, full})
}

func (c *SubmitCmd) check() error {
	switch {
	case c.File == "" && len(c.Prompt) == 0:
		return usagef(`nothing to submit: give a prompt, as in penstock job submit --model sim "hello", or JSON lines with --file`)
	case c.File != "" && (len(c.Prompt) > 0 || c.Model != "" || c.Lane != "" || c.Conversation != "" || c.NoStream):
		return usagef("a file's lines say all about their jobs: leave --model, --lane, --conversation, --no-stream and the prompt away")
	case c.File == "" && c.Model == "":
		return usagef("a prompt needs a model: --model sim, for one")
	case c.Concurrency < 1:
		return usagef("--concurrency must be 1 at least")
	}
	return nil
}

func (c *SubmitCmd) promptBody() ([]byte, error) {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	type chat struct {
		Model    string    `json:"model"`
		Messages []message `json:"messages"`
	}
	var stream *bool
	if c.NoStream {
		stream = new(false)
	}
	b, err := json.Marshal(struct {
		Lane         string `json:"lane,omitzero"`
		Conversation string `json:"conversation,omitzero"`
		Stream       *bool  `json:"stream,omitzero"`
		Body         chat   `json:"body"`
	}{c.Lane, c.Conversation, stream, chat{c.Model, []message{{"user", strings.Join(c.Prompt, " ")}}}})
	if err != nil {
		return nil, usagef("the prompt is no text: %w", err)
	}
	return b, nil
}

// key makes the same line of the same run the same job.
func (c *SubmitCmd) key(number int) string { return c.RunID + "-" + strconv.Itoa(number) }

func (c *SubmitCmd) submit(ctx context.Context, cl *client.Client, l line) result {
	r := result{line: l}
	r.job, r.err = cl.Submit(ctx, l.body, c.key(l.number))
	if r.err == nil && c.Wait {
		if ended, err := cl.Await(ctx, r.job.ID); err == nil {
			r.job = ended
		} else {
			r.err = fmt.Errorf("wait for %s: %w", r.job.ID, err)
		}
	}
	return r
}

// single submits one job and fails as it does.
func (c *SubmitCmd) single(ctx context.Context, sys *System, cl *client.Client, l line) error {
	r := c.submit(ctx, cl, l)
	if r.err != nil && r.job == nil {
		return advise(r.err)
	}
	if c.Follow {
		fmt.Fprintln(sys.Stderr, r.job.ID)
		t := teller{sys: sys, out: c.Output}
		return t.follow(ctx, cl, r.job.ID, client.Place{})
	}
	if err := c.write(sys.Stdout, &r); err != nil {
		return err
	}
	if r.failed() {
		return errSilent
	}
	return nil
}

// oneByOne submits and follows one job after the other.
func (c *SubmitCmd) oneByOne(ctx context.Context, sys *System, cl *client.Client, in io.Reader) error {
	failed := false
	err := eachLine(in, func(l line) error {
		err := c.single(ctx, sys, cl, l)
		if ctx.Err() != nil || errors.Is(err, client.ErrUnreachable) {
			return err
		}
		if err != nil {
			failed = true
			fmt.Fprintf(sys.Stderr, "penstock: line %d: %v\n", l.number, err)
		}
		return nil
	})
	if err == nil && failed {
		err = errSilent
	}
	return err
}

// tellFull says why nothing goes on.
func (c *SubmitCmd) tellFull(sys *System) {
	fmt.Fprintf(sys.Stderr, "penstock: a lane is full; each job waits for room, %s at most (--patience).\n", c.Patience)
}

// input is a file of jobs.
type input struct {
	io.Reader
	total int64           // bytes; 0: not known
	full  <-chan struct{} // closed when a job waits for room
}

// many submits a file's jobs, several at once.
func (c *SubmitCmd) many(ctx context.Context, sys *System, cl *client.Client, in input) error {
	began := time.Now()
	lines := make(chan line)
	results := make(chan result)
	work, workCtx := errgroup.WithContext(ctx)
	work.Go(func() error {
		defer close(lines)
		return eachLine(in, func(l line) error {
			select {
			case lines <- l:
				return nil
			case <-workCtx.Done():
				return workCtx.Err()
			}
		})
	})
	for range c.Concurrency {
		work.Go(func() error {
			for l := range lines {
				r := c.submit(workCtx, cl, l)
				if workCtx.Err() != nil {
					return workCtx.Err()
				}
				results <- r
				if errors.Is(r.err, client.ErrUnreachable) {
					return advise(r.err) // the others would fare no better
				}
			}
			return nil
		})
	}
	ended := make(chan error, 1)
	go func() {
		ended <- work.Wait()
		close(results)
	}()
	p := newProgress(sys.Stderr, in.total)
	var writeErr error
	for more := true; more; {
		select {
		case r, ok := <-results:
			if more = ok; !more {
				break
			}
			p.clear()
			writeErr = errors.Join(writeErr, c.write(sys.Stdout, &r))
			p.add(r.line.size, r.failed())
		case <-in.full:
			in.full = nil
			p.clear()
			c.tellFull(sys)
		}
	}
	p.clear()
	err := errors.Join(<-ended, writeErr)
	well := "submitted"
	if c.Wait {
		well = string(job.Completed)
	}
	fmt.Fprintf(sys.Stderr, "%d %s, %d failed, in %s.\n", p.done-p.failed, well, p.failed, time.Since(began).Round(time.Millisecond))
	if err == nil && p.failed > 0 {
		return errSilent
	}
	return err
}

// eachLine calls f for each line that is not empty.
func eachLine(in io.Reader, f func(line) error) error {
	scan := bufio.NewScanner(in)
	scan.Buffer(nil, maxLine)
	for number := 1; scan.Scan(); number++ {
		text := bytes.TrimSpace(scan.Bytes())
		if len(text) == 0 {
			continue
		}
		if err := f(line{number: number, body: bytes.Clone(text), size: len(scan.Bytes()) + 1}); err != nil {
			return err
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("read the jobs: %w", err)
	}
	return nil
}

// write writes one line about a line.
func (c *SubmitCmd) write(w io.Writer, r *result) error {
	if c.Output == asTable {
		switch {
		case r.err != nil:
			fmt.Fprintf(w, "%d\t-\terror\t%v\n", r.line.number, r.err)
		case r.job.Error != nil:
			fmt.Fprintf(w, "%d\t%s\t%s\t%s (%s)\n", r.line.number, r.job.ID, r.job.Status, r.job.Error.Message, r.job.Error.Code)
		default:
			fmt.Fprintf(w, "%d\t%s\t%s\n", r.line.number, r.job.ID, r.job.Status)
		}
		return nil
	}
	out := struct {
		Line  int            `json:"line"`
		Job   jsontext.Value `json:"job,omitzero"`
		Error jsontext.Value `json:"error,omitzero"`
	}{Line: r.line.number}
	if r.job != nil {
		out.Job = r.job.Raw
	}
	if r.err != nil {
		out.Error = errorObject(r.err)
	}
	return writeJSON(w, c.Output, out)
}

// errorObject is an error as the server wrote it, or in the same shape.
func errorObject(err error) jsontext.Value {
	if e, ok := errors.AsType[*client.Error](err); ok && e.Raw != nil {
		return e.Raw
	}
	raw, _ := json.Marshal(map[string]string{"message": err.Error(), "code": string(fault.Unavailable)}, jsontext.AllowInvalidUTF8(true)) // strings alone
	return raw
}
