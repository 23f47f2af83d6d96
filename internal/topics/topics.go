// Package topics is the catalogue of Penstock's topics as typed data: their
// names under a prefix, how they are partitioned, kept and bounded, and what
// would have to change on a cluster to agree with it. It is pure: it speaks to
// no broker and starts no goroutine.
package topics

import (
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/internal/event"
)

const (
	// DefaultPrefix stands before every topic's name.
	DefaultPrefix = "penstock."
	// DefaultPartitions is the partition count of the request, control, token
	// and jobs topics. It is fixed for a prefix's life: to grow is a new prefix.
	DefaultPartitions = 12
	// DefaultMaxRequestBytes bounds a record on a request topic, in bytes.
	DefaultMaxRequestBytes = 4 << 20
	// DefaultMaxOutputBytes bounds a record on the jobs topic, in bytes: it
	// holds a job's whole output.
	DefaultMaxOutputBytes = 8 << 20
)

const (
	maxTokenBytes   = 1 << 20  // one coalesced delta, with a wide margin
	maxControlBytes = 64 << 10 // a cancel is some hundred bytes
	maxPulseBytes   = 64 << 10 // a pulse with full commit metadata is some KB
	deadMarginBytes = 1 << 20  // room for the reason beside the original bytes
	requestsKept    = 3 * 24 * time.Hour
	tokensKept      = 7 * 24 * time.Hour
	deadKept        = 30 * 24 * time.Hour
	forEver         = time.Duration(-1)
	// segmentAge makes retention precise to the hour: Kafka drops whole
	// segments only.
	segmentAge = time.Hour
	// pulseSegmentAge and pulseSegmentBytes let the cleaner at the pulses soon,
	// so that a newcomer reads few of them.
	pulseSegmentAge   = time.Minute
	pulseSegmentBytes = 1 << 20
)

// Names gives the topics' names under a prefix.
type Names struct{ Prefix string }

// Requests is the topic on which a lane's requests come in.
func (n Names) Requests(lane event.Lane) string { return n.Prefix + "requests." + lane.String() }

// Control holds cancellations, which overtake what they cancel.
func (n Names) Control() string { return n.Prefix + "control" }

// Tokens holds the output, token by token, and the claims that guard it.
func (n Names) Tokens() string { return n.Prefix + "tokens" }

// Jobs holds the facts that are kept for ever.
func (n Names) Jobs() string { return n.Prefix + "jobs" }

// Pulse holds the owners' signs of life.
func (n Names) Pulse() string { return n.Prefix + "pulse" }

// Dead holds records that were refused, as they came.
func (n Names) Dead() string { return n.Prefix + "dead" }

// LaneOf returns the lane whose requests come in on a topic.
func (n Names) LaneOf(topic string) (event.Lane, bool) {
	name, ok := strings.CutPrefix(topic, n.Prefix+"requests.")
	if !ok {
		return event.NoLane, false
	}
	lane, err := event.ParseLane(name)
	return lane, err == nil
}

// Topic is a topic as it should be.
type Topic struct {
	Name        string
	Partitions  int32
	Replication int16 // copies; -1 leaves it to the broker's default
	Configs     map[string]string
	Purpose     string // what it holds, for people
}

// Options says how a deployment's topics are made. The zero value of a field
// takes its default.
type Options struct {
	Prefix          string // default DefaultPrefix
	Partitions      int32  // default DefaultPartitions
	Replication     int16  // default 1; 3 in production
	MinISR          int    // min.insync.replicas; default 2 where Replication is 3 or more, else 1
	MaxRequestBytes int    // default DefaultMaxRequestBytes
	MaxOutputBytes  int    // default DefaultMaxOutputBytes
}

func (o Options) withDefaults() Options {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Partitions <= 0 {
		o.Partitions = DefaultPartitions
	}
	if o.Replication == 0 {
		o.Replication = 1
	}
	if o.MinISR <= 0 {
		o.MinISR = 1
		if o.Replication >= 3 {
			o.MinISR = 2
		}
	}
	if o.MaxRequestBytes <= 0 {
		o.MaxRequestBytes = DefaultMaxRequestBytes
	}
	if o.MaxOutputBytes <= 0 {
		o.MaxOutputBytes = DefaultMaxOutputBytes
	}
	return o
}

// Catalogue returns every topic that Penstock needs, in the order in which work
// flows through them.
func Catalogue(opts Options) []Topic {
	o := opts.withDefaults()
	n := Names{Prefix: o.Prefix}
	var list []Topic
	for _, lane := range event.Lanes() {
		list = append(list, o.topic(n.Requests(lane), "requests of the "+lane.String()+" lane", o.MaxRequestBytes, requestsKept))
	}
	list = append(list,
		o.topic(n.Control(), "cancellations", maxControlBytes, requestsKept),
		o.topic(n.Tokens(), "output, token by token, and the claims that guard it", maxTokenBytes, tokensKept),
		o.topic(n.Jobs(), "facts about jobs and batches, kept for ever", o.MaxOutputBytes, forEver),
	)
	pulse := o.topic(n.Pulse(), "owners' signs of life", maxPulseBytes, forEver)
	pulse.Partitions = 1
	pulse.Configs["cleanup.policy"] = "compact"
	delete(pulse.Configs, "retention.ms")
	pulse.Configs["segment.ms"] = millis(pulseSegmentAge)
	pulse.Configs["segment.bytes"] = strconv.Itoa(pulseSegmentBytes)
	pulse.Configs["min.cleanable.dirty.ratio"] = "0.1"
	dead := o.topic(n.Dead(), "records that were refused, as they came",
		max(o.MaxOutputBytes, o.MaxRequestBytes, maxTokenBytes)+deadMarginBytes, deadKept)
	dead.Partitions = 1
	return append(list, pulse, dead)
}

// topic is a topic that is kept for a time.
func (o Options) topic(name, purpose string, maxBytes int, kept time.Duration) Topic {
	return Topic{
		Name: name, Partitions: o.Partitions, Replication: o.Replication, Purpose: purpose,
		Configs: map[string]string{
			"cleanup.policy":                 "delete",
			"retention.ms":                   millis(kept),
			"retention.bytes":                "-1", // time alone decides: a size limit would take jobs in flight
			"segment.ms":                     millis(segmentAge),
			"max.message.bytes":              strconv.Itoa(maxBytes),
			"min.insync.replicas":            strconv.Itoa(o.MinISR),
			"unclean.leader.election.enable": "false",
			// A job is found by its id's time, so the producer's time must stay.
			"message.timestamp.type": "CreateTime",
		},
	}
}

func millis(d time.Duration) string {
	if d < 0 {
		return "-1"
	}
	return strconv.FormatInt(d.Milliseconds(), 10)
}

// MaxBytes is the max.message.bytes of topics by name, as a producer wants it.
func MaxBytes(list []Topic) map[string]int {
	sizes := make(map[string]int, len(list))
	for _, t := range list {
		if n, err := strconv.Atoi(t.Configs["max.message.bytes"]); err == nil {
			sizes[t.Name] = n
		}
	}
	return sizes
}
