package chaos

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Write writes a report for people. The error is the writer's.
func (r *Report) Write(w io.Writer) error {
	const shown = 40 // violations; their number stands above
	var text bytes.Buffer
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(&text, format+"\n", args...) }
	p("chaos: seed %d, %s", r.Seed, r.Took.Round(time.Second))
	p("  jobs       %6d accepted, %d ended: %d completed, %d cancelled, %d failed; %d more of which nobody knows",
		r.Accepted, r.Completed+r.Cancelled+r.Failed, r.Completed, r.Cancelled, r.Failed, r.Unclear)
	p("  lost       %6d", r.Lost)
	p("  repeated   %6d", r.Repeated)
	p("  superseded %6d attempts", r.Superseded)
	p("  resumed    %6d answers that another owner went on with", r.Resumed)
	p("  log        %6d events, %d fenced, %d claims; %d ends on the jobs topic", r.Events, r.Fenced, r.Claims, r.Facts)
	p("  readers    %6d clients that follow a job", r.Readers)
	p("  calls      %6d of the model that counts them; %d by processes that were frozen on the way to it", r.Calls, r.ZombieCalls)
	for _, what := range slices.Sorted(maps.Keys(r.Faults)) {
		p("  fault      %6d %s", r.Faults[what], what)
	}
	for _, v := range r.Violations[:min(shown, len(r.Violations))] {
		p("  %s", v)
	}
	for _, line := range r.Evidence[:min(20*shown, len(r.Evidence))] {
		p("  log: %s", line)
	}
	_, err := text.WriteTo(w)
	return err //nolint:wrapcheck // the writer's own
}
