// Package engine is the core of the processors as a pure step: it is told what
// has happened (Input), and says what to do (Effect). It decides which lanes'
// partitions this process owns, which requests run and in what order, when what
// a job owes is written, and what may be committed.
//
// There is no goroutine, no clock and no context here: one caller at a time,
// the time passed in. The loop around it is package processors.
//
// The unit is a lane of a partition (LP). It is claimed by the fence's protocol
// (package fence), restored from the token topic, and then works a window of
// requests: a FIFO per key (conversation, else job) of which only the head
// runs, and a tracker that commits the contiguous watermark.
//
// Bounds: Config.MaxInFlight calls in all; Config.MaxWindow requests and
// Config.MaxWindowBytes a LP, beyond which its requests are paused;
// offsets.MaxSpan from watermark to newest; Config.Recent ended jobs a LP that
// are remembered.
package engine

import (
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

// LP names a lane of a partition.
type LP struct {
	Lane      event.Lane
	Partition int32
}

// Config bounds the engine. Zero fields take their defaults.
type Config struct {
	Owner          string        // unique to this process's incarnation; stands in its claims
	MaxInFlight    int           // calls at once; default 1,024
	MaxWindow      int           // requests taken in and not done, a LP; default 2,000
	MaxWindowBytes int           // of those requests, a LP; default 16 MiB
	Lease          time.Duration // default 750 ms
	PulseEvery     time.Duration // default 250 ms
	CommitEvery    time.Duration // default 100 ms
	Recent         int           // ended jobs remembered a LP; default 4,096
	// Weights share the calls between lanes that have work; default 8, 4, 1.
	Weights [event.LaneCount]int
}

func (c Config) withDefaults() Config {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.MaxInFlight, 1024)
	set(&c.MaxWindow, 2000)
	set(&c.MaxWindowBytes, 16<<20)
	set(&c.Recent, 4096)
	set(&c.Weights[event.Interactive], 8)
	set(&c.Weights[event.Standard], 4)
	set(&c.Weights[event.Batch], 1)
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	wait(&c.Lease, 750*time.Millisecond)
	wait(&c.PulseEvery, 250*time.Millisecond)
	wait(&c.CommitEvery, 100*time.Millisecond)
	return c
}

// Engine is the state of one process's processors.
type Engine struct {
	cfg       Config
	member    string // the group member id, for the pulse
	lanes     map[LP]*lane
	pulses    map[LP]pulse // newest of every LP, peers' and ours
	leaseSent time.Time    // when the newest answered heartbeat was sent
	inFlight  int          // calls that have not ended, of lanes that are gone too
	byLane    [event.LaneCount]int
	runnable  [event.LaneCount][]*lane // LPs with runnable requests, taking turns
	gens      uint64
	draining  bool
	pulsedAt  time.Time
	effects   []Effect
}

// pulse is what is remembered of a LP's newest pulse.
type pulse struct {
	epoch    int64
	released bool
}

// New makes an engine that owns nothing.
func New(cfg Config) *Engine {
	return &Engine{
		cfg: cfg.withDefaults(), lanes: map[LP]*lane{}, pulses: map[LP]pulse{},
	}
}

// Step takes one input and returns what is to be done, in order. The slice is
// the engine's own and holds until the next Step.
func (e *Engine) Step(now time.Time, in Input) []Effect {
	clear(e.effects)
	e.effects = e.effects[:0]
	switch in := in.(type) {
	case Assigned:
		e.assigned(now, in)
	case Revoked:
		e.revoked(in)
	case Lost:
		e.drop(in.LP)
	case Requests:
		e.requests(in)
	case RequestsGone:
		e.requestsGone(in)
	case Tokens:
		e.tokens(now, in)
	case TokensGone:
		e.tokensGone(now, in)
	case Located:
		e.located(in)
	case ClaimFailed:
		e.claimFailed(in)
	case WriteFailed:
		if l := e.lanes[in.LP]; l != nil && l.gen == in.Gen {
			e.anew(now, l)
		}
	case LeaseRenewed:
		e.leaseRenewed(now, in)
	case Ended:
		e.ended(in)
	case FactWritten:
		e.factWritten(now, in)
	case PulseSeen:
		e.pulseSeen(in)
	case Drain:
		e.draining = true
	case Tick:
	}
	for _, l := range e.lanes {
		e.drive(now, l)
	}
	e.schedule(now)
	if now.Sub(e.pulsedAt) >= e.cfg.PulseEvery {
		e.pulsedAt = now
		e.pulse()
	}
	return e.effects
}

func (e *Engine) do(f Effect) { e.effects = append(e.effects, f) }

// Idle tells whether nothing runs and nothing is owed: a drained engine may
// leave.
func (e *Engine) Idle() bool {
	if e.inFlight > 0 {
		return false
	}
	for _, l := range e.lanes {
		if l.owed() > 0 {
			return false
		}
	}
	return true
}

// Stats is what the engine tells of itself.
type Stats struct {
	Owned    int                  // LPs that are claimed
	Assigned int                  // LPs that are assigned
	InFlight int                  // calls
	Waiting  [event.LaneCount]int // requests taken in and not started
	Paused   int                  // LPs whose window is full
}

// Stats returns the present figures.
func (e *Engine) Stats() Stats {
	s := Stats{Assigned: len(e.lanes), InFlight: e.inFlight}
	for lp, l := range e.lanes {
		if l.claimer.Owns() {
			s.Owned++
		}
		if l.paused {
			s.Paused++
		}
		s.Waiting[lp.Lane] += len(l.entries) - l.started + len(l.backlog)
	}
	return s
}

// leased tells whether the lease holds: a heartbeat that was sent less than a
// lease ago was answered.
func (e *Engine) leased(now time.Time) bool {
	return !e.leaseSent.IsZero() && now.Sub(e.leaseSent) < e.cfg.Lease
}

func (e *Engine) leaseRenewed(now time.Time, in LeaseRenewed) {
	if !e.leased(now) && !e.leaseSent.IsZero() {
		for _, l := range e.lanes {
			l.lapsed = true
		}
	}
	e.member = in.Member
	if in.Sent.After(e.leaseSent) {
		e.leaseSent = in.Sent
	}
}

func (e *Engine) pulseSeen(in PulseSeen) {
	if p, ok := e.pulses[in.LP]; ok && p.epoch > in.Epoch {
		return
	}
	e.pulses[in.LP] = pulse{epoch: in.Epoch, released: in.Released}
	if l := e.lanes[in.LP]; l != nil {
		l.released(in.Epoch, in.Released)
	}
}

// Request is one record of a request topic, decoded.
type Request struct {
	Offset int64
	Head   event.Head
	Data   event.Request
	Time   time.Time // the record's
	Bytes  int
	Skip   bool         // of a kind that this build does not know
	Poison string       // why it can never run; "" for a good one
	Record event.Record // of a poisonous one: the original

	gone int64 // above 0: no request, but so many offsets up to Offset that are gone
}

// key is what requests are ordered by.
func (r *Request) key() string {
	if r.Head.Conversation != "" {
		return r.Head.Tenant + "\x00" + r.Head.Conversation
	}
	return jobKey(r.Head.Tenant, r.Head.Job)
}

// jobKey names a job among all tenants'. It cannot be a conversation's key.
func jobKey(tenant, id string) string { return tenant + "\x01" + id }

// Input is what has happened.
type Input interface{ input() }

// Assigned: the group gave us a LP. Metadata is that of the commit at Next.
type Assigned struct {
	LP
	Life     uint64 // counts the assignments of this process; from 1
	Next     int64  // where its requests begin
	Metadata string
}

// Revoked: the group takes a LP back, and waits for Release.
type Revoked struct{ LP }

// Lost: the group has taken a LP without asking.
type Lost struct{ LP }

// Requests are records of a LP, in order.
type Requests struct {
	LP
	Seeks    uint64 // how many Seek effects of this assignment were carried out before they were read
	Requests []*Request
}

// RequestsGone: what was to be read next is not in the log any more; Earliest is.
type RequestsGone struct {
	LP
	Earliest int64
}

// Tokens are records of the token topic, in order and without a gap: [From, Next).
type Tokens struct {
	Partition  int32
	From, Next int64
	Seen       []Seen
}

// Seen is the head of one record of the token topic.
type Seen struct {
	Offset int64
	View   event.View
	Owner  string // of a claim
}

// TokensGone: what was to be read next is not in the log any more; Earliest is.
type TokensGone struct {
	Partition int32
	Earliest  int64
}

// Located answers FindEnd.
type Located struct {
	LP
	Gen         uint64
	End         int64     // of the token partition
	RequestsEnd int64     // of the LP's requests
	LogStart    int64     // of the token partition
	Oldest      time.Time // of its oldest record; zero if it is empty
}

// ClaimFailed: the claim was refused, or its outcome is unknown.
type ClaimFailed struct {
	LP
	Gen uint64
}

// WriteFailed: an output was refused, or its outcome is unknown: what the log
// holds is to be read anew.
type WriteFailed struct {
	LP
	Gen uint64
}

// LeaseRenewed: a heartbeat that was sent then was answered without error.
type LeaseRenewed struct {
	Sent   time.Time
	Member string
}

// Ended: a call is over.
type Ended struct {
	LP
	Gen    uint64
	Offset int64
	// Type and Data are the fact that follows. Type is "" where the call was
	// broken off, since its LP's incarnation is over or about to be.
	Type    event.Type
	Data    []byte
	Attempt int
	At      time.Time // when it ended, as the log says
	// Found tells that the end was in the log already, so it needs no read-back.
	Found bool
}

// FactWritten: Kafka has the fact, or the dead letter, of the request at Offset.
type FactWritten struct {
	LP
	Gen    uint64
	Offset int64
	Failed bool // it was refused; the LP is to be taken anew
}

// PulseSeen is a pulse of any process, our own included.
type PulseSeen struct {
	LP
	Epoch    int64
	Released bool
}

// Drain: no request is started from now on.
type Drain struct{}

// Tick: time has passed.
type Tick struct{}

func (Assigned) input()     {}
func (Revoked) input()      {}
func (Lost) input()         {}
func (Requests) input()     {}
func (RequestsGone) input() {}
func (Tokens) input()       {}
func (TokensGone) input()   {}
func (Located) input()      {}
func (ClaimFailed) input()  {}
func (WriteFailed) input()  {}
func (LeaseRenewed) input() {}
func (Ended) input()        {}
func (FactWritten) input()  {}
func (PulseSeen) input()    {}
func (Drain) input()        {}
func (Tick) input()         {}

// Effect is what is to be done.
type Effect interface{ effect() }

// Follow reads a token partition from an offset, also where it was followed
// from another. Unfollow ends that.
type (
	Follow struct {
		Partition int32
		From      int64
	}
	Unfollow struct{ Partition int32 }
)

// FindEnd wants Located.
type FindEnd struct {
	LP
	Gen uint64
}

// AppendClaim writes lane.claimed to the token partition. From here on no
// output of the LP is written until Open, so that the claim stands behind all
// that was written under the epoch before.
type AppendClaim struct {
	LP
	Gen   uint64
	Epoch int64
	Claim event.Claim
}

// Open lets outputs of the LP be written, with this epoch.
type Open struct {
	LP
	Gen   uint64
	Epoch int64
}

// Shut lets no output of the LP's incarnation be written any more, and breaks
// its calls off.
type Shut struct {
	LP
	Gen uint64
}

// Start makes a call.
type Start struct {
	LP
	Gen     uint64
	Request *Request
	Expired bool    // too old to be run: it ends as expired, unless the log holds its end
	Resume  *Resume // what the log may hold of it; nil: nothing
}

// Resume says where in the token partition a job's output stands.
type Resume struct {
	From  int64 // offset of its first event; -1: to be looked for from the id's time
	To    int64 // nothing of it stands at or behind this offset
	Epoch int64 // newest epoch of the lane before From
}

// AppendFact writes a fact to the jobs topic.
type AppendFact struct {
	LP
	Gen    uint64
	Offset int64 // of the request that it settles; -1: it settles none
	Head   event.Head
	Data   []byte
}

// Bury writes a poisonous record to the dead topic. FactWritten follows.
type Bury struct {
	LP
	Gen     uint64
	Request *Request
}

// Commit commits a LP's watermark.
type Commit struct {
	LP
	Next     int64
	Metadata string
}

// Release ends a revocation: commit (if there is one), say so in the pulse, let go.
type Release struct {
	LP
	Commit *Commit // nil: it was never owned
	Pulse  *Pulse
}

// Pause stops the fetching of a LP's requests; Resumed goes on. Seek reads them
// from another offset.
type (
	Pause   struct{ LP }
	Resumed struct{ LP }
	Seek    struct {
		LP
		Life uint64 // of the assignment that it is for
		Next int64
	}
)

// Pulse says how a LP stands.
type Pulse struct {
	LP
	Epoch int64
	Data  event.Pulse
}

// Pulses writes pulses.
type Pulses struct{ Pulses []Pulse }

func (Follow) effect()      {}
func (Unfollow) effect()    {}
func (FindEnd) effect()     {}
func (AppendClaim) effect() {}
func (Open) effect()        {}
func (Shut) effect()        {}
func (Start) effect()       {}
func (AppendFact) effect()  {}
func (Bury) effect()        {}
func (Commit) effect()      {}
func (Release) effect()     {}
func (Pause) effect()       {}
func (Resumed) effect()     {}
func (Seek) effect()        {}
func (Pulses) effect()      {}

// restored is what the log showed of a job before our claim.
type restored struct {
	job.Progress
	first int64 // offset of its first event
	epoch int64 // newest epoch of the lane before it
}

// metadataOf reads a commit's metadata. What cannot be read is as if it had
// been lost: the restore begins at the log's start.
func metadataOf(in Assigned) offsets.Metadata {
	m, err := offsets.DecodeMetadata(in.Metadata, in.Next)
	if err != nil {
		return offsets.Metadata{}
	}
	return m
}
