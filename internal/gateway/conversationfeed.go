package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
)

const (
	// maxTracked bounds the jobs of a conversation whose progress is known. They
	// run one after the other, in each lane that the conversation is in.
	maxTracked = 16
	// rowsBehind is how far behind the rows may be where a conversation's
	// snapshot is asked for.
	rowsBehind = 10 * time.Second
)

// conversationFeed is what the jobs of a conversation say, in the order of the
// log. It does not end.
//
// Where it begins at a cursor, it has all that lies behind. Else it has the jobs
// whose first event it sees, and so begins at or before their creation, which is
// what makes the fence's word good for a reader without a history. The snapshot
// begins where the oldest job began that has not ended.
type conversationFeed struct {
	g          *Gateway
	tenant, id string
	out        sink

	part    *partition
	reader  *reader
	whole   bool      // a job counts only if its first event was seen
	jobs    []tracked // the newest last
	over    bool
	visitor func(*entry) bool

	begin int64 // where a snapshot's reading begins
	asks  bool  // for a snapshot that is to be begun
	snap  *talk // until the snapshot was sent
}

// tracked is a job of the conversation.
type tracked struct {
	id string
	job.Progress
}

// talk gathers what the conversation's running jobs have said: there is one at a
// time in each lane that the conversation is in.
type talk struct {
	until int64 // events from this offset on are sent as they are
	said  [event.LaneCount]speech
	free  func()
}

// speech is what a job has said. The zero speech is of none.
type speech struct {
	id   string
	text job.Transcript
}

// open finds the conversation's partition, and where to begin there.
func (f *conversationFeed) open(ctx context.Context, named *int32, at string, snapshot bool) error {
	f.visitor, f.whole = f.visit, at == ""
	id := job.Partition(f.id, f.g.cfg.Partitions)
	var since time.Time
	if snapshot {
		oldest, err := f.oldest(ctx)
		if err != nil {
			return err
		}
		since = f.g.cfg.Now().Add(-rowsBehind)
		if oldest != nil && oldest.Request != nil {
			id = oldest.Request.Partition
			if made := oldest.CreatedAt.Add(-f.slack(oldest.ID)); made.Before(since) {
				since = made
			}
		}
	}
	if named != nil {
		id = *named // the reader knows better
	}
	if id < 0 || id >= f.g.cfg.Partitions {
		return fault.Param("partition", "there is no partition %d: they run from 0 to %d", id, f.g.cfg.Partitions-1)
	}
	var err error
	if f.part, err = f.g.hub.acquire(ctx, id); err != nil {
		return unavailable(ctx, err)
	}
	switch end, _ := f.part.end(); {
	case at != "":
		err = f.resume(ctx, at)
	case snapshot:
		f.asks = true
		f.begin, _, err = f.g.begin(ctx, f.part, place{partition: id, since: since})
		f.reader = newReader(f.g.hub, f.part, f.begin, -1)
	default:
		f.reader = newReader(f.g.hub, f.part, end, -1)
	}
	if err != nil {
		f.g.hub.release(f.part)
		return err
	}
	f.reader.about = subject{ofConversation, f.id}
	f.reader.narrow()
	return nil
}

func (f *conversationFeed) oldest(ctx context.Context) (*job.Resource, error) {
	if f.g.cfg.Open == nil {
		return nil, fault.Param("snapshot", "there is no database here to find the conversation's running job in: subscribe without a snapshot")
	}
	ctx, cancel := f.g.patience(ctx)
	defer cancel()
	return f.g.cfg.Open.Oldest(ctx, f.tenant, f.id) //nolint:wrapcheck // a fault already
}

// slack is by how much a job's first output may be before its row's time.
func (*conversationFeed) slack(id string) time.Duration {
	if _, minted := job.ParseID(id); minted {
		return 0
	}
	return rowSlack
}

// resume begins behind a cursor.
func (f *conversationFeed) resume(ctx context.Context, at string) error {
	c, err := f.g.checkCursor(ctx, f.part, at)
	if err != nil {
		return err
	}
	f.reader = newReader(f.g.hub, f.part, c.Next, c.LeaderEpoch)
	f.reader.filter.Epochs = c.Epochs
	e, err := f.reader.before(ctx)
	if gap, ok := errors.AsType[*gapError](err); ok {
		f.gap(gap.reason, f.reader.here(), "")
		return nil
	}
	if err != nil {
		return unavailable(ctx, err)
	}
	if e != nil && f.mine(e) && e.view.Epoch >= c.Epochs[e.view.Lane] {
		f.track(e).Apply(&e.view)
	}
	return nil
}

func (f *conversationFeed) mine(e *entry) bool {
	v := &e.view
	return v.Type.Output() && string(v.Conversation) == f.id && string(v.Tenant) == f.tenant
}

// poll implements feed.
func (f *conversationFeed) poll(ctx context.Context) (<-chan struct{}, error) {
	if f.over {
		return nil, errNoMore
	}
	if f.asks {
		if f.reader.near {
			return nil, errFar
		}
		return nil, f.beginSnapshot(ctx)
	}
	wait, err := f.reader.poll(ctx, f.visitor)
	if gap, ok := errors.AsType[*gapError](err); ok {
		f.over = gap.reason == gapRecreated
		f.whole, f.jobs = false, nil // what was skipped is told; it goes on in the middle
		f.gap(gap.reason, f.reader.here(), "")
		if f.snap != nil { // the log may be shorter by now than when it was begun
			end, _ := f.part.end()
			f.snap.until = min(f.snap.until, end)
		}
		wait, err = nil, nil
	}
	switch {
	case f.snap == nil:
	case err == nil && (f.over || f.reader.next >= f.snap.until):
		f.sendSnapshot(f.reader.here())
	case err != nil && !errors.Is(err, errFar):
		f.endSnapshot() // others need the room while the log cannot be read
		f.asks = true
	}
	return wait, err
}

func (f *conversationFeed) visit(e *entry) bool {
	v := &e.view
	if !f.reader.filter.Admit(v) || !f.mine(e) {
		return true
	}
	p := f.progress(e)
	if p == nil {
		return true
	}
	if v.Seq > p.NextSeq && p.End == "" && f.snap == nil {
		f.gap(gapMissing, f.reader.place(e.offset, -1), string(v.Job))
	}
	if !p.Apply(v) {
		return true
	}
	if f.snap != nil {
		if e.offset < f.snap.until {
			f.fold(e)
			return true
		}
		f.sendSnapshot(f.reader.place(e.offset, -1))
	}
	f.out.record(e, f.reader.cursor(e))
	return !f.out.full()
}

// progress is that of the record's job, nil if the job does not count.
func (f *conversationFeed) progress(e *entry) *job.Progress {
	for i := range f.jobs {
		if f.jobs[i].id == string(e.view.Job) {
			return &f.jobs[i].Progress
		}
	}
	if f.whole && e.view.Seq > 0 {
		return nil
	}
	return f.track(e)
}

// track begins with a job at a record of it. One that has ended makes room for it:
// while a job runs, any number may be cancelled that wait for it.
func (f *conversationFeed) track(e *entry) *job.Progress {
	if len(f.jobs) == maxTracked {
		at := max(slices.IndexFunc(f.jobs, func(t tracked) bool { return t.End != "" }), 0)
		f.jobs = slices.Delete(f.jobs, at, at+1)
	}
	f.jobs = append(f.jobs, tracked{string(e.view.Job), job.Progress{NextSeq: e.view.Seq}})
	return &f.jobs[len(f.jobs)-1].Progress
}

func (f *conversationFeed) gap(reason, cursor, id string) {
	f.g.metrics.gaps.WithLabelValues(reason).Inc()
	f.out.notice(cursor, notice{Type: streamGap, Tenant: f.tenant, Job: id, Data: gapData{reason, cursor}}, f.g.cfg.Now())
}

// fold adds an event to what the snapshot says. What a job said that has ended
// by then is history, and not in it; it may have ended while it waited for another.
func (f *conversationFeed) fold(e *entry) {
	s, id := &f.snap.said[e.view.Lane], string(e.view.Job)
	if e.view.Type.Terminal() {
		if s.id == id {
			*s = speech{}
		}
		return
	}
	if s.id != id {
		*s = speech{id: id}
	}
	if err := s.text.Apply(&e.view); err != nil {
		f.g.cfg.Logger.Warn("event not in the snapshot", slog.String("job", s.id), slog.Any("error", err))
	}
}

// folding implements folder.
func (f *conversationFeed) folding() bool { return f.snap != nil }

// pending implements folder.
func (f *conversationFeed) pending() bool { return f.asks }

// beginSnapshot begins to gather what was said so far.
func (f *conversationFeed) beginSnapshot(ctx context.Context) error {
	free, err := f.g.fold(ctx, f.g.cfg.Patience)
	if err != nil {
		return err
	}
	f.reader.seek(f.begin) // it may be there for the second time
	f.reader.filter, f.jobs = fence.Filter{}, nil
	until, _ := f.part.end()
	f.snap, f.asks = &talk{until: until, free: free}, false
	return nil
}

// sendSnapshot tells of each job that runs, or that there is none.
func (f *conversationFeed) sendSnapshot(at string) {
	none := true
	for i := range f.snap.said {
		if s := &f.snap.said[i]; s.id != "" {
			none = false
			f.tellSaid(at, s)
		}
	}
	if none {
		f.tellSaid(at, &speech{})
	}
	f.endSnapshot()
}

func (f *conversationFeed) tellSaid(at string, s *speech) {
	f.out.notice(at, notice{
		Type: streamSnapshot, Tenant: f.tenant, Job: s.id, Attempt: s.text.Attempt,
		Data: snapshotData{Text: s.text.Text(), ThroughSeq: s.text.NextSeq - 1},
	}, f.g.cfg.Now())
}

// endSnapshot implements folder.
func (f *conversationFeed) endSnapshot() {
	if f.snap != nil {
		f.snap.free()
		f.snap = nil
	}
}
