// Package fence decides who may write to a lane of a partition, and which
// records count. Ownership stands in the log that it guards, as claims with
// epochs; the log's order is the arbiter, so all readers decide alike.
//
// Everything here is pure: plain comparable values, no clock, no goroutine.
// explore_test.go searches all interleavings of what can go wrong between
// owners, with these very types.
package fence

import "github.com/penstock-io/penstock/internal/event"

// Epochs are the newest epochs known, by lane.
type Epochs [event.LaneCount]int64

// Filter tells the records that count from those of an owner that was fenced.
// One Filter serves one partition, fed in log order. The zero Filter is that of
// a reader with no history: what it meets first, it believes. That is right for
// a reader who begins at or before a job's creation and asks for that job.
type Filter struct {
	Epochs Epochs
}

// Admit takes the next record of the partition and tells whether it counts. An
// output counts unless its epoch is older than the newest seen of its lane. A
// claim always moves the epoch on, and counts if it is newer than all before.
func (f *Filter) Admit(v *event.View) bool {
	if v.Lane == event.NoLane {
		return false
	}
	newest := &f.Epochs[v.Lane]
	if v.Type == event.LaneClaimed {
		fresh := v.Epoch > *newest
		*newest = max(*newest, v.Epoch)
		return fresh
	}
	if !v.Type.Output() || v.Epoch < *newest && !torn {
		return false
	}
	*newest = max(*newest, v.Epoch)
	return true
}

// Pass takes in the newest epochs of records that were passed over, by lane.
func (f *Filter) Pass(newest Epochs) {
	for lane, epoch := range newest {
		f.Epochs[lane] = max(f.Epochs[lane], epoch)
	}
}
