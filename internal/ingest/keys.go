package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// Database runs statements; *pgxpool.Pool is one.
type Database interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

const (
	// reserveKey keeps a key for a job, unless it is kept already; one past its
	// time is as good as gone. No row says that somebody else has it.
	reserveKey = `
INSERT INTO penstock.idempotency_keys AS k (tenant, key, body_hash, job) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, key) DO UPDATE
SET body_hash = EXCLUDED.body_hash, job = EXCLUDED.job, status = NULL, response = NULL, created_at = now()
WHERE k.created_at < now() - interval '24 hours'
RETURNING job`

	findKey = `
SELECT body_hash, job, COALESCE(status, 0), response FROM penstock.idempotency_keys
WHERE tenant = $1 AND key = $2 AND created_at >= now() - interval '24 hours'`

	// settleKey keeps the first answer and gives back the one that is kept, so
	// that requests that race all answer the same.
	settleKey = `
UPDATE penstock.idempotency_keys
SET status = COALESCE(status, $4), response = COALESCE(response, $5)
WHERE tenant = $1 AND key = $2 AND job = $3
RETURNING status, response`

	// cleanKeys deletes in batches, so that no statement runs long.
	cleanKeys = `
DELETE FROM penstock.idempotency_keys WHERE ctid = ANY(ARRAY(
	SELECT ctid FROM penstock.idempotency_keys WHERE created_at < now() - interval '24 hours' LIMIT $1))`
)

// MaxKeyLength bounds an idempotency key, in bytes.
const MaxKeyLength = 255

// validKey wants 1 to MaxKeyLength of visible ASCII.
func validKey(key string) error {
	ok := key != "" && len(key) <= MaxKeyLength
	for i := range len(key) {
		ok = ok && key[i] > ' ' && key[i] <= '~'
	}
	if !ok {
		return fault.Param("Idempotency-Key", "the Idempotency-Key must be 1 to %d visible ASCII characters, without spaces", MaxKeyLength)
	}
	return nil
}

// kept is what the table says of a key.
type kept struct {
	hash     []byte
	job      string
	status   int // 0 while there is no answer
	response []byte
}

// flight names a key that is being worked on.
type flight struct{ tenant, key string }

// acceptOnce takes a request in under its key. refusal is why it would not be
// let in if it were new; nil if it would.
func (s *Service) acceptOnce(ctx context.Context, w *draft, opts job.SubmitOptions, refusal error) (answer, error) {
	if err := validKey(opts.IdempotencyKey); err != nil {
		return answer{}, err
	}
	if s.cfg.Keys == nil {
		return answer{}, fault.New(fault.Unavailable, "there is no database here to keep an Idempotency-Key in: leave it out, or ask another server")
	}
	hash := fingerprint(w, opts.Fingerprint)
	f := flight{w.head.Tenant, opts.IdempotencyKey}
	if err := s.take(ctx, f); err != nil {
		return answer{}, err
	}
	defer s.release(f)

	k, found, err := s.reserve(ctx, f, hash, w.head.Job, refusal)
	switch {
	case err != nil:
		return answer{}, err
	case !found:
		a, err := s.write(ctx, w, false)
		if err != nil {
			return answer{}, err // the key stays: the next try is of the same job
		}
		return s.settle(ctx, f, a), nil
	case string(k.hash) != string(hash[:]):
		return answer{}, &fault.Error{
			Code: fault.IdempotencyMismatch, Param: "Idempotency-Key",
			Message: "this Idempotency-Key was used with another body in the last 24 hours: send that body, or take a new key",
		}
	case k.status != 0:
		return answer{job: k.job, status: k.status, body: k.response, replayed: true}, nil
	}
	// Kept without an answer: its request broke off, did not learn its outcome,
	// or is under way in another process. The owner of the partition sorts out
	// whether the job is there already.
	if err := w.rename(k.job); err != nil {
		return answer{}, err
	}
	a, err := s.write(ctx, w, true)
	if err != nil {
		return answer{}, err
	}
	a = s.settle(ctx, f, a)
	a.replayed = true
	return a, nil
}

// fingerprint is what decides whether two requests of a key are the same.
func fingerprint(w *draft, raw []byte) [sha256.Size]byte {
	if raw != nil {
		return sha256.Sum256(raw)
	}
	h := sha256.New()
	h.Write([]byte(w.lane.String() + "\x00" + w.head.Conversation + "\x00"))
	h.Write(w.data(false))
	return [sha256.Size]byte(h.Sum(nil))
}

// take waits until no other request here works on the key: of those that come
// at once one writes, and the others get its answer.
func (s *Service) take(ctx context.Context, f flight) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AppendTimeout) // as long as one of them may take
	defer cancel()
	for {
		s.mu.Lock()
		busy, ok := s.flights[f]
		if !ok {
			s.flights[f] = make(chan struct{})
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return away(ctx.Err(), fault.Unavailable,
				"another request with this Idempotency-Key is under way: send it again for its answer")
		}
	}
}

func (s *Service) release(f flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.flights[f])
	delete(s.flights, f)
}

// reserveTries bounds how often a key is asked for that goes as we look.
const reserveTries = 3

// reserve keeps the key for a job, or finds what is kept. With a refusal
// nothing is kept: what is not found is refused.
func (s *Service) reserve(ctx context.Context, f flight, hash [sha256.Size]byte, id string, refusal error) (k kept, found bool, err error) {
	ctx = context.WithoutCancel(ctx) // each statement has its own bound
	for range reserveTries {
		if refusal == nil {
			got := ""
			err = s.row(ctx, []any{&got}, reserveKey, f.tenant, f.key, hash[:], id)
			if err == nil {
				return kept{}, false, nil
			}
			if !errors.Is(err, pgx.ErrNoRows) {
				break
			}
		}
		err = s.row(ctx, []any{&k.hash, &k.job, &k.status, &k.response}, findKey, f.tenant, f.key)
		if err == nil {
			return k, true, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			break
		}
		if refusal != nil {
			return kept{}, false, refusal
		}
	}
	return kept{}, false, away(err, fault.Unavailable,
		"the database that keeps Idempotency-Keys is away, and the job was not accepted: send it again, or without a key")
}

// settle keeps the answer and returns the one that all of the key's requests
// get. Where the database is away the job stands all the same: a later request
// with the key writes the same job again.
func (s *Service) settle(ctx context.Context, f flight, a answer) answer {
	first := answer{job: a.job}
	err := s.row(context.WithoutCancel(ctx), []any{&first.status, &first.body}, settleKey, f.tenant, f.key, a.job, a.status, a.body)
	if err != nil {
		s.metrics.unsettled.Inc()
		s.log.WarnContext(ctx, "answer of an idempotency key not kept", slog.String("tenant", f.tenant),
			slog.String("job", a.job), slog.Any("error", err))
		return a
	}
	return first
}

func (s *Service) row(ctx context.Context, into []any, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.KeyTimeout)
	defer cancel()
	return s.cfg.Keys.QueryRow(ctx, sql, args...).Scan(into...) //nolint:wrapcheck // for the callers here
}
