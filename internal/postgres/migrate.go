package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// versionTable is where goose notes what it has applied.
	versionTable = "penstock.schema_versions"
	// migrationLock is the advisory lock under which schemas change; the number
	// is "penstock" in ASCII, and means nothing else.
	migrationLock int64 = 0x70656e73746f636b
	// unlockPatience bounds the release; a session that can't be asked loses its
	// lock by ending.
	unlockPatience = 5 * time.Second
)

// Migrate brings the schema to this build's version, and returns the versions
// that it applied, none where it was up to date. Processes that do so at once
// take turns. Each migration is a transaction: one that fails leaves the ones
// before it.
func Migrate(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) ([]int64, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return migrate(ctx, pool, files, log)
}

func migrate(ctx context.Context, pool *pgxpool.Pool, files fs.FS, log *slog.Logger) (applied []int64, err error) {
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }() // the pool stays open
	p, err := provider(db, files)
	if err != nil {
		return nil, err
	}
	// Goose looks for its table before it takes the lock.
	if err := makeSchema(ctx, pool); err != nil {
		return nil, fmt.Errorf("migrate the database: %w", err)
	}
	results, err := p.Up(ctx)
	if pe, ok := errors.AsType[*goose.PartialError](err); ok {
		results = pe.Applied
		err = fmt.Errorf("migration %s: %w", pe.Failed.Source.Path, pe.Err)
	}
	for _, r := range results {
		applied = append(applied, r.Source.Version)
		if log != nil {
			log.InfoContext(ctx, "migrated the database", slog.String("migration", r.Source.Path), slog.Duration("took", r.Duration))
		}
	}
	if err != nil {
		return applied, fmt.Errorf("migrate the database: %w", err)
	}
	return applied, nil
}

// Pending lists the versions that Migrate would apply. It changes nothing and
// takes no lock.
func Pending(ctx context.Context, pool *pgxpool.Pool) (pending []int64, err error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := provider(db, files)
	if err != nil {
		return nil, err
	}
	// Goose's own check would make its table.
	applied, err := appliedVersions(ctx, pool)
	if err != nil {
		return nil, fmt.Errorf("read the database's version: %w", err)
	}
	for _, s := range p.ListSources() {
		if !applied[s.Version] {
			pending = append(pending, s.Version)
		}
	}
	return pending, nil
}

// Newer lists the versions that the database has and this build does not know: a
// newer build has migrated it.
func Newer(ctx context.Context, pool *pgxpool.Pool) ([]int64, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	applied, err := appliedVersions(ctx, pool)
	if err != nil {
		return nil, fmt.Errorf("read the database's version: %w", err)
	}
	var newer []int64
	for v := range applied {
		if v > int64(len(names)) { // they are numbered from 1 without a gap
			newer = append(newer, v)
		}
	}
	slices.Sort(newer)
	return newer, nil
}

func appliedVersions(ctx context.Context, pool *pgxpool.Pool) (map[int64]bool, error) {
	var there bool
	if err := pool.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, versionTable).Scan(&there); err != nil || !there {
		return nil, err
	}
	rows, err := pool.Query(ctx, `SELECT version_id FROM `+versionTable+` WHERE is_applied`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	applied := make(map[int64]bool)
	for rows.Next() {
		var v int64
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		applied[v] = true
	}
	return applied, rows.Err()
}

func provider(db *sql.DB, files fs.FS) (*goose.Provider, error) {
	p, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(versionTable),
		goose.WithSessionLocker(schemaLock{}),
		goose.WithDisableGlobalRegistry(true),
	)
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return p, nil
}

// makeSchema makes the schema that all else lies in, under the same lock as the
// migrations: IF NOT EXISTS by itself fails when two do it at once.
func makeSchema(ctx context.Context, pool *pgxpool.Pool) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, migrationLock); err != nil {
			return fmt.Errorf("wait for another process to migrate: %w", err)
		}
		if _, err := tx.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS penstock`); err != nil {
			return fmt.Errorf("make the schema penstock; grant CREATE on the database to this user: %w", err)
		}
		return nil
	})
}

// schemaLock is goose's lock of a session, by waiting in the server and not by
// asking it again and again.
type schemaLock struct{}

// SessionLock waits for the lock as long as the context allows.
func (schemaLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, migrationLock); err != nil {
		return fmt.Errorf("wait for another process to migrate: %w", err)
	}
	return nil
}

// SessionUnlock lets go of the lock.
func (schemaLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, unlockPatience)
	defer cancel()
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_unlock($1)`, migrationLock)
	return err
}
