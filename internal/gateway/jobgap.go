package gateway

import (
	"context"

	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// hole is where a job's stream stood when it met a gap, until it is known whether
// what is missing can be had elsewhere: what is read meanwhile is read once more.
type hole struct {
	next         int64
	leaderEpoch  int32
	filter       fence.Filter
	progress     job.Progress
	anySeq, seen bool
}

// mend is what a job said that has ended, by its row, for a client that is missing
// some of it. It stands in place of all events up to the terminal one, which the log
// may have lost as well.
type mend struct {
	text   string
	status job.Status
	until  int64 // the log's end when the job had ended: its terminal event lies below
	free   func()
}

// mendData is a snapshot of a job of which the log has no event left.
type mendData struct {
	Text   string     `json:"text"`
	Status job.Status `json:"status"`
}

// gap implements taker. A log that has lost events is mended by the job's row, where
// that has the whole answer.
func (f *jobFeed) gap(reason, cursor string) {
	f.out.notice(cursor, notice{Type: streamGap, Tenant: f.tenant, Job: f.id, Data: gapData{reason, cursor}}, f.g.cfg.Now())
	if reason != gapMissing && f.mend == nil {
		f.hole = &hole{f.reader.next, f.reader.leaderEpoch, f.reader.filter, f.progress, f.anySeq, f.seen}
	}
}

// fill asks whether what is missing can be had from the job's row, and goes on where
// the gap was. A job that goes on has no text there, and neither has one whose row
// cannot be asked for: of these the client has what the log has.
func (f *jobFeed) fill(ctx context.Context) error {
	row, err := f.g.row(ctx, f.tenant, f.id)
	if err == nil && row != nil && row.Status.Ended() && len(row.Output) > 0 {
		f.endSnapshot() // it would lack what is missing
		until, err := f.g.offset(ctx, f.g.hub.of(f.part.id), kafka.End())
		if err != nil {
			return err
		}
		free, err := f.g.fold(ctx)
		if err != nil {
			return err
		}
		f.mend = &mend{row.Output[0].Message.Content, row.Status, until, free}
		f.reader.about = subject{} // it is rung for others' records too, which tell that until has come
		f.reader.narrow()
	}
	h := f.hole
	f.hole = nil
	f.reader.seek(h.next)
	f.reader.leaderEpoch, f.reader.filter = h.leaderEpoch, h.filter
	f.progress, f.anySeq, f.seen = h.progress, h.anySeq, h.seen
	return nil
}

// sendMend sends what the row has. through is the seq before the terminal event; -1
// where the log has none.
func (f *jobFeed) sendMend(at string, through int64) {
	n := notice{Type: streamSnapshot, Tenant: f.tenant, Job: f.id, Data: snapshotData{f.mend.text, through}}
	if through < 0 {
		n.Data = mendData{f.mend.text, f.mend.status}
		f.outcome = f.mend.status
	}
	f.out.notice(at, n, f.g.cfg.Now())
	f.endMend()
}

func (f *jobFeed) endMend() {
	if f.mend != nil {
		f.mend.free()
		f.mend = nil
	}
}

// status names how the job ended, as far as it is known.
func (f *jobFeed) status() string {
	if f.outcome != "" {
		return string(f.outcome)
	}
	return statusOf(&f.progress)
}
