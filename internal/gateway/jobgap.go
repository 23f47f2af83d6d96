package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// hole is where a job's stream stood when it met a gap, until it is known whether
// what is missing can be had elsewhere: what is read meanwhile is read once more.
type hole struct {
	gap          gapData // which is told with what is behind it
	next         int64
	leaderEpoch  int32
	filter       fence.Filter
	progress     job.Progress
	anySeq, seen bool
}

// mend is what is known of a job that has ended, by its row, for a client that is
// missing some of what it said. The row's text stands in place of all events up to
// the terminal one, which the log may have lost as well. It is asked for when that
// one was found, or is known to be lost: the search for it holds no text.
type mend struct {
	hole  *hole // where it goes on if the row has it no more
	until int64 // the log's end when the job had ended: its terminal event lies below
	due   *due  // nil while its terminal event is looked for
}

// due is where a mend is sent, and the stream goes on behind it.
type due struct {
	at      string // the cursor of that place
	offset  int64  // of the terminal event
	through int64  // the seq before it; -1 where it does not follow, or the log has none
}

// endSlack is by how much a job's terminal event may be older than its row says,
// whose time is that of the fact: a fact is written when its event was read back,
// and by another clock after a takeover. One that is older yet is taken for lost,
// and the row tells of the end as well.
const endSlack = time.Hour

// mendData is a snapshot of a job behind which no event follows.
type mendData struct {
	Text   string     `json:"text"`
	Status job.Status `json:"status"`
}

// gap implements taker. A log that has lost events is mended by the job's row, where
// that has the whole answer. The gap is told with the mend: a client that was cut off
// between the two would come back behind the gap, and miss the mend. What else is
// missing behind it is in the mend too, or is met once more where there is none.
func (f *jobFeed) gap(reason, cursor string) {
	switch data := (gapData{reason, cursor}); {
	case f.mend != nil:
	case reason == gapMissing:
		f.tellGap(cursor, data)
	default:
		f.hole = &hole{data, f.reader.next, f.reader.leaderEpoch, f.reader.filter, f.progress, f.anySeq, f.seen}
	}
}

// tellGap tells of a gap. at is the place where one who comes back goes on, "" where
// that is in front of the gap until he has what follows it.
func (f *jobFeed) tellGap(at string, data gapData) {
	f.out.notice(at, notice{Type: streamGap, Tenant: f.tenant, Job: f.id, Data: data}, f.g.cfg.Now())
}

// gaping tells whether a gap is still to be told.
func (f *jobFeed) gaping() bool { return f.hole != nil || f.mend != nil }

// fill asks whether what is missing can be had from the job's row, and goes on where
// the gap was, or not long before the job's end. A job that goes on has no text
// there, and neither has one whose row cannot be asked for: of these the client has
// what the log has.
func (f *jobFeed) fill(ctx context.Context) error {
	row, err := f.g.row(ctx, f.tenant, f.id)
	h, from := f.hole, f.hole.next
	if err == nil && tellsAll(row) {
		tp := f.g.hub.of(f.part.id)
		until, err := f.g.offset(ctx, tp, kafka.End())
		if err != nil {
			return err
		}
		if !row.EndedAt.IsZero() {
			near, err := f.g.offset(ctx, tp, kafka.AtTime(row.EndedAt.Add(-endSlack)))
			if err != nil {
				return err
			}
			from = max(from, min(near, until))
		}
		f.endSnapshot() // it would lack what is missing
		f.mend = &mend{hole: h, until: until}
		f.reader.about = subject{} // it is rung for others' records too, which tell that until has come
		f.reader.narrow()
	} else {
		f.tellGap(h.gap.Cursor, h.gap)
	}
	f.hole = nil
	f.goBack(h)
	if f.snap != nil { // the log may be shorter by now than when it was begun
		end, _ := f.part.end()
		f.snap.until = min(f.snap.until, end)
	}
	if from > h.next {
		f.reader.seek(from)
	}
	return nil
}

// tellsAll tells whether a row has all that a job said.
func tellsAll(row *job.Resource) bool { return row != nil && row.Status.Ended() && len(row.Output) > 0 }

func (f *jobFeed) goBack(h *hole) {
	f.reader.seek(h.next)
	f.reader.leaderEpoch, f.reader.filter = h.leaderEpoch, h.filter
	f.progress, f.anySeq, f.seen = h.progress, h.anySeq, h.seen
}

// dueAt finds the place of a mend by the job's terminal event, which follows it. One
// that has some of the text itself, as that of a long answer that nobody watches, does
// not: a client would show that twice.
func (f *jobFeed) dueAt(e *entry) *due {
	var end event.Stopped
	if err := event.DecodeData(e.view.Data, &end); err == nil && len(end.Deltas) == 0 {
		return &due{f.reader.place(e.offset, -1), e.offset, e.view.Seq - 1}
	}
	return &due{f.reader.cursor(e), e.offset, -1}
}

// found comes after a poll in which a mend became due: the stream goes back in front
// of the terminal event, which is sent behind the mend.
func (f *jobFeed) found(wait <-chan struct{}, err error) (<-chan struct{}, error) {
	m := f.mend
	switch {
	case m.due != nil:
		f.reader.seek(m.due.offset)
		f.progress = job.Progress{NextSeq: m.due.through + 1}
	case errors.Is(err, errNoMore), err == nil && f.reader.next >= m.until: // the log has lost the end as well
		m.due = &due{at: f.reader.here(), through: -1}
	default:
		return wait, err
	}
	return nil, nil
}

// sendMend sends what the row has. Where it has it no more, the client has what the
// log has, from the gap on.
func (f *jobFeed) sendMend(ctx context.Context) error {
	m := f.mend
	row, err := f.g.row(ctx, f.tenant, f.id)
	if err != nil && !notFound(err) {
		return err
	}
	f.mend = nil
	if !tellsAll(row) {
		f.tellGap(m.hole.gap.Cursor, m.hole.gap)
		f.goBack(m.hole)
		return nil
	}
	f.tellGap("", m.hole.gap)
	text := row.Output[0].Message.Content
	n := notice{Type: streamSnapshot, Tenant: f.tenant, Job: f.id, Data: snapshotData{text, m.due.through}}
	if m.due.through < 0 {
		n.Data = mendData{text, row.Status}
		f.outcome, f.over = row.Status, true
	}
	f.out.notice(m.due.at, n, f.g.cfg.Now())
	return nil
}

// status names how the job ended, as far as it is known.
func (f *jobFeed) status() string {
	if f.outcome != "" {
		return string(f.outcome)
	}
	return statusOf(&f.progress)
}
