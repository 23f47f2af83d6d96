package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// Kind is what was broken.
type Kind string

// The kinds. Lost: an accepted job without an end, in the log, among the facts or
// as a row, at the end of the run; an event that a reader did not get though it
// got a later one; a text that is not the log's, or not the model's. Repeated: an
// event that one reader got twice, or that stands twice in the log, unfenced; a
// second end; a fact or a row that is not what the log says; a model that was
// called after its job's end was seen.
const (
	Lost     Kind = "lost"
	Repeated Kind = "repeated"
)

// Violation is one promise that was broken.
type Violation struct {
	Kind Kind
	Job  string // "" where it is of none
	What string
}

// String is one line for a person.
func (v Violation) String() string { return fmt.Sprintf("%s: job %s: %s", v.Kind, v.Job, v.What) }

// Job is one job of a run.
type Job struct {
	ID        string
	Accepted  bool   // a 202, or an acknowledged produce; else nobody knows
	Want      string // what its model says
	MayCancel bool   // a cancel of it was asked for
}

// Call is one call of a model, as its server saw it.
type Call struct {
	Job    string
	At     time.Time
	Caller string // the process
}

// Freeze is a time in which a process stood still.
type Freeze struct {
	Process  string
	From, To time.Time
}

// History is all that was seen in a run.
type History struct {
	Jobs    []*Job
	Readers []*Reader
	Live    *Log // as it was read while it grew
	Log     *Log // as it stands at the end
	Facts   *Facts
	Rows    map[string]Row
	Calls   []Call
	Freezes []Freeze
}

// Row is a job's row in PostgreSQL.
type Row struct {
	Status  job.Status
	Attempt int
	EndedAt time.Time
	Text    string
}

// Reader is one client's view of one job. One goroutine feeds it.
type Reader struct {
	Who string // what kind of client it is
	Job string

	mu      sync.Mutex
	fold    fold
	endSeen time.Time
	found   []Violation
}

// Take takes the next event that the client got, at a time.
func (r *Reader) Take(v *event.View, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if string(v.Job) != r.Job {
		r.found = append(r.found, Violation{Lost, r.Job, fmt.Sprintf("%s was shown an event of job %s", r.Who, v.Job)})
		return
	}
	if kind, what := r.fold.take(v); kind != "" {
		r.found = append(r.found, Violation{kind, r.Job, r.Who + ": " + what})
	}
	if r.fold.end != "" && r.endSeen.IsZero() {
		r.endSeen = now
	}
}

// Fail says what else the client found wrong.
func (r *Reader) Fail(kind Kind, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = append(r.found, Violation{kind, r.Job, r.Who + ": " + what})
}

// Ended tells whether the job's end was seen.
func (r *Reader) Ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fold.end != ""
}

// Next is the seq that comes next.
func (r *Reader) Next() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fold.next
}

// Verdict is what a history comes to.
type Verdict struct {
	Accepted, Unclear            int // jobs
	Completed, Cancelled, Failed int // of the accepted
	Lost, Repeated               int // violations, each told once
	Superseded, Resumed          int // attempts; answers that another owner went on with
	Events, Fenced, Claims       int // of the token topic
	Facts, Readers               int
	Calls, ZombieCalls           int // ZombieCalls: decided before a freeze, made after it
	Violations                   []Violation
}

// Check holds a history to the promises.
func Check(h *History) *Verdict {
	c := &check{h: h, v: &Verdict{
		Events: h.Log.Outputs, Fenced: h.Log.Fenced, Claims: h.Log.Claims, Facts: h.Facts.Count, Readers: len(h.Readers), Calls: len(h.Calls),
	}, ends: map[string]time.Time{}}
	c.add(h.Log.found...)
	c.add(h.Facts.found...)
	if l := h.Live; l != nil && (l.Outputs != h.Log.Outputs || l.Fenced != h.Log.Fenced || l.Claims != h.Log.Claims) {
		c.tell(Lost, "", "the log is not what a reader saw grow: %d events, %d fenced and %d claims were read, %d, %d and %d stand there",
			l.Outputs, l.Fenced, l.Claims, h.Log.Outputs, h.Log.Fenced, h.Log.Claims)
	}
	for _, j := range h.Jobs {
		c.job(j)
	}
	for _, r := range h.Readers {
		c.reader(r)
	}
	c.calls()
	for _, j := range h.Log.jobs {
		c.v.Superseded += j.superseded
		c.v.Resumed += j.resumed
	}
	return c.v
}

// check is a Verdict in the making.
type check struct {
	h    *History
	v    *Verdict
	ends map[string]time.Time // when a reader first saw a job's end
}

func (c *check) tell(kind Kind, job, format string, args ...any) {
	c.add(Violation{kind, job, fmt.Sprintf(format, args...)})
}

func (c *check) add(all ...Violation) {
	for _, v := range all {
		if v.Kind == Lost {
			c.v.Lost++
		} else {
			c.v.Repeated++
		}
		c.v.Violations = append(c.v.Violations, v)
	}
}

// job holds what the log says of a job to what was asked for, and facts and row
// to the log.
func (c *check) job(j *Job) {
	l := c.h.Log.jobs[j.ID]
	if !j.Accepted {
		c.v.Unclear++
		if l == nil {
			return // it did not get there, and nobody said that it had
		}
	} else {
		c.v.Accepted++
	}
	if l == nil {
		c.tell(Lost, j.ID, "it was accepted, and the log holds nothing of it")
		return
	}
	text := l.text.String()
	switch l.end {
	case "":
		c.tell(Lost, j.ID, "it has no end in the log: it stands at seq %d of attempt %d", l.next, l.attempt)
		return
	case event.OutputFailed:
		c.v.Failed++
		c.tell(Lost, j.ID, "it failed: %s: %s", l.failed.Code, l.failed.Message)
	case event.OutputCancelled:
		c.v.Cancelled++
		if !j.MayCancel {
			c.tell(Lost, j.ID, "it was cancelled, and nobody asked for that")
		}
		if !strings.HasPrefix(j.Want, text) {
			c.tell(Lost, j.ID, "%s", differs("the log's text before the cancel", text, j.Want))
		}
	default:
		c.v.Completed++
		if text != j.Want {
			c.tell(Lost, j.ID, "%s", differs("the log's text", text, j.Want))
		}
	}
	c.settled(j.ID, l)
}

// settled holds facts and row of an ended job to the log.
func (c *check) settled(id string, l *logged) {
	want := fact{status: string(statusOf(l.end)), attempt: l.attempt, endedAt: l.endedAt, text: l.text.String()}
	if l.end == event.OutputFailed {
		want.text = "" // a failure's fact has none
	}
	facts := c.h.Facts.jobs[id]
	if len(facts) == 0 {
		c.tell(Lost, id, "it ended as %s, and no fact says so", l.end)
	}
	for _, f := range facts {
		if f != want {
			c.tell(Repeated, id, "a fact is not what the log says: %+v, want %+v", f, want)
		}
	}
	row, ok := c.h.Rows[id]
	if !ok {
		c.tell(Lost, id, "it has no row")
		return
	}
	got := fact{status: string(row.Status), attempt: row.Attempt, endedAt: l.endedAt, text: row.Text}
	if got != want || !row.EndedAt.Equal(moment(l.endedAt)) {
		c.tell(Repeated, id, "its row is not what the log says: %+v at %s, want %+v", got, row.EndedAt, want)
	}
}

func (c *check) reader(r *Reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.add(r.found...)
	if seen, ok := c.ends[r.Job]; !r.endSeen.IsZero() && (!ok || r.endSeen.Before(seen)) {
		c.ends[r.Job] = r.endSeen
	}
	l := c.h.Log.jobs[r.Job]
	if l == nil || l.end == "" {
		return // told already, of the job
	}
	got := r.fold.text.String()
	switch {
	case r.fold.end == "":
		c.tell(Lost, r.Job, "%s did not see its end: it stands at seq %d, and the log goes to %d", r.Who, r.fold.next, l.next-1)
	case r.fold.next != l.next || r.fold.end != l.end || r.fold.attempt != l.attempt:
		c.tell(Lost, r.Job, "%s saw it end as %s at seq %d of attempt %d, the log says %s at seq %d of attempt %d",
			r.Who, r.fold.end, r.fold.next-1, r.fold.attempt, l.end, l.next-1, l.attempt)
	case got != l.text.String():
		c.tell(Lost, r.Job, "%s", differs(r.Who+"'s text", got, l.text.String()))
	}
}

// calls looks for models that were called after their job's end. A process that
// was frozen between its decision to call and the call itself makes one when it
// wakes, which no log can keep it from: that is counted apart.
func (c *check) calls() {
	for _, call := range c.h.Calls {
		end, ended := c.ends[call.Job]
		if !ended || !call.At.After(end) {
			continue
		}
		if slices.ContainsFunc(c.h.Freezes, func(f Freeze) bool {
			return f.Process == call.Caller && f.From.Before(end) && f.To.After(end)
		}) {
			c.v.ZombieCalls++
			continue
		}
		c.tell(Repeated, call.Job, "its model was called by %s %s after its end was seen", call.Caller, call.At.Sub(end))
	}
}

// differs says where two texts part.
func differs(what, got, want string) string {
	n := 0
	for n < min(len(got), len(want)) && got[n] == want[n] {
		n++
	}
	const around = 30
	cut := func(s string) string { return s[max(0, n-around):min(len(s), n+around)] }
	return fmt.Sprintf("%s differs at byte %d (of %d, want %d): …%q, want …%q", what, n, len(got), len(want), cut(got), cut(want))
}

func statusOf(t event.Type) job.Status { return job.StatusOf(t) }
