package event

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DeadLetter is a record that can never be run, as it lies on the dead topic:
// where it stood and why it was refused in headers, in a fixed order, and behind
// them its own headers, with its key and its value as they were.
type DeadLetter struct {
	Topic     string // where the record stood
	Partition int32
	Offset    int64
	Stage     string // who refused it, such as "processors"
	Reason    string // for people
	// Time is the record's own time; zero where an older build wrote the letter.
	Time time.Time
	// Omitted is the size in bytes of a value, or of headers, that would not
	// have fitted on the dead topic: the letter has neither then, and the record
	// is read from where it stood for as long as that is kept. 0: nothing is
	// left out.
	Omitted int

	Key, Value []byte // nil where the record had none
	Headers    []Header
}

// The headers of a dead letter.
const (
	deadTopic     = "penstock-topic"
	deadPartition = "penstock-partition"
	deadOffset    = "penstock-offset"
	deadStage     = "penstock-stage"
	deadReason    = "penstock-reason"
	deadTime      = "penstock-time"    // milliseconds since 1970
	deadOmitted   = "penstock-omitted" // bytes
	deadRedrives  = "penstock-redrives"
	deadRedriven  = "penstock-redriven"
)

const (
	// maxReason bounds a dead letter's reason, in bytes.
	maxReason = 1024
	// deadOverhead is more than the headers of a dead letter and its batch take.
	deadOverhead = 4096
	// headerRoom is more than a header takes beside its key and value.
	headerRoom = 16
)

// Bury makes the dead letter of a record that a stage refuses. A letter that
// would take more than limit bytes is made without value and headers, and says so.
func Bury(rec *Record, stage, reason string, limit int) DeadLetter {
	d := DeadLetter{
		Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Stage: stage, Time: rec.Time,
		Reason: strings.ToValidUTF8(reason[:min(len(reason), maxReason)], ""),
		Key:    rec.Key, Value: rec.Value, Headers: rec.Headers,
	}
	size := len(rec.Value)
	for _, h := range rec.Headers {
		size += len(h.Key) + len(h.Value) + headerRoom
	}
	if limit > 0 && len(rec.Key)+size+deadOverhead > limit {
		d.Value, d.Headers, d.Omitted = nil, nil, size
		if len(rec.Key)+deadOverhead > limit {
			d.Key, d.Omitted = nil, size+len(rec.Key)
		}
	}
	return d
}

// Record is the letter as a record of the dead topic.
func (d *DeadLetter) Record(topic string, now time.Time) Record {
	number := func(n int64) []byte { return strconv.AppendInt(nil, n, 10) }
	headers := append(make([]Header, 0, 7+len(d.Headers)),
		Header{deadTopic, []byte(d.Topic)},
		Header{deadPartition, number(int64(d.Partition))},
		Header{deadOffset, number(d.Offset)},
		Header{deadStage, []byte(d.Stage)},
		Header{deadReason, []byte(d.Reason)},
		Header{deadTime, number(d.Time.UnixMilli())},
		Header{deadOmitted, number(int64(d.Omitted))},
	)
	return Record{Topic: topic, Key: d.Key, Value: d.Value, Headers: append(headers, d.Headers...), Time: now}
}

// ParseDeadLetter reads a record of the dead topic. Whoever may write there may
// write anything: an error says what it is not.
func ParseDeadLetter(rec *Record) (DeadLetter, error) {
	d := DeadLetter{Key: rec.Key, Value: rec.Value}
	rest := rec.Headers
	var err error
	text := func(key string) string {
		if len(rest) == 0 || rest[0].Key != key {
			if err == nil {
				err = fmt.Errorf("no dead letter: its headers do not go on with %s", key)
			}
			return ""
		}
		value := string(rest[0].Value)
		rest = rest[1:]
		return value
	}
	number := func(key string, bits int) int64 {
		value := text(key)
		n, perr := strconv.ParseInt(value, 10, bits)
		if perr != nil && err == nil {
			err = fmt.Errorf("no dead letter: %.40q is no %s", value, key)
		}
		return n
	}
	d.Topic = text(deadTopic)
	d.Partition = int32(number(deadPartition, 32)) //nolint:gosec // parsed as 32 bits
	d.Offset = number(deadOffset, 64)
	d.Stage, d.Reason = text(deadStage), text(deadReason)
	if err != nil {
		return DeadLetter{}, err
	}
	if len(rest) > 1 && rest[0].Key == deadTime && rest[1].Key == deadOmitted { // older builds wrote neither
		d.Time = time.UnixMilli(number(deadTime, 64))
		d.Omitted = int(number(deadOmitted, 32))
	}
	if err == nil && (d.Partition < 0 || d.Offset < 0 || d.Omitted < 0) {
		err = fmt.Errorf("no dead letter: it says that it stood at partition %d, offset %d, and that %d bytes are left out", d.Partition, d.Offset, d.Omitted)
	}
	if len(rest) > 0 {
		d.Headers = rest
	}
	return d, err
}

// Redrives is how often the record was written back before it was refused.
func (d *DeadLetter) Redrives() int {
	if n := len(d.Headers); n > 0 && d.Headers[n-1].Key == deadRedrives {
		if times, err := strconv.ParseUint(string(d.Headers[n-1].Value), 10, 31); err == nil {
			return int(times)
		}
	}
	return 0
}

// Redrive is the record to write back to where it stood: its bytes as they were,
// and behind its headers one that counts how often that was done.
func (d *DeadLetter) Redrive() Record {
	times := d.Redrives()
	headers := d.Headers
	if times > 0 {
		headers = headers[:len(headers)-1]
	}
	return Record{
		Topic: d.Topic, Partition: d.Partition, Key: d.Key, Value: d.Value,
		Headers: append(slices.Clip(headers), Header{deadRedrives, strconv.AppendInt(nil, int64(times)+1, 10)}),
	}
}

// Redriven says, on the dead topic, that a letter was written back: which, and
// where it stands now.
type Redriven struct {
	Letter    int64 // the letter's offset on the dead topic
	Topic     string
	Partition int32
	Offset    int64
}

// Record is the note as a record of the dead topic.
func (r *Redriven) Record(topic string, now time.Time) Record {
	number := func(n int64) []byte { return strconv.AppendInt(nil, n, 10) }
	return Record{Topic: topic, Time: now, Headers: []Header{
		{deadRedriven, number(r.Letter)},
		{deadTopic, []byte(r.Topic)},
		{deadPartition, number(int64(r.Partition))},
		{deadOffset, number(r.Offset)},
	}}
}

// ParseRedriven reads such a note; ok is false for any other record.
func ParseRedriven(rec *Record) (r Redriven, ok bool) {
	h := rec.Headers
	if len(h) != 4 || h[0].Key != deadRedriven || h[1].Key != deadTopic || h[2].Key != deadPartition || h[3].Key != deadOffset {
		return r, false
	}
	letter, err1 := strconv.ParseInt(string(h[0].Value), 10, 64)
	partition, err2 := strconv.ParseInt(string(h[2].Value), 10, 32)
	offset, err3 := strconv.ParseInt(string(h[3].Value), 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return r, false
	}
	return Redriven{Letter: letter, Topic: string(h[1].Value), Partition: int32(partition), Offset: offset}, true
}
