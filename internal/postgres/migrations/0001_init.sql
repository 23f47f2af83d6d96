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

-- The fold of requests and facts by job. rank is 0 queued, 1 running, 2 ended:
-- it never falls, so that facts may come twice and from two topics.
CREATE TABLE penstock.jobs (
    tenant            text        NOT NULL,
    id                text        NOT NULL,
    lane              text        NOT NULL,
    conversation      text,
    batch             text,
    status            text        NOT NULL,
    rank              smallint    NOT NULL CHECK (rank BETWEEN 0 AND 2),
    endpoint          text,
    model             text,
    provider          text,
    attempt           int         NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL,
    started_at        timestamptz,
    ended_at          timestamptz,
    deadline          timestamptz,
    custom_id         text,
    metadata          jsonb,
    output            jsonb,
    usage             jsonb,
    error             jsonb,
    request_topic     text,
    request_partition int,
    request_offset    bigint,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
CREATE INDEX jobs_by_time ON penstock.jobs (tenant, created_at DESC, id);
CREATE INDEX jobs_by_status ON penstock.jobs (tenant, status, created_at DESC);
CREATE INDEX jobs_by_batch ON penstock.jobs (tenant, batch, created_at DESC) WHERE batch IS NOT NULL;
CREATE INDEX jobs_by_conversation ON penstock.jobs (tenant, conversation, created_at DESC) WHERE conversation IS NOT NULL;

-- Where a projection goes on, moved in the transaction that writes its tables.
-- topic_id is Kafka's: a topic that was made anew begins anew.
CREATE TABLE penstock.checkpoints (
    projection  text        NOT NULL,
    version     int         NOT NULL,
    topic_id    text        NOT NULL,
    topic       text        NOT NULL,
    part        int         NOT NULL,
    next_offset bigint      NOT NULL CHECK (next_offset >= 0),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, version, topic_id, part)
);

-- +goose Down
DROP TABLE penstock.checkpoints;
DROP TABLE penstock.jobs;
DROP TABLE penstock.idempotency_keys;
