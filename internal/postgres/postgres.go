// Package postgres opens the connection pool and keeps the database's schema.
//
// All of Penstock's tables live in the schema "penstock". The package knows no
// table's meaning: the statements belong to the packages that own the tables.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// defaultMaxConns leaves room for several processes under PostgreSQL's own
	// default of 100 connections.
	defaultMaxConns = 16
	// defaultPatience is how long Open waits for a server that is away.
	defaultPatience = 10 * time.Second
	// connectTimeout bounds one attempt to connect, at any time of the pool's life.
	connectTimeout = 5 * time.Second
	// dialTimeout bounds the network's part of it, and of a cancelled statement's
	// goodbye, for which the client has 15 s: until then that holds a place in the
	// pool. A server that is silent lets dials wait for TCP's repeats, which come
	// 1, 3, 7 and 15 s after the first; so a new one sees its return sooner.
	dialTimeout = 2 * time.Second
	// retryWait is the pause between attempts in Open.
	retryWait = 200 * time.Millisecond
)

// Config says which database to open, and how.
type Config struct {
	// URL is a connection string, postgres://user:password@host:port/database.
	URL string
	// MaxConns bounds the pool; 0 is 16.
	MaxConns int
	// Patience bounds how long Open waits for a server that is not there yet;
	// 0 is 10 seconds.
	Patience time.Duration
	// Application is the name that the server shows for our connections; empty
	// is "penstock".
	Application string
	// Log gets a warning when Open has to wait. Nil discards it.
	Log *slog.Logger
}

// Open makes a pool and waits for the first answer. A server that is away or
// starting is tried again until Patience has passed; what no waiting mends (a
// wrong password, no such database) is told at once. Later the pool reconnects
// by itself, and Unavailable tells when to let a caller try again.
func Open(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	pc, err := poolConfig(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	where := fmt.Sprintf("%s:%d/%s", pc.ConnConfig.Host, pc.ConnConfig.Port, pc.ConnConfig.Database)
	if err := firstAnswer(ctx, pool, cfg, where); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func poolConfig(cfg Config) (*pgxpool.Config, error) {
	if strings.TrimSpace(cfg.URL) == "" {
		return nil, errors.New("no database is named: give --postgres postgres://user:password@host:5432/database")
	}
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		// pgx leaves the password out of this error.
		return nil, fmt.Errorf("the database's address can't be read, it has to look like postgres://user:password@host:5432/database: %w", err)
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = defaultMaxConns
	}
	if cfg.MaxConns > 1<<15 {
		return nil, fmt.Errorf("%d database connections are more than any server takes: name a few dozen", cfg.MaxConns)
	}
	if cfg.Application == "" {
		cfg.Application = "penstock"
	}
	pc.MaxConns = int32(cfg.MaxConns) //nolint:gosec // bounded above
	pc.MaxConnIdleTime = 5 * time.Minute
	pc.ConnConfig.ConnectTimeout = connectTimeout
	pc.ConnConfig.DialFunc = (&net.Dialer{Timeout: dialTimeout}).DialContext
	if pc.ConnConfig.RuntimeParams["application_name"] == "" {
		pc.ConnConfig.RuntimeParams["application_name"] = cfg.Application
	}
	return pc, nil
}

func firstAnswer(ctx context.Context, pool *pgxpool.Pool, cfg Config, where string) error {
	waiting, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	tick := time.NewTicker(retryWait)
	defer tick.Stop()
	for first := true; ; first = false {
		err := pool.Ping(waiting)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("connect to PostgreSQL at %s: %w", where, ctx.Err())
		case !Unavailable(err):
			return fmt.Errorf("PostgreSQL at %s is there but refuses us; see to user, password and database in its address: %w", where, err)
		case first:
			cfg.Log.WarnContext(ctx, "waiting for postgresql", slog.String("server", where),
				slog.Duration("patience", cfg.Patience), slog.Any("error", err))
		}
		select {
		case <-waiting.Done():
			return fmt.Errorf("PostgreSQL at %s did not answer within %v; see that it runs and can be reached from here: %w",
				where, cfg.Patience, err)
		case <-tick.C:
		}
	}
}

// Unavailable tells whether an error means that the server is away, starting,
// stopping, full or too slow, so that the same call may do later; as against a
// statement that fails for its own sake, or a caller that gave up.
func Unavailable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	// What the server said goes before how the connection then ended.
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return unavailableState(pe.Code)
	}
	for _, is := range []error{
		context.DeadlineExceeded, // no connection free in time, or no answer
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, pgconn.ErrConnClosed,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE,
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	_, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok
}

// unavailableState sorts an SQLSTATE.
func unavailableState(code string) bool {
	switch code {
	case "57P01", "57P02", "57P03", // shutting down, crashed, not ready yet
		"57P05", // the session was idle too long and has gone
		"25006": // read-only: a standby, during a failover
		return true
	}
	// Connection exceptions; too little memory or disk, or too many connections.
	return strings.HasPrefix(code, "08") || strings.HasPrefix(code, "53")
}
