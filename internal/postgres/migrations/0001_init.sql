-- +goose Up
-- The schema itself is made before any migration: the table of applied versions lies in it too.

-- A key reserves a job id for 24 hours; the answer is filled in once it is known.
CREATE TABLE penstock.idempotency_keys (
    tenant     text        NOT NULL,
    key        text        NOT NULL,
    body_hash  bytea       NOT NULL,
    job        text        NOT NULL,
    status     int,
    response   bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_keys_created_at ON penstock.idempotency_keys (created_at);

-- The fold of requests and facts by job: it holds nothing that does not follow
-- from the log. rank is 0 queued, 1 running, 2 ended: it never falls. Of several
-- requests or terminal facts of one job the first in the log stands, so their
-- places are kept. Names are compared by byte ("C"), which is quick and the same
-- everywhere. JSON is json and not jsonb, which refuses \u0000 in what a model said.
CREATE TABLE penstock.jobs (
    tenant            text COLLATE "C" NOT NULL,
    id                text COLLATE "C" NOT NULL,
    lane              text COLLATE "C" NOT NULL,
    conversation      text COLLATE "C",
    batch             text COLLATE "C",
    status            text COLLATE "C" NOT NULL,
    rank              smallint    NOT NULL CHECK (rank BETWEEN 0 AND 2),
    endpoint          text COLLATE "C",
    model             text COLLATE "C",
    provider          text COLLATE "C",
    attempt           int         NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL,
    started_at        timestamptz,
    ended_at          timestamptz,
    deadline          timestamptz,
    custom_id         text COLLATE "C",
    metadata          json,
    output            json,
    usage             json,
    error             json,
    request_topic     text COLLATE "C",
    request_partition int,
    request_offset    bigint,
    fact_partition    int,
    fact_offset       bigint,
    PRIMARY KEY (tenant, id),
    CHECK ((rank = 2) = (fact_offset IS NOT NULL))
);
CREATE INDEX jobs_by_time ON penstock.jobs (tenant, created_at, id);
-- Nearly all jobs end up completed: those are found by time, and this index holds the few others.
CREATE INDEX jobs_by_status ON penstock.jobs (tenant, status, created_at, id) WHERE status <> 'completed';
CREATE INDEX jobs_by_batch ON penstock.jobs (tenant, batch, created_at, id) WHERE batch IS NOT NULL;
CREATE INDEX jobs_by_conversation ON penstock.jobs (tenant, conversation, created_at, id) WHERE conversation IS NOT NULL;

-- Where a projection goes on, moved in the transaction that writes its tables.
-- topic_id is Kafka's: a topic of the same name with another id is another
-- topic, which the projection refuses to go on with.
CREATE TABLE penstock.checkpoints (
    projection  text        NOT NULL,
    version     int         NOT NULL,
    topic       text COLLATE "C" NOT NULL,
    part        int         NOT NULL,
    topic_id    text        NOT NULL,
    next_offset bigint      NOT NULL CHECK (next_offset >= 0),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, version, topic, part)
);

-- +goose Down
DROP TABLE penstock.checkpoints;
DROP TABLE penstock.jobs;
DROP TABLE penstock.idempotency_keys;
