package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// position is how far an assigned partition has come in the table.
type position struct {
	topicID string
	next    int64
}

// loop is one membership of the group. One goroutine owns it; those of the
// transactions that are under way have their batch and their slot's sink, and
// tell of their end by ended and wake.
type loop struct {
	*Projector

	group  group
	loaded map[kafka.TopicPartition]checkpoint // by startAt, for the assignment under way
	owned  map[kafka.TopicPartition]*position
	// pending is what was polled and is in no transaction. While it is as much as a
	// transaction takes, nothing more is polled for: so that and one poll bound it.
	pending []item
	held    *holder // requests that were polled and wait for their jobs' first facts
	paused  bool
	fails   int // in a row
	size    int // records in the next transaction, at most

	slots [slots]slot
	under sync.WaitGroup
	ended chan *slot                         // whose transactions have ended
	wake  atomic.Pointer[context.CancelFunc] // ends the poll that is waiting
}

// newLoop makes a loop that has joined no group yet.
func newLoop(p *Projector) *loop {
	l := &loop{Projector: p, owned: map[kafka.TopicPartition]*position{}, held: newHolder(p.folder.names), size: p.cfg.MaxRecords}
	l.ended = make(chan *slot, len(l.slots))
	for i := range l.slots {
		l.slots[i].sink = p.sink
	}
	return l
}

// run polls and folds until ctx ends. After a failure it goes on polling in the
// pause, with its partitions paused: so changes of the group are seen in time.
func (l *loop) run(ctx context.Context) error {
	defer l.under.Wait() // they end with ctx
	for ctx.Err() == nil {
		err := l.poll(ctx)
		if err == nil {
			err = l.collect(ctx)
		}
		if err == nil {
			l.start(ctx)
		}
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, kafka.ErrClosed):
			return fmt.Errorf("run the projections: %w", err)
		case err != nil:
			l.fails++
			l.setTrouble(ctx, err)
			l.hold(true)
		case len(l.pending) == 0 && l.busy() == 0:
			l.fails = 0
			l.endTrouble(ctx)
			l.hold(false)
		}
	}
	return nil
}

// hold pauses what is assigned, or lets it go on.
func (l *loop) hold(paused bool) {
	if !paused && !l.paused {
		return
	}
	tps := make([]kafka.TopicPartition, 0, len(l.owned))
	for tp := range l.owned {
		tps = append(tps, tp)
	}
	if l.paused = paused; paused {
		l.group.Pause(tps...)
		return
	}
	l.group.Resume(tps...)
	for tp, part := range l.held.parts {
		if part.full {
			l.group.Pause(tp)
		}
	}
}

// turn pauses the partitions of which enough is held, and lets others go on.
func (l *loop) turn() {
	pause, resume := l.held.turn()
	if l.paused {
		return // all are; hold sees to these as well when they go on
	}
	if len(pause) > 0 {
		l.group.Pause(pause...)
	}
	if len(resume) > 0 {
		l.group.Resume(resume...)
	}
}

// poll takes what the group has to tell, until a transaction has ended or a held
// request is due. After a failure it waits for the pause to pass, whatever the
// group has to tell meanwhile.
func (l *loop) poll(ctx context.Context) error {
	if l.fails > 0 {
		return l.rest(ctx)
	}
	waiting, wake := context.WithCancel(ctx)
	defer wake()
	l.wake.Store(&wake)
	defer l.wake.Store(nil)
	switch {
	case len(l.ended) > 0:
		return nil
	case l.busy() > 0 && l.enough():
		<-waiting.Done()
		return nil
	}
	if due := l.held.next(); !due.IsZero() {
		var cancel context.CancelFunc
		waiting, cancel = context.WithDeadline(waiting, due)
		defer cancel()
	}
	return l.take(ctx, waiting)
}

// enough tells whether a transaction of the largest size is pending.
func (l *loop) enough() bool {
	bytes := 0
	for i := range l.pending {
		bytes += len(l.pending[i].Value)
	}
	return len(l.pending) >= l.cfg.MaxRecords || bytes >= l.cfg.MaxBytes
}

// rest polls on in the pause after a failure.
func (l *loop) rest(ctx context.Context) error {
	pause := min(firstPause<<min(l.fails-1, 10), lastPause)
	waiting, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	for waiting.Err() == nil {
		if err := l.take(ctx, waiting); err != nil {
			<-waiting.Done() // a poll that fails would fail again at once
			return err
		}
	}
	return nil
}

// take polls once; that nothing came before waiting ended is no error.
func (l *loop) take(ctx, waiting context.Context) error {
	p, err := l.group.Poll(waiting)
	if err != nil {
		if waiting.Err() != nil && errors.Is(err, waiting.Err()) {
			l.pass(nil)
			return nil
		}
		return err
	}
	if p.Revoked != nil || len(p.Lost)+len(p.Faults) > 0 {
		// What follows is of partitions of which nothing is under way.
		if err = l.finish(ctx); ctx.Err() != nil {
			return err
		}
	}
	for _, a := range p.Assigned {
		c := l.loaded[a.TopicPartition]
		l.owned[a.TopicPartition] = &position{c.topicID, a.Next}
		l.setStopped(a.TopicPartition, nil)
	}
	if l.paused && len(p.Assigned) > 0 {
		l.hold(true)
	}
	if p.Revoked != nil {
		l.drop(p.Revoked.Partitions)
		p.Revoked.Done()
	}
	l.drop(p.Lost)
	l.pass(p.Records)
	for _, f := range p.Faults {
		l.fault(ctx, f)
	}
	return err
}

// pass has what was polled written, now or when it is due.
func (l *loop) pass(records []event.Record) {
	l.pending = append(l.pending, l.held.pass(records, time.Now())...)
	l.turn()
}

// drop forgets partitions that are no longer this member's.
func (l *loop) drop(tps []kafka.TopicPartition) {
	for _, tp := range tps {
		l.disown(tp)
		l.setStopped(tp, nil)
	}
	for _, tp := range tps {
		if tp == l.facts(tp.Partition) { // it can't tell here any more what the database has lost
			l.askAgain(tp.Partition)
		}
	}
}

// disown forgets a partition.
func (l *loop) disown(tp kafka.TopicPartition) {
	delete(l.owned, tp)
	l.held.drop(tp)
	l.pending = slices.DeleteFunc(l.pending, func(r item) bool { return partitionOfRecord(&r.Record) == tp })
}

// askAgain reads a number's requests once more: some may have gone ahead of their
// checkpoints with facts that the database has lost, or of which it may not be
// learnt any more.
func (l *loop) askAgain(partition int32) {
	for _, lane := range event.Lanes() {
		tp := kafka.TopicPartition{Topic: l.folder.names.Requests(lane), Partition: partition}
		if l.owned[tp] != nil {
			l.again(tp)
		}
	}
}

// facts is the partition of the facts about one number's requests.
func (l *loop) facts(partition int32) kafka.TopicPartition {
	return kafka.TopicPartition{Topic: l.folder.names.Jobs(), Partition: partition}
}

func partitionOfRecord(r *event.Record) kafka.TopicPartition {
	return kafka.TopicPartition{Topic: r.Topic, Partition: r.Partition}
}

// startAt tells the group where partitions begin: at their checkpoints. It is
// called within Poll.
func (l *loop) startAt(ctx context.Context, assigned []kafka.TopicPartition) (map[kafka.TopicPartition]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, transactionPatience)
	defer cancel()
	ids := map[string]string{}
	logStarts := map[string]map[int32]int64{}
	begin := make(map[kafka.TopicPartition]int64, len(assigned))
	for _, tp := range assigned {
		if _, ok := ids[tp.Topic]; !ok {
			id, err := l.cfg.Cluster.TopicID(ctx, tp.Topic)
			if err != nil {
				return nil, err
			}
			if logStarts[tp.Topic], err = l.cfg.Cluster.Offsets(ctx, tp.Topic, kafka.Start()); err != nil {
				return nil, err
			}
			ids[tp.Topic] = topicIDText(id)
		}
		begin[tp] = logStarts[tp.Topic][tp.Partition]
	}
	found, err := l.sink.load(ctx, begin, ids)
	if err != nil {
		return nil, err
	}
	l.loaded = found
	starts := make(map[kafka.TopicPartition]int64, len(found))
	for tp, c := range found {
		starts[tp] = c.next
	}
	return starts, nil
}

// fault takes a partition that stopped. What retention took is gone: that is
// told and counted, and the partition goes on behind it. Anything else needs a
// person, since the tables hold what the log does not.
func (l *loop) fault(ctx context.Context, f kafka.PartitionFault) {
	pos := l.owned[f.TopicPartition]
	if pos == nil {
		return
	}
	gone, ok := errors.AsType[*kafka.OutOfRangeError](f.Err)
	if !ok || gone.Earliest <= pos.next {
		l.log.ErrorContext(ctx, "a partition stands still",
			slog.String("topic", f.Topic), slog.Int("partition", int(f.Partition)), slog.Any("error", f.Err))
		l.setStopped(f.TopicPartition, f.Err)
		return
	}
	l.log.ErrorContext(ctx, "retention took records before they were folded",
		slog.String("topic", f.Topic), slog.Int("partition", int(f.Partition)),
		slog.Int64("from", pos.next), slog.Int64("to", gone.Earliest))
	l.metrics.expired.WithLabelValues(f.Topic).Add(float64(gone.Earliest - pos.next))
	l.group.Seek(f.TopicPartition, gone.Earliest)
	l.pending = l.held.flush(l.pending, f.TopicPartition)
	if slices.ContainsFunc(l.pending, func(r item) bool { return partitionOfRecord(&r.Record) == f.TopicPartition }) {
		return // they come first, and the first record behind the gap moves the checkpoint
	}
	// Where this does not take, the first record behind the gap moves the checkpoint.
	gap := []move{{f.TopicPartition, pos.topicID, pos.next, gone.Earliest}}
	if err := l.sink.apply(ctx, nil, gap); err == nil {
		pos.next = gone.Earliest
	}
}

// yield goes on where the table says, since somebody else has moved it, or a
// transaction of our own of which we did not learn.
func (l *loop) yield(ctx context.Context, conflict *conflictError) {
	l.metrics.conflicts.Inc()
	for tp, found := range conflict.found {
		pos := l.owned[tp]
		back := found.next < pos.next
		if found.topicID != pos.topicID {
			err := fmt.Errorf("the checkpoint is gone or another topic's: found topic id %q, this is %s", found.topicID, pos.topicID)
			l.log.ErrorContext(ctx, "a partition stands still",
				slog.String("topic", tp.Topic), slog.Int("partition", int(tp.Partition)), slog.Any("error", err))
			l.disown(tp)
			l.group.Pause(tp)
			l.setStopped(tp, err)
			l.askAgain(tp.Partition)
			continue
		}
		l.log.WarnContext(ctx, "a checkpoint is not where it was left; going on from there",
			slog.String("topic", tp.Topic), slog.Int("partition", int(tp.Partition)),
			slog.Int64("left", pos.next), slog.Int64("found", found.next))
		pos.next = found.next
		l.again(tp)
		if back {
			l.askAgain(tp.Partition)
		}
	}
}

// again reads a partition once more from where its checkpoint is, and drops what
// was read behind it.
func (l *loop) again(tp kafka.TopicPartition) {
	if l.held.drop(tp) && !l.paused {
		l.group.Resume(tp)
	}
	l.group.Seek(tp, l.owned[tp].next)
	l.pending = slices.DeleteFunc(l.pending, func(r item) bool { return partitionOfRecord(&r.Record) == tp })
}
