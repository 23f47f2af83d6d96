package projections

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/topics"
)

// verdict is what became of a record.
type verdict int

const (
	folded    verdict = iota
	malformed         // it can never be folded; a processor writes a bad request to dead
	unknown           // of a type or version that this build does not know
	verdicts          // how many there are
)

// String is the metric's label.
func (v verdict) String() string { return [verdicts]string{"folded", "malformed", "unknown"}[v] }

// lenient reads what our own writers let pass: bytes that are not UTF-8 were
// replaced before, an escaped lone surrogate stays as it is.
func lenient() json.Options {
	return json.JoinOptions(jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
}

// folder turns records into rows.
type folder struct {
	names topics.Names
}

// fold folds records into one row a job, in the order of their keys: two
// projectors that touch the same jobs lock them in the same order. It counts
// what became of the records, and returns the first reason to pass one over.
func (f folder) fold(records []event.Record) (rows []*row, counts [verdicts]int, why error) {
	jobs := make(map[key]*row, len(records))
	rows = make([]*row, 0, len(records))
	for i := range records {
		rec := &records[i]
		r, v, err := f.one(rec)
		counts[v]++
		if err != nil && why == nil {
			why = fmt.Errorf("%s-%d@%d: %w", rec.Topic, rec.Partition, rec.Offset, err)
		}
		if r == nil {
			continue
		}
		if known, ok := jobs[r.key]; ok {
			known.join(r)
			continue
		}
		jobs[r.key] = r
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b *row) int { return compareKeys(a.key, b.key) })
	return rows, counts, why
}

// one folds one record. The row is nil if it says nothing about a job; the
// error says why it is malformed.
func (f folder) one(rec *event.Record) (*row, verdict, error) {
	if lane, ok := f.names.LaneOf(rec.Topic); ok {
		return f.request(rec, lane)
	}
	return fact(rec)
}

func (folder) request(rec *event.Record, lane event.Lane) (*row, verdict, error) {
	h, req, err := event.DecodeRequest(rec)
	switch {
	case errors.Is(err, event.ErrSkip):
		return nil, unknown, nil
	case err != nil:
		return nil, malformed, err
	}
	h.Time = storable(h.Time, rec.Time)
	res := job.NewResource(&h, &req, lane, job.Position{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset})
	r := &requested{
		at: *res.Request, lane: lane, conversation: h.Conversation, batch: h.Batch,
		endpoint: plain(res.Endpoint), model: plain(res.Model), createdAt: h.Time, customID: plain(res.CustomID),
	}
	if !req.Deadline.IsZero() {
		r.deadline = storable(req.Deadline, req.Deadline)
	}
	if len(req.Metadata) > 0 {
		// It was read from JSON, so it has JSON; the order of names must not depend on the run.
		r.metadata, err = json.Marshal(req.Metadata, json.Deterministic(true), lenient())
	}
	if err != nil {
		return nil, malformed, fmt.Errorf("data.metadata: %w", err)
	}
	return &row{key: key{h.Tenant, h.Job}, request: r}, folded, nil
}

// fact folds a record of the jobs topic. A terminal fact whose data cannot be
// read still ends its job: its head says so.
func fact(rec *event.Record) (*row, verdict, error) {
	view, err := event.ScanHead(rec.Value)
	if err != nil {
		return nil, malformed, err
	}
	if !isFact(view.Type) || view.V > event.Version {
		return nil, unknown, nil
	}
	h := view.Head()
	if err := validFact(&h); err != nil {
		return nil, malformed, err
	}
	at := storable(h.Time, rec.Time)
	r := &row{
		key: key{h.Tenant, h.Job}, running: true, attempt: int32(h.Attempt), //nolint:gosec // validFact bounds it
		lane: h.Lane, conversation: h.Conversation, batch: h.Batch, firstSeen: at,
	}
	if id, ok := job.ParseID(h.Job); ok {
		r.firstSeen = earliest(at, storable(id.Time, at))
	}
	switch {
	case h.Type == event.JobStarted:
		r.startedAt = at
		err = r.started(view.Data)
	case h.Type.Terminal():
		r.end = &ended{partition: rec.Partition, offset: rec.Offset, status: job.StatusOf(h.Type), at: at}
		err = r.ended(h.Type, view.Data)
	}
	if err != nil {
		return r, malformed, err
	}
	return r, folded, nil
}

func isFact(t event.Type) bool {
	switch t {
	case event.JobStarted, event.JobProgress, event.JobRetrying,
		event.JobCompleted, event.JobFailed, event.JobCancelled, event.JobExpired:
		return true
	default:
		return false
	}
}

// validFact holds a fact's head to what the table can hold.
func validFact(h *event.Head) error {
	for _, id := range [...]struct {
		name, value string
		required    bool
	}{{"tenant", h.Tenant, true}, {"job", h.Job, true}, {"conversation", h.Conversation, false}, {"batch", h.Batch, false}} {
		if (id.required || id.value != "") && !event.ValidID(id.value) {
			return fmt.Errorf("%s: %.140q is no id", id.name, id.value)
		}
	}
	if h.Attempt < 0 || h.Attempt > math.MaxInt32 {
		return fmt.Errorf("attempt: %d is out of range", h.Attempt)
	}
	return nil
}

func (r *row) started(data []byte) error {
	var s event.Started
	if err := decode(data, &s); err != nil {
		return err
	}
	r.model, r.provider = plain(s.Model), plain(s.Provider)
	return nil
}

// ended reads a terminal fact's data. Output and usage are kept as they came.
func (r *row) ended(t event.Type, data []byte) error {
	switch t {
	case event.JobCompleted, event.JobCancelled:
		var c struct {
			Model  string         `json:"model"`
			Output jsontext.Value `json:"output"`
			Usage  jsontext.Value `json:"usage"`
		}
		if err := decode(data, &c); err != nil {
			return err
		}
		r.model = plain(c.Model)
		r.end.output, r.end.usage = present(c.Output), present(c.Usage)
	case event.JobFailed, event.JobExpired:
		var failure jsontext.Value
		if err := decode(data, &failure); err != nil {
			return err
		}
		r.end.failure = present(failure)
	default:
	}
	return nil
}

// decode reads an event's data; what is not UTF-8 in it becomes U+FFFD.
func decode(data []byte, into any) error {
	if !utf8.Valid(data) {
		data = []byte(strings.ToValidUTF8(string(data), "\uFFFD"))
	}
	if err := json.Unmarshal(data, into, lenient()); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}

// present takes null for absent.
func present(v jsontext.Value) jsontext.Value {
	if v.Kind() == 'n' {
		return nil
	}
	return v
}

// plain makes a string that PostgreSQL's text can hold: it has no NUL.
func plain(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// The years that a stored time may be of: those of a valid request.
const (
	firstYear = 1970
	lastYear  = 2999
)

// storable gives a time as the table holds it, in microseconds; where it is
// missing or out of range, the record's own, and at last the epoch.
func storable(t, record time.Time) time.Time {
	for _, t := range [...]time.Time{t, record} {
		if t = t.UTC(); !t.IsZero() && t.Year() >= firstYear && t.Year() <= lastYear {
			return t.Truncate(time.Microsecond)
		}
	}
	return time.Unix(0, 0).UTC()
}
