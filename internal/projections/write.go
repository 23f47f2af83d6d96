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

const (
	// slots is how many transactions are under way at once.
	slots = 2
	// beside is what part of the records of a transaction at most is worth one beside
	// another: fewer wait for that, so that a quiet log costs no more transactions
	// than it has to.
	beside = 10
)

// slot is the room for one transaction.
type slot struct {
	sink  sink   // its own, for what its copier remembers
	batch *batch // nil: free
}

// batch is what one transaction takes. Two that are under way at once have no
// partition number in common, of requests or facts: so a partition's records are
// written in order, a request that goes ahead is with its fact, and where a
// checkpoint stands is known when a transaction begins.
type batch struct {
	items []item
	fresh []event.Record
	moves []move
	fails int // the loop's, as it began

	// How it ended.
	took     time.Duration
	counts   [verdicts]int
	why      error // the first reason to pass a record over
	stripped error // why its one record was folded without its payload
	err      error
}

// start begins transactions of what is pending, as many as there is room for.
// After a failure, and while a record is looked for that the database refuses,
// there is one at a time.
func (l *loop) start(ctx context.Context) {
	for i := range l.slots {
		if s := &l.slots[i]; s.batch == nil && (l.busy() == 0 || l.level()) {
			l.begin(ctx, s)
		}
	}
}

// worth is how many records are worth a transaction beside another.
func (l *loop) worth() int { return max(l.cfg.MaxRecords/beside, 1) }

// level tells whether nothing is wrong.
func (l *loop) level() bool {
	return l.fails == 0 && l.size == l.cfg.MaxRecords
}

// busy is how many transactions are under way.
func (l *loop) busy() (n int) {
	for i := range l.slots {
		if l.slots[i].batch != nil {
			n++
		}
	}
	return n
}

// begin begins a transaction, if there is something that the tables do not hold.
func (l *loop) begin(ctx context.Context, s *slot) {
	for {
		items := l.pick()
		if len(items) == 0 {
			return
		}
		b := &batch{items: items, fails: l.fails}
		if b.fresh, b.moves = l.fresh(items); len(b.moves) == 0 {
			continue
		}
		s.batch = b
		l.under.Go(func() {
			s.write(ctx, l.folder)
			l.ended <- s
			if wake := l.wake.Load(); wake != nil {
				(*wake)()
			}
		})
		return
	}
}

// pick takes the records of the next transaction out of the pending ones, in
// order: of partition numbers of which none is under way. Where there is enough
// for two, it leaves every other number to the second.
func (l *loop) pick() []item {
	if len(l.pending) == 0 {
		return nil
	}
	taken := map[int32]bool{}
	for i := range l.slots {
		if b := l.slots[i].batch; b != nil {
			for k := range b.items {
				taken[b.items[k].Partition] = true
			}
		}
	}
	half := len(taken) == 0 && l.level() && len(l.pending) >= slots*l.worth()
	first := l.pending[0].Partition
	free := make([]int, 0, len(l.pending)) // of the pending ones
	for i := range l.pending {
		if n := l.pending[i].Partition; !taken[n] && (!half || (n-first)%slots == 0) {
			free = append(free, i)
		}
	}
	if len(taken) > 0 && len(free) < l.worth() {
		return nil
	}
	return l.pull(free[:l.cut(free)])
}

// pull takes records out of the pending ones.
func (l *loop) pull(which []int) []item {
	items, rest := make([]item, 0, len(which)), l.pending[:0]
	for i := range l.pending {
		if n := len(items); n < len(which) && which[n] == i {
			items = append(items, l.pending[i])
		} else {
			rest = append(rest, l.pending[i])
		}
	}
	clear(l.pending[len(rest):])
	if l.pending = rest; len(rest) == 0 {
		l.pending = nil // it holds whole fetches
	}
	return items
}

// cut says how many of some pending records the next transaction takes: at least
// one. A request that goes ahead goes with the fact behind it, whose checkpoint
// moves: if the database loses the transaction, that tells of it.
func (l *loop) cut(which []int) int {
	n, bytes := 0, 0
	for n < len(which) && n < l.size {
		bytes += len(l.pending[which[n]].Value)
		if n > 0 && bytes > l.cfg.MaxBytes {
			break
		}
		n++
	}
	for n > 1 && n < len(which) && l.pending[which[n-1]].turn == ahead {
		n--
	}
	return n
}

// fresh gives the records that the table does not hold, and how their
// partitions' checkpoints move. One that does not move is checked all the same:
// that of a request that goes ahead, and that of the facts of requests that went
// ahead and are passed now, for if the database has lost those, it tells.
func (l *loop) fresh(items []item) ([]event.Record, []move) {
	moves := make([]move, 0, len(l.owned))
	index := make(map[kafka.TopicPartition]int, len(l.owned))
	at := func(tp kafka.TopicPartition) *move {
		i, known := index[tp]
		if !known {
			pos := l.owned[tp]
			if pos == nil {
				return nil
			}
			i = len(moves)
			index[tp] = i
			moves = append(moves, move{tp, pos.topicID, pos.next, pos.next})
		}
		return &moves[i]
	}
	fresh := make([]event.Record, 0, len(items))
	moved := false
	for i := range items {
		it := &items[i]
		m := at(partitionOfRecord(&it.Record))
		switch {
		case m == nil:
			continue
		case it.Offset < m.next:
			l.metrics.records.WithLabelValues(resultRepeated).Inc()
			continue
		case it.turn != passed:
			fresh = append(fresh, it.Record)
		}
		if it.turn != ahead {
			m.next, moved = it.Offset+1, true
		}
		if it.turn == passed {
			at(l.facts(it.Partition))
		}
	}
	if len(fresh) == 0 && !moved {
		return nil, nil
	}
	return fresh, moves
}

// write folds the batch and writes it in one transaction. It is called in a
// goroutine of its own.
func (s *slot) write(ctx context.Context, f folder) {
	b, began := s.batch, time.Now()
	defer func() { b.took = time.Since(began) }()
	var rows []*row
	rows, b.counts, b.why = f.fold(b.fresh)
	b.err = s.sink.apply(ctx, rows, b.moves)
	if len(b.items) > 1 || !refusedData(b.err) {
		return
	}
	// The database refuses a record's payload: a job's end is worth more than its text.
	for _, r := range rows {
		r.strip()
	}
	b.stripped = b.err
	if b.err = s.sink.apply(ctx, rows, b.moves); b.err != nil {
		b.err = fmt.Errorf("%w; and without its payload: %w", b.stripped, b.err)
	}
}

// collect takes in the transactions that have ended.
func (l *loop) collect(ctx context.Context) (err error) {
	for {
		select {
		case s := <-l.ended:
			err = errors.Join(err, l.settle(ctx, s))
		default:
			return err
		}
	}
}

// finish waits for the transactions that are under way. Each has its time.
func (l *loop) finish(ctx context.Context) (err error) {
	for l.busy() > 0 {
		err = errors.Join(err, l.settle(ctx, <-l.ended))
	}
	return err
}

// settle takes in a transaction that has ended. What it did not write is pending
// again, before all that is.
func (l *loop) settle(ctx context.Context, s *slot) error {
	b := s.batch
	s.batch = nil
	if b.err == nil {
		l.settled(ctx, b)
		return nil
	}
	l.pending = slices.Concat(b.items, l.pending)
	conflict, conflicted := errors.AsType[*conflictError](b.err)
	switch {
	case conflicted:
		l.yield(ctx, conflict)
	case refusedData(b.err) && len(b.items) > 1: // to find the one that it is
		l.size = len(b.items) / 2
	default:
		l.metrics.failures.Inc()
		return b.err
	}
	return nil
}

// settled takes in a transaction that took.
func (l *loop) settled(ctx context.Context, b *batch) {
	for _, m := range b.moves {
		l.owned[m.TopicPartition].next = m.next
	}
	l.size = min(2*l.size, l.cfg.MaxRecords)
	if b.fails == l.fails {
		l.fails = 0
	}
	if b.stripped != nil {
		rec := &b.items[0]
		l.metrics.records.WithLabelValues(resultStripped).Inc()
		l.log.ErrorContext(ctx, "the database refused a record's payload; its job is folded without",
			slog.String("topic", rec.Topic), slog.Int("partition", int(rec.Partition)), slog.Int64("offset", rec.Offset), slog.Any("error", b.stripped))
		return
	}
	if b.why != nil {
		l.log.WarnContext(ctx, "records were passed over", slog.Int("malformed", b.counts[malformed]), slog.Any("first", b.why))
	}
	l.metrics.took(b.counts, b.took)
}
