package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// position is how far an assigned partition has come in the table.
type position struct {
	topicID string
	next    int64
}

// loop is one membership of the group. One goroutine owns it.
type loop struct {
	*Projector

	group  group
	loaded map[kafka.TopicPartition]checkpoint // by startAt, for the assignment under way
	owned  map[kafka.TopicPartition]*position
	// pending is what was polled and is not in the tables; while there is some,
	// nothing more is polled for, so one poll bounds it.
	pending []item
	held    *holder // requests that were polled and wait for their jobs' first facts
	paused  bool
	fails   int // in a row
	size    int // records in the next transaction, at most
}

// run polls and folds until ctx ends. After a failure it goes on polling in the
// pause, with its partitions paused: so changes of the group are seen in time.
func (l *loop) run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := l.poll(ctx)
		if err == nil {
			err = l.flush(ctx)
		}
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, kafka.ErrClosed):
			return fmt.Errorf("run the projections: %w", err)
		case err != nil:
			l.fails++
			l.setTrouble(ctx, err)
			l.hold(true)
		case len(l.pending) == 0:
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

// poll takes what the group has to tell. After a failure it waits for the pause
// to pass, whatever the group has to tell meanwhile.
func (l *loop) poll(ctx context.Context) error {
	if l.fails == 0 {
		due := l.held.next()
		if due.IsZero() {
			return l.take(ctx, ctx)
		}
		waiting, cancel := context.WithDeadline(ctx, due)
		defer cancel()
		return l.take(ctx, waiting)
	}
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
		p.Revoked.Done() // nothing is under way between two polls
	}
	l.drop(p.Lost)
	l.pass(p.Records)
	for _, f := range p.Faults {
		l.fault(ctx, f)
	}
	return nil
}

// pass has what was polled written, now or when it is due.
func (l *loop) pass(records []event.Record) {
	l.pending = append(l.pending, l.held.pass(records, time.Now())...)
	l.turn()
}

// drop forgets partitions that are no longer this member's.
func (l *loop) drop(tps []kafka.TopicPartition) {
	for _, tp := range tps {
		delete(l.owned, tp)
		l.held.drop(tp)
		l.setStopped(tp, nil)
	}
	if len(tps) > 0 {
		l.pending = slices.DeleteFunc(l.pending, func(r item) bool { return l.owned[partitionOfRecord(&r.Record)] == nil })
	}
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
		l.moved(gap)
	}
}

// flush writes what is pending. Where it returns an error, the rest is still
// pending.
func (l *loop) flush(ctx context.Context) error {
	for len(l.pending) > 0 {
		n := l.cut()
		err := l.write(ctx, l.pending[:n])
		conflict, conflicted := errors.AsType[*conflictError](err)
		switch {
		case err == nil:
			l.pending = l.pending[n:]
			l.size = min(2*l.size, l.cfg.MaxRecords)
		case conflicted:
			l.yield(ctx, conflict)
		case refusedData(err) && n > 1: // to find the one that it is
			l.size = n / 2
		case refusedData(err):
			if err := l.strip(ctx, err); err != nil {
				return err
			}
		default:
			l.metrics.failures.Inc()
			return err
		}
	}
	l.pending = nil // it holds whole fetches
	return nil
}

// cut says how many pending records the next transaction takes: at least one. A
// request that goes ahead goes with the fact behind it, whose checkpoint moves: if
// the database loses the transaction, that tells of it.
func (l *loop) cut() int {
	n, bytes := 0, 0
	for n < len(l.pending) && n < l.size {
		bytes += len(l.pending[n].Value)
		if n > 0 && bytes > l.cfg.MaxBytes {
			break
		}
		n++
	}
	for n > 1 && n < len(l.pending) && l.pending[n-1].turn == ahead {
		n--
	}
	return n
}

// write folds records and writes them in one transaction.
func (l *loop) write(ctx context.Context, records []item) error {
	fresh, moves := l.fresh(records)
	if len(moves) == 0 {
		return nil
	}
	began := time.Now()
	rows, counts, why := l.folder.fold(fresh)
	if err := l.sink.apply(ctx, rows, moves); err != nil {
		return err
	}
	if why != nil {
		l.log.WarnContext(ctx, "records were passed over", slog.Int("malformed", counts[malformed]), slog.Any("first", why))
	}
	l.moved(moves)
	l.metrics.took(counts, time.Since(began))
	return nil
}

// fresh gives the records that the table does not hold, and how their
// partitions' checkpoints move. One that does not move is checked all the same.
func (l *loop) fresh(items []item) ([]event.Record, []move) {
	moves := make([]move, 0, len(l.owned))
	index := make(map[kafka.TopicPartition]int, len(l.owned))
	fresh := make([]event.Record, 0, len(items))
	for i := range items {
		it := &items[i]
		tp := partitionOfRecord(&it.Record)
		at, known := index[tp]
		if !known {
			pos := l.owned[tp]
			if pos == nil {
				continue
			}
			at = len(moves)
			index[tp] = at
			moves = append(moves, move{tp, pos.topicID, pos.next, pos.next})
		}
		switch {
		case it.Offset < moves[at].next:
			l.metrics.records.WithLabelValues(resultRepeated).Inc()
			continue
		case it.turn != passed:
			fresh = append(fresh, it.Record)
		}
		if it.turn != ahead {
			moves[at].next = it.Offset + 1
		}
	}
	if len(fresh) == 0 {
		moves = slices.DeleteFunc(moves, func(m move) bool { return m.from == m.next })
	}
	return fresh, moves
}

func (l *loop) moved(moves []move) {
	for _, m := range moves {
		l.owned[m.TopicPartition].next = m.next
	}
}

// yield goes on where the table says, since somebody else has moved it, or a
// transaction of our own of which we did not learn.
func (l *loop) yield(ctx context.Context, conflict *conflictError) {
	l.metrics.conflicts.Inc()
	lost := false
	for tp, found := range conflict.found {
		pos := l.owned[tp]
		lost = lost || found.next < pos.next
		if found.topicID != pos.topicID {
			err := fmt.Errorf("the checkpoint is gone or another topic's: found topic id %q, this is %s", found.topicID, pos.topicID)
			l.log.ErrorContext(ctx, "a partition stands still",
				slog.String("topic", tp.Topic), slog.Int("partition", int(tp.Partition)), slog.Any("error", err))
			delete(l.owned, tp)
			l.held.drop(tp)
			l.group.Pause(tp)
			l.setStopped(tp, err)
			continue
		}
		l.log.WarnContext(ctx, "a checkpoint is not where it was left; going on from there",
			slog.String("topic", tp.Topic), slog.Int("partition", int(tp.Partition)),
			slog.Int64("left", pos.next), slog.Int64("found", found.next))
		pos.next = found.next
		l.again(tp)
	}
	if lost { // and with them, perhaps, requests that went ahead, of which no checkpoint tells
		for tp, part := range l.held.parts {
			if part.gone > 0 {
				l.again(tp)
			}
		}
	}
	l.pending = slices.DeleteFunc(l.pending, func(r item) bool { return l.owned[partitionOfRecord(&r.Record)] == nil })
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

// strip folds the first pending record without its payload, which the database
// refuses: a job's end is worth more than its text.
func (l *loop) strip(ctx context.Context, why error) error {
	rec := l.pending[0]
	fresh, moves := l.fresh(l.pending[:1])
	rows, _, _ := l.folder.fold(fresh)
	for _, r := range rows {
		r.strip()
	}
	err := l.sink.apply(ctx, rows, moves)
	if conflict, ok := errors.AsType[*conflictError](err); ok {
		l.yield(ctx, conflict)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; and without its payload: %w", why, err)
	}
	l.moved(moves)
	l.pending = l.pending[1:]
	l.metrics.records.WithLabelValues(resultStripped).Inc()
	l.log.ErrorContext(ctx, "the database refused a record's payload; its job is folded without",
		slog.String("topic", rec.Topic), slog.Int("partition", int(rec.Partition)), slog.Int64("offset", rec.Offset), slog.Any("error", why))
	return nil
}
