package projections

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/internal/kafka"
)

// The projection whose checkpoints these are. A new version would replay beside
// the old one.
const (
	projection = "jobs"
	version    = 1
)

// transactionPatience bounds one transaction, so that a server that has gone
// silent does not hold the loop.
const transactionPatience = 20 * time.Second

// checkpoint is where a partition is to be read on.
type checkpoint struct {
	topicID string
	next    int64
}

// move is a checkpoint to be moved from where it was left; one that stays there
// is only compared.
type move struct {
	kafka.TopicPartition
	topicID    string
	from, next int64
}

// conflictError says that checkpoints were not where they were left: somebody
// else has moved them, or a transaction of our own took after all.
type conflictError struct {
	found map[kafka.TopicPartition]checkpoint
}

// Error implements error.
func (e *conflictError) Error() string {
	return fmt.Sprintf("%d checkpoints are not where they were left: another projector has moved them", len(e.found))
}

// recreatedError says that a topic is another than the one that was folded.
type recreatedError struct {
	topic, folded, found string
}

// Error implements error.
func (e *recreatedError) Error() string {
	return fmt.Sprintf("the topic %s was deleted and created anew: its id is %s, and the tables were folded from %s; "+
		"bring the topic back, or give this deployment a new prefix and a new database", e.topic, e.found, e.folded)
}

// sink is the tables' side of the projector.
type sink struct {
	pool   *pgxpool.Pool
	copier copier
}

// load gives the checkpoints of partitions, and makes those that are not there
// at start, which holds where each log begins. ids are the topics'.
func (s *sink) load(ctx context.Context, start map[kafka.TopicPartition]int64, ids map[string]string) (map[kafka.TopicPartition]checkpoint, error) {
	parts := make([]kafka.TopicPartition, 0, len(start))
	for tp := range start {
		parts = append(parts, tp)
	}
	slices.SortFunc(parts, comparePartitions)
	var topics, topicIDs []string
	var numbers []int32
	var offsets []int64
	for _, tp := range parts {
		topics, numbers = append(topics, tp.Topic), append(numbers, tp.Partition)
		topicIDs, offsets = append(topicIDs, ids[tp.Topic]), append(offsets, start[tp])
	}
	if _, err := s.pool.Exec(ctx, `INSERT INTO penstock.checkpoints (projection, version, topic, part, topic_id, next_offset)
		SELECT $1, $2, * FROM unnest($3::text[], $4::int[], $5::text[], $6::bigint[]) ON CONFLICT DO NOTHING`,
		projection, version, topics, numbers, topicIDs, offsets); err != nil {
		return nil, fmt.Errorf("make checkpoints: %w", err)
	}
	found, err := checkpoints(ctx, s.pool, topics, numbers, "")
	if err != nil {
		return nil, err
	}
	for tp, c := range found {
		if c.topicID != ids[tp.Topic] {
			return nil, &recreatedError{topic: tp.Topic, folded: c.topicID, found: ids[tp.Topic]}
		}
	}
	return found, nil
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// checkpoints reads checkpoints, in the order of their names, so that two
// transactions that lock them don't wait for each other in a ring.
func checkpoints(ctx context.Context, q querier, topics []string, parts []int32, lock string) (map[kafka.TopicPartition]checkpoint, error) {
	rows, err := q.Query(ctx, `SELECT topic, part, topic_id, next_offset FROM penstock.checkpoints
		WHERE projection = $1 AND version = $2 AND (topic, part) IN (SELECT * FROM unnest($3::text[], $4::int[]))
		ORDER BY topic, part `+lock, projection, version, topics, parts)
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	found := make(map[kafka.TopicPartition]checkpoint, len(topics))
	var tp kafka.TopicPartition
	var c checkpoint
	_, err = pgx.ForEachRow(rows, []any{&tp.Topic, &tp.Partition, &c.topicID, &c.next}, func() error {
		found[tp] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return found, nil
}

// apply joins rows to the table and moves the checkpoints, all or nothing. A
// conflictError holds what the table says of the partitions that are elsewhere.
func (s *sink) apply(ctx context.Context, rows []*row, moves []move) error {
	ctx, cancel := context.WithTimeout(ctx, transactionPatience)
	defer cancel()
	added, joined := s.copier.split(rows)
	if len(added) == 0 {
		return s.transact(ctx, 0, moves, func(tx pgx.Tx) error { return upsertRows(ctx, tx, rows) })
	}
	err := s.transact(ctx, copyPatience, moves, func(tx pgx.Tx) error {
		if err := s.copier.write(ctx, tx, added); err != nil {
			return err
		}
		return upsertRows(ctx, tx, joined)
	})
	again := gaveWay(err)
	s.copier.took(!again)
	if again {
		return s.transact(ctx, 0, moves, func(tx pgx.Tx) error { return upsertRows(ctx, tx, rows) })
	}
	return err
}

// transact moves the checkpoints and writes, in one transaction. patience bounds
// each wait for another's lock; 0 does not.
func (s *sink) transact(ctx context.Context, patience time.Duration, moves []move, write func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Nothing is lost with the server's last transactions: the checkpoints go
		// back with the rows, and the log is read again from there. One that moves
		// none would be missed by nobody, so it waits for the disk.
		durable := "off"
		if !slices.ContainsFunc(moves, func(m move) bool { return m.next != m.from }) {
			durable = "on"
		}
		if _, err := tx.Exec(ctx, `SELECT set_config('synchronous_commit', $1, true), set_config('lock_timeout', $2, true)`,
			durable, strconv.FormatInt(patience.Milliseconds(), 10)); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if err := moveCheckpoints(ctx, tx, moves); err != nil {
			return err
		}
		return write(tx)
	})
}

// upsertRows upserts rows, in the order of their keys: so two that touch the same rows
// do not wait for each other.
func upsertRows(ctx context.Context, tx pgx.Tx, rows []*row) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, upsert, columnsOf(rows).args()...); err != nil {
		return fmt.Errorf("write jobs: %w", err)
	}
	return nil
}

// moveCheckpoints compares and sets. The locks keep any other projector out
// until the transaction ends.
func moveCheckpoints(ctx context.Context, tx pgx.Tx, moves []move) error {
	var topics []string
	var parts []int32
	for _, m := range moves {
		topics, parts = append(topics, m.Topic), append(parts, m.Partition)
	}
	found, err := checkpoints(ctx, tx, topics, parts, "FOR UPDATE")
	if err != nil {
		return err
	}
	elsewhere := map[kafka.TopicPartition]checkpoint{}
	for _, m := range moves {
		if c := found[m.TopicPartition]; c.next != m.from || c.topicID != m.topicID {
			elsewhere[m.TopicPartition] = c
		}
	}
	if len(elsewhere) > 0 {
		return &conflictError{elsewhere}
	}
	topics, parts = topics[:0], parts[:0]
	var next []int64
	for _, m := range moves {
		if m.next != m.from { // else it was to be where it is, and no more
			topics, parts, next = append(topics, m.Topic), append(parts, m.Partition), append(next, m.next)
		}
	}
	tag, err := tx.Exec(ctx, `UPDATE penstock.checkpoints c SET next_offset = u.next_offset, updated_at = now()
		FROM unnest($3::text[], $4::int[], $5::bigint[]) AS u (topic, part, next_offset)
		WHERE c.projection = $1 AND c.version = $2 AND c.topic = u.topic AND c.part = u.part`,
		projection, version, topics, parts, next)
	if err != nil {
		return fmt.Errorf("move checkpoints: %w", err)
	}
	if tag.RowsAffected() != int64(len(next)) {
		return fmt.Errorf("move checkpoints: %d of %d moved", tag.RowsAffected(), len(next))
	}
	return nil
}

func comparePartitions(a, b kafka.TopicPartition) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// refusedData tells whether the server refuses what a statement holds, and
// would refuse it again: a data exception, or one beyond its limits.
func refusedData(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(pe.Code, "22") || strings.HasPrefix(pe.Code, "54"))
}

// topicIDText is how a topic's id is kept.
func topicIDText(id [16]byte) string { return hex.EncodeToString(id[:]) }
