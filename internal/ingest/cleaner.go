package ingest

import (
	"context"
	"log/slog"
	"time"
)

const (
	cleanEvery = time.Hour
	// cleanBatch bounds what one statement deletes, in rows.
	cleanBatch = 1000
	// cleanTimeout bounds one statement.
	cleanTimeout = 10 * time.Second
)

// Run deletes idempotency keys that are past their 24 hours, at once and then
// every hour, until ctx ends. A database that is away is waited for.
func (s *Service) Run(ctx context.Context) error {
	if s.cfg.Keys == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		if n, err := s.clean(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			s.log.WarnContext(ctx, "old idempotency keys not deleted", slog.Int64("deleted", n), slog.Any("error", err))
		} else if n > 0 {
			s.log.InfoContext(ctx, "old idempotency keys deleted", slog.Int64("deleted", n))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// clean deletes until a batch is not full.
func (s *Service) clean(ctx context.Context) (total int64, err error) {
	for {
		n, err := s.cleanOnce(ctx)
		total += n
		if err != nil || n < cleanBatch {
			return total, err
		}
	}
}

func (s *Service) cleanOnce(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	tag, err := s.cfg.Keys.Exec(ctx, cleanKeys, cleanBatch)
	return tag.RowsAffected(), err //nolint:wrapcheck // logged by the one caller
}
