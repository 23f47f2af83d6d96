package projections

import (
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// jobColumns are the columns of the table of jobs, in the order in which they are
// written, and how many they are.
const (
	jobColumns = `
	tenant, id, lane, conversation, batch, status, rank, endpoint, model, provider, attempt,
	created_at, started_at, ended_at, deadline, custom_id, metadata, output, usage, error,
	request_topic, request_partition, request_offset, fact_partition, fact_offset`
	jobColumnCount = 25
)

// upsert joins rows to the table by the rules of row.join. It takes the columns
// as arrays, "" for a text that is not known. JSON is stored as json, not jsonb:
// that keeps the bytes as they came, and what models say may hold \u0000 or a
// lone surrogate, which jsonb refuses.
//
// A row may be joined only once in a statement, so there must be one a job.
const upsert = `
INSERT INTO penstock.jobs AS j (` + jobColumns + `)
SELECT
	tenant, id, lane, NULLIF(conversation, ''), NULLIF(batch, ''), status, rank,
	NULLIF(endpoint, ''), NULLIF(model, ''), NULLIF(provider, ''), attempt,
	created_at, started_at, ended_at, deadline, NULLIF(custom_id, ''), metadata::json, output::json, usage::json, error::json,
	NULLIF(request_topic, ''), request_partition, request_offset, fact_partition, fact_offset
FROM unnest(
	$1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[],
	$8::text[], $9::text[], $10::text[], $11::int[],
	$12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
	$16::text[], $17::text[], $18::text[], $19::text[], $20::text[],
	$21::text[], $22::int[], $23::bigint[], $24::int[], $25::bigint[]
) AS u (` + jobColumns + `)
ON CONFLICT (tenant, id) DO UPDATE SET
	lane         = CASE WHEN ` + newRequest + ` THEN excluded.lane WHEN ` + oldRequest + ` THEN j.lane ELSE GREATEST(j.lane, excluded.lane) END,
	conversation = CASE WHEN ` + newRequest + ` THEN excluded.conversation WHEN ` + oldRequest + ` THEN j.conversation
	               ELSE GREATEST(j.conversation, excluded.conversation) END,
	batch        = CASE WHEN ` + newRequest + ` THEN excluded.batch WHEN ` + oldRequest + ` THEN j.batch ELSE GREATEST(j.batch, excluded.batch) END,
	created_at   = CASE WHEN ` + newRequest + ` THEN excluded.created_at WHEN ` + oldRequest + ` THEN j.created_at
	               ELSE LEAST(j.created_at, excluded.created_at) END,
	model        = CASE WHEN ` + newRequest + ` THEN excluded.model WHEN ` + oldRequest + ` THEN j.model
	               WHEN excluded.attempt > j.attempt THEN excluded.model
	               WHEN excluded.attempt = j.attempt THEN GREATEST(j.model, excluded.model) ELSE j.model END,
	endpoint          = CASE WHEN ` + newRequest + ` THEN excluded.endpoint ELSE j.endpoint END,
	deadline          = CASE WHEN ` + newRequest + ` THEN excluded.deadline ELSE j.deadline END,
	custom_id         = CASE WHEN ` + newRequest + ` THEN excluded.custom_id ELSE j.custom_id END,
	metadata          = CASE WHEN ` + newRequest + ` THEN excluded.metadata ELSE j.metadata END,
	request_topic     = CASE WHEN ` + newRequest + ` THEN excluded.request_topic ELSE j.request_topic END,
	request_partition = CASE WHEN ` + newRequest + ` THEN excluded.request_partition ELSE j.request_partition END,
	request_offset    = CASE WHEN ` + newRequest + ` THEN excluded.request_offset ELSE j.request_offset END,
	provider   = CASE WHEN excluded.attempt > j.attempt THEN excluded.provider
	             WHEN excluded.attempt = j.attempt THEN GREATEST(j.provider, excluded.provider) ELSE j.provider END,
	attempt    = GREATEST(j.attempt, excluded.attempt),
	started_at = LEAST(j.started_at, excluded.started_at),
	status = CASE WHEN ` + newEnd + ` OR excluded.rank > j.rank THEN excluded.status ELSE j.status END,
	rank   = GREATEST(j.rank, excluded.rank),
	ended_at       = CASE WHEN ` + newEnd + ` THEN excluded.ended_at ELSE j.ended_at END,
	output         = CASE WHEN ` + newEnd + ` THEN excluded.output ELSE j.output END,
	usage          = CASE WHEN ` + newEnd + ` THEN excluded.usage ELSE j.usage END,
	error          = CASE WHEN ` + newEnd + ` THEN excluded.error ELSE j.error END,
	fact_partition = CASE WHEN ` + newEnd + ` THEN excluded.fact_partition ELSE j.fact_partition END,
	fact_offset    = CASE WHEN ` + newEnd + ` THEN excluded.fact_offset ELSE j.fact_offset END`

// The conditions of upsert: whether the new row's request stands, whether the
// table's does where the new one's does not, and whether the new row's end stands.
const (
	newRequest = `(excluded.request_topic IS NOT NULL AND (j.request_topic IS NULL OR
		(excluded.created_at, excluded.request_topic, excluded.request_partition, excluded.request_offset)
			< (j.created_at, j.request_topic, j.request_partition, j.request_offset)))`
	oldRequest = `j.request_topic IS NOT NULL`
	newEnd     = `(excluded.rank = 2 AND (j.rank < 2 OR (excluded.fact_partition, excluded.fact_offset) < (j.fact_partition, j.fact_offset)))`
)

// columns are rows turned into the arguments of upsert.
type columns struct {
	tenant, id, lane, conversation, batch, status, endpoint, model, provider, customID, topic []string
	rank                                                                                      []int16
	attempt                                                                                   []int32
	created, started, ended, deadline                                                         []pgtype.Timestamptz
	metadata, output, usage, failure                                                          [][]byte
	requestPartition, factPartition                                                           []pgtype.Int4
	requestOffset, factOffset                                                                 []pgtype.Int8
}

func columnsOf(rows []*row) *columns {
	n := len(rows)
	texts := func() []string { return make([]string, n) }
	times := func() []pgtype.Timestamptz { return make([]pgtype.Timestamptz, n) }
	bytes := func() [][]byte { return make([][]byte, n) }
	c := &columns{
		tenant: texts(), id: texts(), lane: texts(), conversation: texts(), batch: texts(), status: texts(),
		endpoint: texts(), model: texts(), provider: texts(), customID: texts(), topic: texts(),
		rank: make([]int16, n), attempt: make([]int32, n),
		created: times(), started: times(), ended: times(), deadline: times(),
		metadata: bytes(), output: bytes(), usage: bytes(), failure: bytes(),
		requestPartition: make([]pgtype.Int4, n), factPartition: make([]pgtype.Int4, n),
		requestOffset: make([]pgtype.Int8, n), factOffset: make([]pgtype.Int8, n),
	}
	for i, r := range rows {
		c.set(i, r)
	}
	return c
}

func (c *columns) set(i int, r *row) {
	status := r.status()
	c.tenant[i], c.id[i], c.status[i], c.rank[i] = r.tenant, r.id, string(status), rankOf(status)
	c.attempt[i], c.provider[i], c.started[i] = r.attempt, r.provider, timestamp(r.startedAt)
	if q := r.request; q != nil {
		c.lane[i], c.conversation[i], c.batch[i] = q.lane.String(), q.conversation, q.batch
		c.endpoint[i], c.model[i], c.customID[i], c.metadata[i] = q.endpoint, q.model, q.customID, q.metadata
		c.created[i], c.deadline[i] = timestamp(q.createdAt), timestamp(q.deadline)
		c.topic[i] = q.at.Topic
		c.requestPartition[i] = pgtype.Int4{Int32: q.at.Partition, Valid: true}
		c.requestOffset[i] = pgtype.Int8{Int64: q.at.Offset, Valid: true}
	} else {
		c.lane[i], c.conversation[i], c.batch[i] = r.lane.String(), r.conversation, r.batch
		c.model[i], c.created[i] = r.model, timestamp(r.firstSeen)
	}
	if e := r.end; e != nil {
		c.ended[i], c.output[i], c.usage[i], c.failure[i] = timestamp(e.at), e.output, e.usage, e.failure
		c.factPartition[i] = pgtype.Int4{Int32: e.partition, Valid: true}
		c.factOffset[i] = pgtype.Int8{Int64: e.offset, Valid: true}
	}
}

func timestamp(t time.Time) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()}
}

func (c *columns) args() []any {
	return []any{
		c.tenant, c.id, c.lane, c.conversation, c.batch, c.status, c.rank,
		c.endpoint, c.model, c.provider, c.attempt,
		c.created, c.started, c.ended, c.deadline,
		c.customID, c.metadata, c.output, c.usage, c.failure,
		c.topic, c.requestPartition, c.requestOffset, c.factPartition, c.factOffset,
	}
}
