package projections

import (
	"cmp"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// Ranks order the statuses: a job's rank never falls.
const (
	rankQueued int16 = iota
	rankRunning
	rankEnded
)

func rankOf(s job.Status) int16 {
	switch {
	case s.Ended():
		return rankEnded
	case s == job.Running:
		return rankRunning
	default:
		return rankQueued
	}
}

// key is a job's identity.
type key struct{ tenant, id string }

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.id, b.id))
}

// row is what a set of records says about one job. The zero values of its
// fields are "not known". The statement upsert joins it to the table by the
// same rules as join.
type row struct {
	key

	// What the request says stands as one, and goes before what facts say.
	request *requested

	// What facts say of the same, for the time that no request is known.
	lane         event.Lane
	conversation string
	batch        string
	firstSeen    time.Time // of the earliest fact, or the time that a minted id tells

	running   bool // some fact tells of work on it
	attempt   int32
	model     string // of the newest attempt, as the provider names it
	provider  string // of the newest attempt
	startedAt time.Time

	// How the job ended, of the first terminal fact in the log.
	end *ended
}

// requested is what a request says.
type requested struct {
	at           job.Position
	lane         event.Lane
	conversation string
	batch        string
	endpoint     string
	model        string
	createdAt    time.Time
	deadline     time.Time
	customID     string
	metadata     jsontext.Value
}

// ended is what a terminal fact says.
type ended struct {
	partition int32 // of the fact, on the jobs topic
	offset    int64
	status    job.Status
	at        time.Time
	output    jsontext.Value
	usage     jsontext.Value
	failure   jsontext.Value
}

// join adds what other says of the same job. It is commutative, associative and
// idempotent.
func (r *row) join(other *row) {
	if other.request != nil && (r.request == nil || other.request.before(r.request)) {
		r.request = other.request
	}
	if other.end != nil && (r.end == nil || other.end.before(r.end)) {
		r.end = other.end
	}
	if other.lane.String() > r.lane.String() { // by name, as the table compares them
		r.lane = other.lane
	}
	r.conversation = max(r.conversation, other.conversation)
	r.batch = max(r.batch, other.batch)
	r.firstSeen = earliest(r.firstSeen, other.firstSeen)
	r.startedAt = earliest(r.startedAt, other.startedAt)
	r.running = r.running || other.running
	switch {
	case other.attempt > r.attempt:
		r.attempt, r.model, r.provider = other.attempt, other.model, other.provider
	case other.attempt == r.attempt:
		r.model, r.provider = max(r.model, other.model), max(r.provider, other.provider)
	}
}

func (e *ended) before(other *ended) bool {
	return cmp.Or(cmp.Compare(e.partition, other.partition), cmp.Compare(e.offset, other.offset)) < 0
}

// before tells which of two requests for the same job stands: the one that was
// made first, to the microsecond that the table keeps.
func (q *requested) before(other *requested) bool {
	return cmp.Or(
		cmp.Compare(q.createdAt.UnixMicro(), other.createdAt.UnixMicro()),
		cmp.Compare(q.at.Topic, other.at.Topic), cmp.Compare(q.at.Partition, other.at.Partition), cmp.Compare(q.at.Offset, other.at.Offset),
	) < 0
}

// earliest returns the earlier of two times, of which the zero one is not known.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// status is where the job stands.
func (r *row) status() job.Status {
	switch {
	case r.end != nil:
		return r.end.status
	case r.running:
		return job.Running
	default:
		return job.Queued
	}
}

// strip takes away what people and models wrote.
func (r *row) strip() {
	r.model, r.provider = "", ""
	if r.request != nil {
		q := *r.request
		q.model, q.customID, q.metadata = "", "", nil
		r.request = &q
	}
	if r.end != nil {
		e := *r.end
		e.output, e.usage = nil, nil
		e.failure = event.Encode(event.Failed{
			Code: string(fault.Internal), Message: "PostgreSQL refuses to hold what this job ended with; the log has it",
		})
		r.end = &e
	}
}
