package projections

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// minCopied is how many rows are worth a COPY.
	minCopied = 16
	// copyPatience bounds a wait for another's lock in a transaction that copies:
	// its rows are not written in the one order that keeps two from waiting for
	// each other, so it is the one that gives way.
	copyPatience = 100 * time.Millisecond
	// maxShunned bounds the transactions that do not copy after some that could not.
	maxShunned = 64
	// maxKept bounds the buffer that is kept from one transaction to the next.
	maxKept = 1 << 20
)

// copier writes rows that the table does not hold with COPY, at less than half
// of what an upsert costs PostgreSQL. Whether the table holds one is not asked:
// a row with its request in it is new, unless a request was repeated or is read
// again, and then the server refuses and all is upserted. It belongs to the
// projector's goroutine.
type copier struct {
	least   int // rows that are worth it
	buf     []byte
	shun    int // so many transactions do not copy
	shunned int // after the last one that could not; 0 where it could
}

// split takes the rows that are to be copied from sorted rows; both are sorted.
func (c *copier) split(rows []*row) (added, joined []*row) {
	if c.shun > 0 {
		c.shun--
		return nil, rows
	}
	n := 0
	for _, r := range rows {
		if r.request != nil {
			n++
		}
	}
	switch {
	case n < c.least:
		return nil, rows
	case n == len(rows):
		return rows, nil
	}
	added, joined = make([]*row, 0, n), make([]*row, 0, len(rows)-n)
	for _, r := range rows {
		if r.request != nil {
			added = append(added, r)
		} else {
			joined = append(joined, r)
		}
	}
	return added, joined
}

// took notes whether a transaction that copied took. One that did not was work
// for nothing, so ever fewer are tried while they fail.
func (c *copier) took(ok bool) {
	if ok {
		c.shunned = 0
		return
	}
	c.shun = min(max(2*c.shunned, 1), maxShunned)
	c.shunned = c.shun
}

// gaveWay tells whether a transaction failed for nothing but its copying: the
// table held one of the rows, or another held a lock.
func gaveWay(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"23505", "55P03", "40P01"}, pe.Code)
}

// write copies rows into the table.
func (c *copier) write(ctx context.Context, tx pgx.Tx, rows []*row) error {
	buf := append(c.buf[:0], copyHeader...)
	for _, r := range rows {
		buf = appendRow(buf, r)
	}
	buf = binary.BigEndian.AppendUint16(buf, copyEnd)
	if c.buf = buf[:0]; cap(buf) > maxKept {
		c.buf = nil
	}
	if _, err := tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(buf), copySQL); err != nil {
		return fmt.Errorf("copy jobs: %w", err)
	}
	return nil
}

// PostgreSQL's binary format of COPY: https://www.postgresql.org/docs/current/sql-copy.html.
const (
	copySQL    = `COPY penstock.jobs (` + jobColumns + `) FROM STDIN BINARY`
	copyHeader = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" // no flags, no extension
	copyEnd    = 0xffff                                                           // -1 where a row's count of columns would be
	copyNull   = 0xffffffff                                                       // -1 where a value's length would be
)

// postgresEpoch is where PostgreSQL counts its microseconds from, in Unix time.
const postgresEpoch = 946_684_800_000_000

// appendRow writes a row's jobColumns, in their order.
func appendRow(b []byte, r *row) []byte {
	b = binary.BigEndian.AppendUint16(b, jobColumnCount)
	b, status := appendText(appendText(b, r.tenant), r.id), r.status()
	lane, conversation, batch, model, created := r.lane, r.conversation, r.batch, r.model, r.firstSeen
	var q requested
	if r.request != nil {
		q = *r.request
		lane, conversation, batch, model, created = q.lane, q.conversation, q.batch, q.model, q.createdAt
	}
	var e ended
	if r.end != nil {
		e = *r.end
	}
	b = appendOptional(appendOptional(appendText(b, lane.String()), conversation), batch)
	b = appendInt16(appendText(b, string(status)), rankOf(status))
	b = appendOptional(appendOptional(appendOptional(b, q.endpoint), model), r.provider)
	b = appendInt32(b, r.attempt)
	b = appendTime(appendTime(appendTime(appendTime(b, created), r.startedAt), e.at), q.deadline)
	b = appendOptional(b, q.customID)
	b = appendJSON(appendJSON(appendJSON(appendJSON(b, q.metadata), e.output), e.usage), e.failure)
	b = appendOptional(b, q.at.Topic)
	b = appendPlace(b, r.request != nil, q.at.Partition, q.at.Offset)
	return appendPlace(b, r.end != nil, e.partition, e.offset)
}

func appendText(b []byte, s string) []byte {
	return append(appendLength(b, len(s)), s...)
}

func appendLength(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // a part of a record
}

// appendOptional takes "" for not known.
func appendOptional(b []byte, s string) []byte {
	if s == "" {
		return appendNull(b)
	}
	return appendText(b, s)
}

func appendNull(b []byte) []byte { return binary.BigEndian.AppendUint32(b, copyNull) }

// appendJSON takes nil for not known.
func appendJSON(b, v []byte) []byte {
	if v == nil {
		return appendNull(b)
	}
	return append(appendLength(b, len(v)), v...)
}

func appendInt16(b []byte, v int16) []byte {
	return binary.BigEndian.AppendUint16(appendLength(b, 2), uint16(v)) //nolint:gosec // the same bits
}

func appendInt32(b []byte, v int32) []byte {
	return binary.BigEndian.AppendUint32(appendLength(b, 4), uint32(v)) //nolint:gosec // the same bits
}

func appendInt64(b []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(appendLength(b, 8), uint64(v)) //nolint:gosec // the same bits
}

// appendTime takes the zero time for not known.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return appendNull(b)
	}
	return appendInt64(b, t.UnixMicro()-postgresEpoch)
}

// appendPlace writes a partition and an offset.
func appendPlace(b []byte, known bool, partition int32, offset int64) []byte {
	if !known {
		return appendNull(appendNull(b))
	}
	return appendInt64(appendInt32(b, partition), offset)
}
