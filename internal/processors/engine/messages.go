package engine

import (
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// Input is what has happened.
type Input interface{ input() }

// Assigned means that the group gave us a LP. Metadata is that of the commit at Next.
type Assigned struct {
	LP
	Life     uint64 // counts the assignments of this process; from 1
	Member   string // of this process, that it was assigned to
	Next     int64  // where its requests begin
	Metadata string
}

// Revoked means that the group takes a LP back, and waits for Release.
type Revoked struct{ LP }

// Lost means that the group has taken a LP without asking.
type Lost struct{ LP }

// Requests are records of a LP, in order.
type Requests struct {
	LP
	Seeks    uint64 // how many Seek effects of this assignment were carried out before they were read
	Requests []*Request
}

// RequestsGone means that what was to be read next is not in the log any more; Earliest is.
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

// TokensGone means that what was to be read next is not in the log any more; Earliest is.
type TokensGone struct {
	Partition int32
	Earliest  int64
}

// TokensCut means that the token partition has lost its end: it is shorter than it was.
type TokensCut struct {
	Partition int32
}

// RequestsCut means that a LP's requests have lost their end; they begin at Earliest.
type RequestsCut struct {
	LP
	Earliest int64
}

// Cancels are records of the control topic, in order and without a gap:
// [From, Next). Those that are none were passed over.
type Cancels struct {
	Partition  int32
	From, Next int64
	Cancels    []Cancel
}

// Cancel asks for a job to be stopped.
type Cancel struct {
	Tenant, Job string
	Time        time.Time // the record's
}

// ControlGone means that what was to be read next is not in the log any more;
// Earliest is.
type ControlGone struct {
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
	ControlFrom int64     // no cancel of a request that is not done stands before it on the control partition
	ControlEnd  int64     // of the control partition
	// Jobs are those of the requests from Next to RequestsEnd, by JobKey: no other
	// job's output from before End is asked for any more. Nil: they are not known.
	Jobs map[string]struct{}
}

// ClaimFailed means that the claim was refused, or its outcome is unknown.
type ClaimFailed struct {
	LP
	Gen uint64
}

// WriteFailed means that an output was refused, or its outcome is unknown: what the log
// holds is to be read anew.
type WriteFailed struct {
	LP
	Gen uint64
}

// LeaseRenewed means that a heartbeat that was sent then was answered without error.
type LeaseRenewed struct {
	Sent   time.Time
	Member string
}

// Ended means that a call is over.
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
	// Cancelled is the Start's, and Tenant its request's.
	Cancelled bool
	Tenant    string
	// Retry, where it is set, says that nothing has ended, and that the call is
	// to be made again. Type is "", Attempt and At are of the one that failed.
	Retry *Retry
}

// Retry is a call that failed before it said anything, and is to be made again.
type Retry struct {
	At    time.Time // not before
	Fact  []byte    // data of job.retrying
	Again *Again    // what the next Start is told
}

// Again says what stands in the log of a call that failed before it said
// anything. Nil leaves it to Resume: the call wrote nothing.
type Again struct{ job.Progress }

// FactWritten means that Kafka has the fact, or the dead letter, of the request at Offset.
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
	Owner    string
	Member   string
	Sent     time.Time // by the owner's clock
}

// Evicted answers Evict.
type Evicted struct {
	Member string
	Out    bool // it is no member any more; else nobody knows
}

// Drain means that no request is started from now on.
type Drain struct{}

// Tick means that time has passed.
type Tick struct{}

func (Assigned) input()     {}
func (Revoked) input()      {}
func (Lost) input()         {}
func (Requests) input()     {}
func (RequestsGone) input() {}
func (RequestsCut) input()  {}
func (Tokens) input()       {}
func (TokensGone) input()   {}
func (TokensCut) input()    {}
func (Cancels) input()      {}
func (ControlGone) input()  {}
func (Located) input()      {}
func (ClaimFailed) input()  {}
func (WriteFailed) input()  {}
func (LeaseRenewed) input() {}
func (Ended) input()        {}
func (FactWritten) input()  {}
func (PulseSeen) input()    {}
func (Evicted) input()      {}
func (Drain) input()        {}
func (Tick) input()         {}

// Effect is what is to be done.
type Effect interface{ effect() }

// Follow reads a token partition from an offset, also where it was followed
// from another.
type Follow struct {
	Partition int32
	From      int64
}

// Unfollow ends the reading of a token partition.
type Unfollow struct{ Partition int32 }

// FollowControl reads a control partition from an offset, also where it was
// followed from another.
type FollowControl struct {
	Partition int32
	From      int64
}

// UnfollowControl ends the reading of a control partition.
type UnfollowControl struct{ Partition int32 }

// FindEnd wants Located.
type FindEnd struct {
	LP
	Gen  uint64
	Next int64 // the first request that is not done
	From int64 // of the token partition: what stands before was read
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
	Gen       uint64
	Request   *Request
	Expired   bool    // too old to be run: it ends as expired, unless the log holds its end
	Cancelled bool    // it ends as cancelled, unless the log holds its end; no model is called
	Resume    *Resume // what the log may hold of it from before our claim; nil: nothing
	Try       int     // how often this owner has started it, from 1
	Again     *Again  // what an earlier try of this owner left; goes before Resume
}

// Stop breaks a call off that was started: it ends as cancelled, unless it has
// ended. A call that is over already is passed over.
type Stop struct {
	LP
	Gen    uint64
	Offset int64
}

// Resume says where in the token partition a job's output stands.
type Resume struct {
	From  int64 // offset of the first event that is known of; -1: none is
	To    int64 // nothing of it stands at or behind this offset
	Epoch int64 // newest epoch of the lane before From
	Whole bool  // it begins at From; else it is to be looked for from the id's time
}

// AppendFact writes a fact to the jobs topic.
type AppendFact struct {
	LP
	Gen         uint64
	Offset      int64 // of the request that it settles; -1: it settles none
	Head        event.Head
	Data        []byte
	Traceparent []byte // the request's, of W3C Trace Context; nil: none
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

// Pause stops the fetching of a LP's requests.
type Pause struct{ LP }

// Resumed ends a Pause.
type Resumed struct{ LP }

// Seek reads a LP's requests from another offset.
type Seek struct {
	LP
	Life uint64 // of the assignment that it is for
	Next int64
}

// Evict removes a member from the group that was silent for so long. Evicted
// follows.
type Evict struct {
	Member, Owner string
	Silent        time.Duration
}

// Pulse says how a LP stands.
type Pulse struct {
	LP
	Epoch int64
	Data  event.Pulse
}

// Pulses writes pulses.
type Pulses struct{ Pulses []Pulse }

func (Follow) effect()          {}
func (Unfollow) effect()        {}
func (FollowControl) effect()   {}
func (UnfollowControl) effect() {}
func (FindEnd) effect()         {}
func (AppendClaim) effect()     {}
func (Open) effect()            {}
func (Shut) effect()            {}
func (Start) effect()           {}
func (Stop) effect()            {}
func (AppendFact) effect()      {}
func (Bury) effect()            {}
func (Commit) effect()          {}
func (Release) effect()         {}
func (Pause) effect()           {}
func (Resumed) effect()         {}
func (Seek) effect()            {}
func (Evict) effect()           {}
func (Pulses) effect()          {}
