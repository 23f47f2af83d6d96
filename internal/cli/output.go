package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/cli/client"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

const defaultServer = "http://127.0.0.1:8080"

// format is how results are written.
type format string

const (
	asTable format = "table" // for people
	asJSON  format = "json"  // indented
	asLines format = "jsonl" // a line each
)

// OutputFlags say how results are written.
type OutputFlags struct {
	Output format `short:"o" setting:"" default:"table" enum:"table,json,jsonl" help:"How results are written: ${enum}."`
}

// ClientFlags say which server to ask.
type ClientFlags struct {
	Server string `setting:"" default:"http://127.0.0.1:8080" placeholder:"URL" help:"The server."`
	APIKey string `name:"api-key" setting:"" secret:"" placeholder:"KEY" help:"The API key."`
	OutputFlags
}

func (f ClientFlags) client(change ...func(*client.Config)) (*client.Client, error) {
	cfg := client.Config{Server: f.Server, Key: f.APIKey, UserAgent: "penstock/" + buildVersion()}
	for _, f := range change {
		f(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// advise adds to an error what to do about it.
func advise(err error) error {
	if errors.Is(err, client.ErrUnreachable) {
		return fmt.Errorf("%w; start one with `penstock dev`, or say where it is with --server", err)
	}
	return err
}

// writeJSON writes a value as the format has it, which must not be asTable.
func writeJSON(w io.Writer, f format, v any) error {
	raw, ok := v.(jsontext.Value)
	if !ok {
		var err error
		if raw, err = json.Marshal(v); err != nil {
			return fmt.Errorf("write a result: %w", err)
		}
	}
	raw = raw.Clone()
	var err error
	if f == asJSON {
		err = raw.Indent(jsontext.WithIndent("  "))
	} else {
		err = raw.Compact()
	}
	if err != nil {
		return fmt.Errorf("write a result: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", raw)
	return err //nolint:wrapcheck // of stdout
}

// table writes rows under a head, each cell as wide as its column's widest.
func table(w io.Writer, head []string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	_ = tw.Flush() // to a terminal
}

// jobHead and jobRow are the columns of a list of jobs.
func jobHead() []string { return []string{"JOB", "STATUS", "LANE", "MODEL", "CREATED", "TOOK"} }

func jobRow(j *job.Resource) []string {
	took := ""
	if !j.EndedAt.IsZero() && !j.CreatedAt.IsZero() {
		took = j.EndedAt.Sub(j.CreatedAt.Time).Round(time.Millisecond).String()
	}
	return []string{j.ID, string(j.Status), j.Lane.String(), j.Model, clock(j.CreatedAt), took}
}

func clock(t job.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// describe writes one job for people.
func describe(w io.Writer, j *job.Resource) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	put := func(name, value string) {
		if value != "" && value != "0" {
			fmt.Fprintf(tw, "%s\t%s\n", name, value)
		}
	}
	put("job", j.ID)
	put("status", string(j.Status))
	put("lane", j.Lane.String())
	put("conversation", j.Conversation)
	put("batch", j.Batch)
	put("model", j.Model)
	put("attempt", strconv.Itoa(j.Attempt))
	put("created", clock(j.CreatedAt))
	put("started", clock(j.StartedAt))
	put("ended", clock(j.EndedAt))
	if j.Usage != nil {
		put("tokens", fmt.Sprintf("%d in, %d out", j.Usage.PromptTokens, j.Usage.CompletionTokens))
	}
	if j.Error != nil {
		put("error", j.Error.Message+" ("+j.Error.Code+")")
	}
	_ = tw.Flush() // to a terminal
	for i := range j.Output {
		choice := &j.Output[i]
		fmt.Fprintln(w)
		if len(j.Output) > 1 {
			fmt.Fprintf(w, "%d: ", choice.Index)
		}
		fmt.Fprintln(w, answerOf(choice))
	}
}

// answerOf is a choice for people: its text, the tools that it calls, or how large a
// vector it is.
func answerOf(c *event.OutputChoice) string {
	if c.Embedding != nil {
		var numbers []float64
		if err := json.Unmarshal(c.Embedding, &numbers); err != nil {
			return "a vector, in base64"
		}
		return fmt.Sprintf("a vector of %d numbers", len(numbers))
	}
	parts := []string{}
	if text := c.Message.Content + c.Message.Refusal; text != "" {
		parts = append(parts, text)
	}
	var calls []struct {
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	}
	_ = json.Unmarshal(c.Message.ToolCalls, &calls) // of what is none, nothing is shown
	for i := range calls {
		parts = append(parts, calls[i].Function.Name+"("+calls[i].Function.Arguments+")")
	}
	return strings.Join(parts, "\n")
}
