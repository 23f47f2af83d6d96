package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/penstock-io/penstock/internal/cli/client"
)

// JobRetryCmd submits a job's request once more.
type JobRetryCmd struct {
	Job    string `arg:"" help:"The job's id; it must have ended."`
	Yes    bool   `short:"y" help:"Do not ask."`
	Follow bool   `help:"Write what the new job says as it comes."`
	ClientFlags
}

// Run implements the command.
func (c *JobRetryCmd) Run(ctx context.Context, sys *System) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	if !c.Yes && !confirmed(sys, "Submit the request of "+c.Job+" once more, as a new job?") {
		return usagef("nothing was submitted: answer y, or say --yes")
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	j, err := cl.Retry(ctx, c.Job, "retry-"+hex.EncodeToString(b[:]))
	switch {
	case err != nil:
		return advise(err)
	case c.Follow:
		fmt.Fprintln(sys.Stderr, j.ID)
		t := teller{sys: sys, out: c.Output}
		return t.follow(ctx, cl, j.ID, client.Place{})
	case c.Output != asTable:
		return writeJSON(sys.Stdout, c.Output, j.Raw)
	}
	fmt.Fprintf(sys.Stdout, "%s\t%s\n", j.ID, j.Status)
	return nil
}

// confirmed asks a question on stderr, and takes y or yes on stdin for a yes.
func confirmed(sys *System, question string) bool {
	fmt.Fprint(sys.Stderr, question+" [y/N] ")
	line, _ := bufio.NewReader(sys.Stdin).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}
