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
// Bounds: Config.MaxInFlight calls in all, of which Config.Reserved are kept for
// each lane, and Config.MaxPerTenant a tenant; Config.MaxWindow requests and
// Config.MaxWindowBytes a LP, beyond which its requests are paused;
// Config.MaxSpan from watermark to newest; Config.Recent ended jobs a LP that
// are remembered; Config.MaxCancels cancels a partition that are remembered, and
// Config.MaxEndings calls in all that only end what was cancelled.
package engine

import (
	"cmp"
	"slices"
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

// Engine is the state of one process's processors.
type Engine struct {
	cfg       Config
	member    string // the group member id, for the pulse
	lanes     map[LP]*lane
	sorted    []*lane      // the same, so that a run can be repeated
	pulses    map[LP]pulse // newest of every LP, peers' and ours
	peers     peers
	leaseSent time.Time // when the newest answered heartbeat was sent
	controls  map[int32]*control
	inFlight  int      // calls that have not ended, of lanes that are gone too
	ending    int      // calls that only end what was cancelled: they take no slot of those
	endings   []*entry // cancelled, and waiting for such a call
	forgotten uint64   // cancels
	share     share    // of the calls, between lanes and tenants
	gens      uint64
	now       time.Time // of the Step
	draining  bool
	pulsedAt  time.Time
	effects   []Effect
	keyBuf    []byte // scratch
}

// pulse is what is remembered of a LP's newest pulse.
type pulse struct {
	epoch    int64
	released bool
	member   string
	at       time.Time // when it was read
}

// New makes an engine that owns nothing.
func New(cfg Config) *Engine {
	cfg = cfg.withDefaults()
	return &Engine{
		cfg: cfg, peers: newPeers(cfg.EvictAfter, cfg.PulseEvery), lanes: map[LP]*lane{}, pulses: map[LP]pulse{}, controls: map[int32]*control{},
		share: share{tenants: map[string]*tenant{}},
	}
}

// Step takes one input and returns what is to be done, in order. The slice is
// the engine's own and holds until the next Step.
func (e *Engine) Step(now time.Time, in Input) []Effect {
	e.now = now
	clear(e.effects)
	e.effects = e.effects[:0]
	e.learn(now, in)
	e.driveTouched(now, in)
	if !e.draining && e.leased(now) {
		e.scheduleEndings()
		e.schedule()
	}
	if late := now.Sub(e.pulsedAt) - e.cfg.PulseEvery; late >= 0 {
		e.pulsedAt = now
		if late < e.cfg.PulseEvery { // else the pace would suffer from how often we are asked
			e.pulsedAt = now.Add(-late)
		}
		e.peers.forget(now)
		e.pulse()
	}
	return e.effects
}

// learn takes note of what has happened.
func (e *Engine) learn(now time.Time, in Input) {
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
	case RequestsCut:
		e.requestsCut(now, in)
	case Tokens:
		e.tokens(now, in)
	case TokensGone:
		e.tokensGone(now, in)
	case TokensCut:
		e.tokensCut(now, in)
	case Cancels:
		e.cancels(in)
	case ControlGone:
		e.controlGone(in)
	case Located:
		e.located(now, in)
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
		e.pulseSeen(now, in)
	case Evicted:
		e.evicted(now, in)
	case Drain:
		e.draining = true
	case Tick:
		e.judge(now)
	}
}

// driveTouched drives the lanes that an input is about. What time alone brings
// about waits for the next Tick.
func (e *Engine) driveTouched(now time.Time, in Input) {
	switch in := in.(type) {
	case Tick, LeaseRenewed:
		for _, l := range e.sorted {
			e.drive(now, l)
		}
	case Tokens:
		e.drivePartition(now, in.Partition)
	case TokensGone:
		e.drivePartition(now, in.Partition)
	case TokensCut:
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

// put has a lane stand for its LP, in place of an earlier incarnation.
func (e *Engine) put(l *lane) {
	at, found := e.find(l.LP)
	if found {
		e.sorted[at] = l
	} else {
		e.sorted = slices.Insert(e.sorted, at, l)
		e.share.assigned[l.Lane]++
	}
	e.lanes[l.LP] = l
}

// remove takes a lane out.
func (e *Engine) remove(l *lane) {
	at, _ := e.find(l.LP)
	e.sorted = slices.Delete(e.sorted, at, at+1)
	e.share.assigned[l.Lane]--
	delete(e.lanes, l.LP)
}

func (e *Engine) find(lp LP) (at int, found bool) {
	return slices.BinarySearchFunc(e.sorted, lp, func(l *lane, lp LP) int {
		return cmp.Or(cmp.Compare(l.Lane, lp.Lane), cmp.Compare(l.Partition, lp.Partition))
	})
}

func (e *Engine) do(f Effect) { e.effects = append(e.effects, f) }

// Idle tells whether nothing runs and nothing is owed: a drained engine may
// leave.
func (e *Engine) Idle() bool {
	if e.inFlight > 0 || e.ending > 0 {
		return false
	}
	for _, l := range e.sorted {
		if l.owed() > 0 {
			return false
		}
	}
	return true
}

// leased tells whether the lease holds: a heartbeat that was sent less than a
// lease ago was answered.
func (e *Engine) leased(now time.Time) bool {
	return !e.leaseSent.IsZero() && now.Sub(e.leaseSent) < e.cfg.Lease
}

// leases tells whether the lease holds for a lane. One that was assigned to an
// earlier membership is lost, though that was not told yet.
func (e *Engine) leases(now time.Time, l *lane) bool { return e.leased(now) && l.member == e.member }

func (e *Engine) leaseRenewed(now time.Time, in LeaseRenewed) {
	if !e.leased(now) && !e.leaseSent.IsZero() {
		for _, l := range e.sorted {
			l.lapsed = true
		}
	}
	e.member = in.Member
	if in.Sent.After(e.leaseSent) {
		e.leaseSent = in.Sent
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

// JobKey names a job in Located.Jobs.
func JobKey(tenant, id string) string { return jobKey(tenant, id) }

// jobKey names a job among all tenants'. It cannot be a conversation's key.
func jobKey(tenant, id string) string { return tenant + string(jobKeyMark) + id }

const jobKeyMark = '\x01'

// maxUnasked bounds the jobs that a restore folds before Located tells which are
// asked for: the reading waits for that then.
const maxUnasked = 50_000

// restored is what the log showed of a job before our claim.
type restored struct {
	job.Progress
	first int64 // offset of its first event
	epoch int64 // newest epoch of the lane before it
	whole bool  // none of its events stand before first
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
