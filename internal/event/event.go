// Package event is the language that Penstock's stages speak: the records on
// its topics, their heads, their payloads, and what makes one valid.
//
// A value is JSON that reads by itself. Its head is written in a fixed order,
// so that the fence and the gateway can scan it without decoding (ScanHead).
// A field has one JSON type for ever, fields are only added, and readers
// ignore what they do not know. The package imports none of its siblings and
// starts no goroutine.
package event

import (
	"bytes"
	"fmt"
	"time"
)

// Version is the version that this build writes in every head.
const Version = 1

// DefaultTenant is the tenant of a request that names none.
const DefaultTenant = "default"

// Record is one record of a topic.
type Record struct {
	Topic       string
	Partition   int32
	Offset      int64
	LeaderEpoch int32 // of the batch that holds it (KIP-101)
	Key         []byte
	Value       []byte
	Headers     []Header
	Time        time.Time // the producer's; zero lets the client stamp it
	// Defect says why key, value and headers of what stands here could not be
	// read; "" for a good record.
	Defect string
}

// Header is one header of a Record.
type Header struct {
	Key   string
	Value []byte
}

// Header returns the value of the first header of that key, and nil without one.
func (r *Record) Header(key string) []byte {
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			return r.Headers[i].Value
		}
	}
	return nil
}

// Traceparent is the header of W3C Trace Context; nil where there is none, or
// what is there is none. Whoever may write a request may write any there, and of
// any size: this one may be written on.
func (r *Record) Traceparent() []byte {
	v := r.Header("traceparent")
	if len(v) != traceparentLength || !ValidTraceparent(string(v)) {
		return nil
	}
	return v
}

// Type names what an event says.
type Type string

// The types that this build writes. Readers skip and count any other.
const (
	JobRequested       Type = "job.requested"        // on requests.*
	JobCancelRequested Type = "job.cancel_requested" // on control

	LaneClaimed      Type = "lane.claimed" // on tokens: no job, no seq
	OutputStarted    Type = "output.started"
	OutputDelta      Type = "output.delta"
	OutputToolResult Type = "output.tool_result"
	OutputSuperseded Type = "output.superseded"
	OutputCompleted  Type = "output.completed"
	OutputFailed     Type = "output.failed"
	OutputCancelled  Type = "output.cancelled"

	JobStarted   Type = "job.started" // on jobs
	JobProgress  Type = "job.progress"
	JobRetrying  Type = "job.retrying"
	JobCompleted Type = "job.completed"
	JobFailed    Type = "job.failed"
	JobCancelled Type = "job.cancelled"
	JobExpired   Type = "job.expired"

	LanePulse Type = "lane.pulse" // on pulse
)

// typeOf returns the constant for a known name without allocating.
func typeOf(b []byte) Type {
	switch string(b) {
	case string(OutputDelta):
		return OutputDelta
	case string(OutputStarted):
		return OutputStarted
	case string(OutputCompleted):
		return OutputCompleted
	case string(OutputFailed):
		return OutputFailed
	case string(OutputCancelled):
		return OutputCancelled
	case string(OutputSuperseded):
		return OutputSuperseded
	case string(OutputToolResult):
		return OutputToolResult
	case string(LaneClaimed):
		return LaneClaimed
	case string(JobRequested):
		return JobRequested
	case string(JobStarted):
		return JobStarted
	case string(JobCompleted):
		return JobCompleted
	case string(JobFailed):
		return JobFailed
	default:
		return Type(b)
	}
}

// Output tells whether the type is a job's output on the token topic.
func (t Type) Output() bool {
	switch t {
	case OutputStarted, OutputDelta, OutputToolResult, OutputSuperseded,
		OutputCompleted, OutputFailed, OutputCancelled:
		return true
	default:
		return false
	}
}

// Terminal tells whether nothing follows an event of this type in its job.
func (t Type) Terminal() bool {
	switch t {
	case OutputCompleted, OutputFailed, OutputCancelled,
		JobCompleted, JobFailed, JobCancelled, JobExpired:
		return true
	default:
		return false
	}
}

// Lane is a priority class with a topic of its own.
type Lane uint8

// The lanes, most urgent first.
const (
	NoLane Lane = iota
	Interactive
	Standard
	Batch
)

// LaneCount is one more than the largest Lane, for arrays by lane.
const LaneCount = int(Batch) + 1

// Lanes returns every lane, most urgent first.
func Lanes() []Lane { return []Lane{Interactive, Standard, Batch} }

// String returns the lane's name, and "" for NoLane.
func (l Lane) String() string {
	switch l {
	case Interactive:
		return "interactive"
	case Standard:
		return "standard"
	case Batch:
		return "batch"
	default:
		return ""
	}
}

// ParseLane is the inverse of String.
func ParseLane(s string) (Lane, error) {
	if l := laneOf([]byte(s)); l != NoLane {
		return l, nil
	}
	return NoLane, fmt.Errorf("unknown lane %q: it is interactive, standard or batch", s)
}

func laneOf(b []byte) Lane {
	switch {
	case bytes.Equal(b, []byte("interactive")):
		return Interactive
	case bytes.Equal(b, []byte("standard")):
		return Standard
	case bytes.Equal(b, []byte("batch")):
		return Batch
	default:
		return NoLane
	}
}

// MarshalText implements encoding.TextMarshaler.
func (l Lane) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Lane) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*l = NoLane
		return nil
	}
	got, err := ParseLane(string(b))
	*l = got
	return err
}
