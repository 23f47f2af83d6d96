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
// are remembered; Config.MaxCancels cancels a partition that are remembered, and
// Config.MaxEndings calls in all that only end what was cancelled.
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

// about is the LP of an input or effect that embeds one.
func (lp LP) about() LP { return lp }

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
	MaxCancels     int           // cancels remembered a partition; default 32,768
	MaxEndings     int           // cancelled jobs that are being ended without a model, at once; default 256
	// CancelAhead is how long after a cancel the request may be written that it
	// is of; a later one with the same id is another job. Ids that were minted
	// are of one job alone, and need no such bound. Default 10 minutes.
	CancelAhead time.Duration
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
	set(&c.MaxCancels, 32_768)
	set(&c.MaxEndings, 256)
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
	wait(&c.CancelAhead, 10*time.Minute)
	return c
}

// Engine is the state of one process's processors.
type Engine struct {
	cfg       Config
	member    string // the group member id, for the pulse
	lanes     map[LP]*lane
	pulses    map[LP]pulse // newest of every LP, peers' and ours
	leaseSent time.Time    // when the newest answered heartbeat was sent
	controls  map[int32]*control
	inFlight  int      // calls that have not ended, of lanes that are gone too
	ending    int      // calls that only end what was cancelled: they take no slot of those
	endings   []*entry // cancelled, and waiting for such a call
	forgotten uint64   // cancels
	byLane    [event.LaneCount]int
	runnable  [event.LaneCount][]*lane // LPs with runnable requests, taking turns
	gens      uint64
	draining  bool
	pulsedAt  time.Time
	effects   []Effect
	keyBuf    []byte // scratch
}

// pulse is what is remembered of a LP's newest pulse.
type pulse struct {
	epoch    int64
	released bool
}

// New makes an engine that owns nothing.
func New(cfg Config) *Engine {
	return &Engine{
		cfg: cfg.withDefaults(), lanes: map[LP]*lane{}, pulses: map[LP]pulse{}, controls: map[int32]*control{},
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
	case Cancels:
		e.cancels(in)
	case ControlGone:
		e.controlGone(in)
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
	e.driveTouched(now, in)
	if !e.draining && e.leased(now) {
		e.scheduleEndings()
		e.schedule()
	}
	if now.Sub(e.pulsedAt) >= e.cfg.PulseEvery {
		e.pulsedAt = now
		e.pulse()
	}
	return e.effects
}

// driveTouched drives the lanes that an input is about. What time alone brings
// about waits for the next Tick.
func (e *Engine) driveTouched(now time.Time, in Input) {
	switch in := in.(type) {
	case Tick, LeaseRenewed:
		for _, l := range e.lanes {
			e.drive(now, l)
		}
	case Tokens:
		e.drivePartition(now, in.Partition)
	case TokensGone:
		e.drivePartition(now, in.Partition)
	case interface{ about() LP }:
		if l := e.lanes[in.about()]; l != nil {
			e.drive(now, l)
		}
	}
}

func (e *Engine) drivePartition(now time.Time, partition int32) {
	for _, l := range e.lanesOf(partition) {
		if l != nil {
			e.drive(now, l)
		}
	}
}

// lanesOf gives the lanes of a partition, nil where one is not assigned.
func (e *Engine) lanesOf(partition int32) (all [event.LaneCount]*lane) {
	for _, which := range event.Lanes() {
		all[which] = e.lanes[LP{which, partition}]
	}
	return all
}

func (e *Engine) do(f Effect) { e.effects = append(e.effects, f) }

// Idle tells whether nothing runs and nothing is owed: a drained engine may
// leave.
func (e *Engine) Idle() bool {
	if e.inFlight > 0 || e.ending > 0 {
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
	Cancels  int                  // remembered
	// CancelsForgotten counts those that were forgotten for want of room.
	CancelsForgotten uint64
}

// Stats returns the present figures.
func (e *Engine) Stats() Stats {
	s := Stats{Assigned: len(e.lanes), InFlight: e.inFlight, CancelsForgotten: e.forgotten}
	for _, c := range e.controls {
		s.Cancels += len(c.cancels.values)
	}
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
	Skip   bool   // of a kind that this build does not know
	Poison string // why it can never run; "" for a good one
	// PoisonPart is the part of it that is wrong, one of a few: event.InvalidPart.
	PoisonPart string
	Record     event.Record // of a poisonous one: the original

	gone int64 // above 0: no request, but so many offsets up to Offset that are gone
}

// order is what requests are run in order by: their conversation, else their job.
func (en *entry) order() string {
	if en.Head.Conversation != "" {
		return en.Head.Tenant + "\x00" + en.Head.Conversation
	}
	return en.name
}

// jobKey names a job among all tenants'. It cannot be a conversation's key.
func jobKey(tenant, id string) string { return tenant + string(jobKeyMark) + id }

const jobKeyMark = '\x01'

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
