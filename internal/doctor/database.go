package doctor

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/postgres"
	"github.com/penstock-io/penstock/internal/projections"
	"github.com/penstock-io/penstock/internal/topics"
)

// postgres looks at the database. It returns nil where there is none.
func (d *visit) postgres(ctx context.Context) *pgxpool.Pool {
	if d.cfg.Postgres == "" {
		d.tell(Finding{
			"postgres", Warn, "no database is configured", "only processors can do without one",
			"give its URL with --postgres or PENSTOCK_POSTGRES",
		})
		return nil
	}
	pool, err := postgres.Open(ctx, postgres.Config{URL: d.cfg.Postgres, MaxConns: 2, Patience: d.cfg.Patience, Application: "penstock doctor"})
	if err != nil {
		d.tell(NoDatabase(err))
		return nil
	}
	d.tell(ok("postgres", "it answers"))
	d.tell(d.asked(ctx, func(ctx context.Context) []Finding { return Schema(ctx, pool) })...)
	d.tell(d.asked(ctx, func(ctx context.Context) []Finding { return Connections(ctx, pool, d.cfg.MaxConns) })...)
	d.tell(d.asked(ctx, func(ctx context.Context) []Finding { return DatabaseClock(ctx, pool, d.cfg.Now) })...)
	return pool
}

// both looks at what takes Kafka and the database.
func (d *visit) both(ctx context.Context, cluster *kafka.Cluster, pool *pgxpool.Pool) {
	names := topics.Names{Prefix: d.cfg.Topics.Prefix}
	pending, err := postgres.Pending(ctx, pool)
	if err != nil || len(pending) > 0 {
		return // there are no tables to compare with, as was told
	}
	ids := d.asked(ctx, func(ctx context.Context) []Finding { return Recreated(ctx, cluster, pool, names) })
	d.tell(ids...)
	if worst(ids) == Fail {
		return
	}
	d.tell(d.asked(ctx, func(ctx context.Context) []Finding { return Projections(ctx, cluster, pool, names, d.cfg.Now) })...)
}

// NoDatabase says why a database could not be opened.
func NoDatabase(err error) Finding {
	f := Finding{"postgres", Fail, "the database cannot be used", err.Error(), "see that PostgreSQL runs and that --postgres (PENSTOCK_POSTGRES) is its address as seen from this machine"}
	pe, said := errors.AsType[*pgconn.PgError](err)
	if !said {
		return f
	}
	switch {
	case strings.HasPrefix(pe.Code, "28"): // invalid authorisation
		f.What, f.Do = "the database refuses this user or password", "set user and password in --postgres right; pg_hba.conf must let this machine in"
	case pe.Code == "3D000": // invalid catalog name
		f.What, f.Do = "there is no such database", "make it (createdb), or name another in --postgres; then run `penstock migrate`"
	case pe.Code == "53300": // too many connections
		f.What, f.Do = "the database takes no more connections", "raise max_connections, or run fewer processes"
	default:
	}
	return f
}

// Schema looks whether the tables are this build's.
func Schema(ctx context.Context, pool *pgxpool.Pool) []Finding {
	const check = "postgres.schema"
	pending, err := postgres.Pending(ctx, pool)
	var newer []int64
	if err == nil {
		newer, err = postgres.Newer(ctx, pool)
	}
	switch {
	case err != nil:
		return []Finding{{check, Fail, "the schema's version cannot be read", err.Error(), "see that this user may read the schema penstock"}}
	case len(pending) > 0:
		return []Finding{{
			check, Fail, "the schema is behind this build by " + count(len(pending), "migration"), "processes of this build refuse to start on it",
			"run `penstock migrate`",
		}}
	case len(newer) > 0:
		return []Finding{{
			check, Warn, fmt.Sprintf("the schema is of a newer build: it has migration %d", newer[len(newer)-1]), "this program is older than one that has migrated the database",
			"use the newer build here as well",
		}}
	}
	return []Finding{ok(check, "it is this build's")}
}

// Connections looks whether the server takes as many connections as processes
// may open.
func Connections(ctx context.Context, pool *pgxpool.Pool, each int) []Finding {
	const check = "postgres.connections"
	var most, used int
	var standby bool
	err := pool.QueryRow(ctx, `SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), pg_is_in_recovery()`).Scan(&most, &used, &standby)
	switch {
	case err != nil:
		return []Finding{{check, Warn, "the connections cannot be counted", err.Error(), "see that this user may read pg_stat_activity"}}
	case standby:
		return []Finding{{check, Fail, "the server is a standby: it takes no writes", "pg_is_in_recovery() is true", "name the primary in --postgres"}}
	case most < 2*each:
		return []Finding{{
			check, Warn, fmt.Sprintf("max_connections leaves %d connections, and a process may open %d", most, each),
			"a second process, or a new one beside the old one at an upgrade, finds none", fmt.Sprintf("raise max_connections to %d a process and some more", each),
		}}
	case most-used < each:
		return []Finding{{
			check, Warn, fmt.Sprintf("%d of %d connections are in use", used, most), fmt.Sprintf("there is no room for one more process, which may open %d", each),
			"raise max_connections, or see in pg_stat_activity who holds them",
		}}
	}
	return []Finding{ok(check, "%d of %d are in use", used, most)}
}

// DatabaseClock compares the server's clock with ours.
func DatabaseClock(ctx context.Context, pool *pgxpool.Pool, now func() time.Time) []Finding {
	const check = "clocks.postgres"
	before := now()
	var theirs time.Time
	if err := pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&theirs); err != nil {
		return []Finding{{check, Warn, "the database does not tell its time", err.Error(), "see that it is well"}}
	}
	after := now()
	apart := max(before.Sub(theirs), theirs.Sub(after), 0)
	if apart > farApart {
		return []Finding{{
			check, Warn, fmt.Sprintf("the database's clock and this machine's are %v apart", apart.Round(time.Millisecond)),
			"idempotency keys expire by its clock; and where it is right, this machine's is wrong",
			"have both keep their time with NTP (chronyd, systemd-timesyncd)",
		}}
	}
	return []Finding{ok(check, "it agrees with this machine's")}
}

// Identifier is what Recreated asks; *kafka.Cluster has it.
type Identifier interface {
	TopicID(ctx context.Context, topic string) ([16]byte, error)
}

// Recreated looks whether the topics are those that the tables were made from.
func Recreated(ctx context.Context, c Identifier, pool *pgxpool.Pool, names topics.Names) []Finding {
	const check = "topics.identity"
	rows, err := pool.Query(ctx, `SELECT DISTINCT topic, topic_id FROM penstock.checkpoints WHERE starts_with(topic, $1) ORDER BY topic`, names.Prefix)
	if err != nil {
		return []Finding{{check, Fail, "the checkpoints cannot be read", err.Error(), "see that this user may read the schema penstock"}}
	}
	type checkpoint struct{ topic, id string }
	seen, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c checkpoint, err error) {
		err = row.Scan(&c.topic, &c.id)
		return c, err //nolint:wrapcheck // wrapped by the finding
	})
	if err != nil {
		return []Finding{{check, Fail, "the checkpoints cannot be read", err.Error(), "see that this user may read the schema penstock"}}
	}
	var other []string
	for _, s := range seen {
		id, err := c.TopicID(ctx, s.topic)
		if errors.Is(err, kafka.ErrUnknownTopic) {
			continue // told as missing, or no lane of this build
		}
		if err != nil {
			return []Finding{denied(check, s.topic+" cannot be looked at", err)}
		}
		if hex.EncodeToString(id[:]) != s.id {
			other = append(other, s.topic)
		}
	}
	if len(other) > 0 {
		return []Finding{{
			check, Fail, "deleted and created anew since the tables were made: " + strings.Join(other, ", "),
			"the checkpoints are of the old topics, whose records the new ones do not hold; projections stand still",
			"if the old records are gone for good: restart every process, and begin with an empty database, or with a new --prefix, for the tables to follow the new topics",
		}}
	}
	return []Finding{ok(check, "they are those that the tables were made from")}
}

// Ends is what Projections asks; *kafka.Cluster has it.
type Ends interface {
	projections.Offsets
	TimeAt(ctx context.Context, tp kafka.TopicPartition, offset int64) (time.Time, error)
}

const (
	// lateAfter is the age of an unfolded record that is worth a word, and
	// goneAfter one at which nobody can be folding.
	lateAfter = 10 * time.Second
	goneAfter = time.Minute
)

// Projections looks how far the tables are behind the log.
func Projections(ctx context.Context, c Ends, pool *pgxpool.Pool, names topics.Names, now func() time.Time) []Finding {
	const check = "projections"
	behind, err := projections.NewStore(pool, c, projections.Topics(names), nil).Behind(ctx)
	if err != nil {
		return []Finding{{check, Warn, "how far the tables are behind cannot be told", err.Error(), "see that Kafka and PostgreSQL are well"}}
	}
	var records int64
	var age time.Duration
	for _, b := range behind {
		records += b.Records
		if at, err := c.TimeAt(ctx, b.TopicPartition, b.Next); err == nil && !at.IsZero() {
			age = max(age, now().Sub(at))
		}
	}
	if age <= lateAfter {
		return []Finding{ok(check, "%d records are not folded yet", records)}
	}
	f := Finding{
		check, Warn, fmt.Sprintf("%d records are not folded, the oldest since %v", records, age.Round(time.Second)), "nobody folds them, or not as fast as they come",
		"see that a process with the role projections runs; its /readyz says which partition stands still, and why. Until it has caught up, lists of jobs are old; a single job is answered from the log",
	}
	if age > goneAfter {
		f.Status = Fail
	}
	return []Finding{f}
}
