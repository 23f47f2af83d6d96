package chaos

import (
	"context"
	"fmt"
	"slices"

	"github.com/penstock-io/penstock/internal/event"
)

// evidenceOf is how many jobs with violations have their records shown.
const evidenceOf = 3

// evidence lists what stands in the token topic of the first jobs that something
// is wrong with, and the claims of their lanes, for whoever looks into it.
func (d *deployment) evidence(ctx context.Context, ends map[int32]int64, v *Verdict) []string {
	var jobs, lines []string
	for i := range v.Violations {
		if id := v.Violations[i].Job; id != "" && !slices.Contains(jobs, id) && len(jobs) < evidenceOf {
			jobs = append(jobs, id)
		}
	}
	for _, id := range jobs {
		var lane event.Lane
		log := NewLog()
		partition := d.partitionOf(ctx, ends, id)
		err := scan(ctx, d.cluster, d.names.Tokens(), map[int32]int64{partition: ends[partition]}, func(rec *event.Record) {
			h, owner, counts := log.admit(rec.Partition, rec.Value)
			if string(h.Job) != id && (h.Type != event.LaneClaimed || lane != event.NoLane && h.Lane != lane) {
				return
			}
			if h.Type != event.LaneClaimed {
				lane = h.Lane
			}
			mark := ""
			if h.Type != event.LaneClaimed && !counts {
				mark = " FENCED"
			}
			lines = append(lines, fmt.Sprintf("%s: %d/%d %s %s attempt %d seq %d %s epoch %d by %s %s%s", id, rec.Partition, rec.Offset,
				h.Time, h.Type, h.Attempt, h.Seq, h.Lane, h.Epoch, owner, d.slotOf(owner), mark))
		})
		if err != nil {
			lines = append(lines, err.Error())
		}
	}
	return lines
}

// partitionOf finds where a job's records lie; 0 where it has none.
func (d *deployment) partitionOf(ctx context.Context, ends map[int32]int64, id string) (found int32) {
	_ = scan(ctx, d.cluster, d.names.Tokens(), ends, func(rec *event.Record) { // what cannot be read is told by who reads next
		if h, err := event.ScanHead(rec.Value); err == nil && string(h.Job) == id {
			found = rec.Partition
		}
	})
	return found
}
