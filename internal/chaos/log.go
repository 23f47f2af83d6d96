package chaos

import (
	"fmt"

	"github.com/penstock-io/penstock/internal/event"
)

// Log is what stands in the token topic, by a reader's own fence: per partition
// and lane the newest epoch, and nothing older counts. Partitions may be fed in
// any order, each in its log's. It is written anew here, and not fence.Filter.
type Log struct {
	epochs map[ownership]int64
	owners map[claim]string
	jobs   map[string]*logged
	found  []Violation

	Outputs int // that count
	Fenced  int // of an older epoch
	Claims  int
}

// ownership is what an owner has: a lane of a partition.
type ownership struct {
	partition int32
	lane      event.Lane
}

type claim struct {
	ownership
	epoch int64
}

// logged is one job in the log.
type logged struct {
	fold
	owner   string // of the newest event
	resumed int    // how often another owner went on in the middle of an attempt
}

// NewLog makes a log of which nothing was read.
func NewLog() *Log {
	return &Log{epochs: map[ownership]int64{}, owners: map[claim]string{}, jobs: map[string]*logged{}}
}

// Take takes the next record of a partition.
func (l *Log) Take(partition int32, value []byte) { l.admit(partition, value) }

// admit is Take, and returns the event and its writer if it is an output that
// counts.
func (l *Log) admit(partition int32, value []byte) (v event.View, owner string, counts bool) {
	v, err := event.ScanHead(value)
	if err != nil {
		l.found = append(l.found, Violation{Lost, "", fmt.Sprintf("partition %d holds what is no event: %v", partition, err)})
		return v, "", false
	}
	own := ownership{partition, v.Lane}
	if v.Type == event.LaneClaimed {
		l.Claims++
		if v.Epoch > l.epochs[own] {
			var c event.Claim
			_ = event.DecodeData(v.Data, &c) // one that names nobody is nobody's
			l.epochs[own], l.owners[claim{own, v.Epoch}] = v.Epoch, c.Owner
		}
		return v, "", false
	}
	if !v.Type.Output() {
		return v, "", false
	}
	if v.Epoch < l.epochs[own] {
		l.Fenced++
		return v, "", false
	}
	l.epochs[own] = v.Epoch
	l.Outputs++
	owner = l.owners[claim{own, v.Epoch}]
	l.output(&v, owner)
	return v, owner, true
}

func (l *Log) output(v *event.View, owner string) {
	j := l.jobs[string(v.Job)]
	if j == nil {
		j = &logged{owner: owner}
		l.jobs[string(v.Job)] = j
	}
	if kind, what := j.take(v); kind != "" {
		l.found = append(l.found, Violation{kind, string(v.Job), "in the log, unfenced, " + what})
	}
	if j.owner != owner && v.Type == event.OutputDelta { // else a new attempt, or an end alone
		j.resumed++
	}
	j.owner = owner
}

// fact is a terminal fact, or a row, as far as it is compared.
type fact struct {
	status  string
	attempt int
	endedAt string
	text    string
}

// Facts are the terminal facts on the jobs topic, by job.
type Facts struct {
	jobs  map[string][]fact
	found []Violation
	Count int
}

// NewFacts makes facts of which none was read.
func NewFacts() *Facts { return &Facts{jobs: map[string][]fact{}} }

// Take takes one record of the jobs topic.
func (f *Facts) Take(value []byte) {
	v, err := event.ScanHead(value)
	if err != nil {
		f.found = append(f.found, Violation{Lost, "", fmt.Sprintf("the jobs topic holds what is no event: %v", err)})
		return
	}
	if !v.Type.Terminal() {
		return
	}
	f.Count++
	var data event.Fact
	_ = event.DecodeData(v.Data, &data) // a failure has another data, which has no text
	got := fact{status: string(statusOf(v.Type)), attempt: v.Attempt, endedAt: string(v.Time)}
	if len(data.Output) > 0 {
		got.text = data.Output[0].Message.Content
	}
	f.jobs[string(v.Job)] = append(f.jobs[string(v.Job)], got)
}
