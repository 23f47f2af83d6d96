package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/internal/cli/client"
)

// JobCmd is about jobs.
type JobCmd struct {
	Submit SubmitCmd    `cmd:"" help:"Submit jobs: JSON lines from a file, or a prompt."`
	List   JobListCmd   `cmd:"" help:"List jobs, newest first."`
	Get    JobGetCmd    `cmd:"" help:"Show a job."`
	Tail   JobTailCmd   `cmd:"" help:"Follow what a job says."`
	Cancel JobCancelCmd `cmd:"" help:"Stop jobs."`
	Retry  JobRetryCmd  `cmd:"" help:"Submit a job's request once more, as a new job."`
}

// JobListCmd lists jobs.
type JobListCmd struct {
	Status       []string `help:"Only these statuses."`
	Lane         []string `help:"Only these lanes."`
	Batch        []string `help:"Only these batches."`
	Conversation []string `help:"Only these conversations."`
	CreatedAfter string   `placeholder:"TIME" help:"Only those created after an RFC 3339 time."`
	Limit        int      `default:"20" help:"How many, 100 at most."`
	After        string   `placeholder:"JOB" help:"Only those behind this job in the list."`
	Order        string   `default:"desc" enum:"asc,desc" help:"Newest first (desc) or oldest first (asc)."`
	ClientFlags
}

// Run implements the command.
func (c *JobListCmd) Run(ctx context.Context, sys *System) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	q := url.Values{
		"limit": {strconv.Itoa(c.Limit)}, "order": {c.Order},
		"status": c.Status, "lane": c.Lane, "batch": c.Batch, "conversation": c.Conversation,
	}
	for name, value := range map[string]string{"created_after": c.CreatedAfter, "after": c.After} {
		if value != "" {
			q.Set(name, value)
		}
	}
	page, err := cl.List(ctx, q)
	switch e, _ := errors.AsType[*client.Error](err); {
	case e != nil && e.Status == http.StatusBadRequest:
		return usageError{err} // nothing but the flags is asked with
	case err != nil:
		return advise(err)
	case c.Output == asJSON:
		return writeJSON(sys.Stdout, asJSON, page.Raw)
	case c.Output == asLines:
		for i := range page.Jobs {
			if err := writeJSON(sys.Stdout, asLines, page.Jobs[i].Raw); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(page.Jobs))
	for i := range page.Jobs {
		rows[i] = jobRow(&page.Jobs[i].Resource)
	}
	table(sys.Stdout, jobHead(), rows)
	if page.HasMore {
		fmt.Fprintf(sys.Stderr, "There are more: --after %s\n", page.Jobs[len(page.Jobs)-1].ID)
	}
	return nil
}

// JobGetCmd shows a job.
type JobGetCmd struct {
	Job  string        `arg:"" help:"The job's id."`
	Wait time.Duration `placeholder:"TIME" help:"Wait this long for its end, 60s at most."`
	ClientFlags
}

// Run implements the command.
func (c *JobGetCmd) Run(ctx context.Context, sys *System) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	j, err := cl.Get(ctx, c.Job, c.Wait)
	switch {
	case err != nil:
		return advise(err)
	case c.Output != asTable:
		return writeJSON(sys.Stdout, c.Output, j.Raw)
	}
	describe(sys.Stdout, &j.Resource)
	return nil
}

// JobTailCmd follows a job.
type JobTailCmd struct {
	Job       string `arg:"" help:"The job's id."`
	Cursor    string `placeholder:"CURSOR" help:"Begin behind this cursor in place of the beginning."`
	Partition *int32 `placeholder:"N" help:"The partition on which an outside producer put the job, if its row does not say it yet and its id's hash says another."`
	ClientFlags
}

// Run implements the command. A job that fails is a failure.
func (c *JobTailCmd) Run(ctx context.Context, sys *System) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	t := teller{sys: sys, out: c.Output}
	return t.follow(ctx, cl, c.Job, client.Place{Cursor: c.Cursor, Partition: c.Partition})
}

// JobCancelCmd cancels jobs.
type JobCancelCmd struct {
	Jobs []string `arg:"" name:"job" help:"The jobs' ids."`
	Wait bool     `help:"Wait for each job's end."`
	ClientFlags
}

// Run implements the command. A job that had ended before is no failure; one
// that could not be cancelled is, and the others are cancelled all the same.
func (c *JobCancelCmd) Run(ctx context.Context, sys *System) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	failed := false
	for _, id := range c.Jobs {
		j, err := cl.Cancel(ctx, id)
		if err == nil && c.Wait {
			j, err = cl.Await(ctx, id)
		}
		switch {
		case ctx.Err() != nil || errors.Is(err, client.ErrUnreachable):
			return advise(err)
		case err != nil:
			failed = true
			fmt.Fprintf(sys.Stderr, "penstock: %s: %v\n", id, err)
		case c.Output != asTable:
			if err := writeJSON(sys.Stdout, c.Output, j.Raw); err != nil {
				return err
			}
		case j.Status.Ended():
			fmt.Fprintf(sys.Stdout, "%s\t%s\n", id, j.Status)
		default:
			fmt.Fprintf(sys.Stdout, "%s\tcancelling\n", id)
		}
	}
	if failed {
		return errSilent
	}
	return nil
}
