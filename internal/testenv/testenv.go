// Package testenv gives tests a real Apache Kafka and a real PostgreSQL.
//
// A run of `make test` starts one of each for all packages (Run, by way of
// cmd/testenv) and names them in KafkaVar and PostgresVar. Where those are not
// set, as in a bare `go test ./internal/x`, the test binary starts what its
// tests ask for, once, and TestMain stops it:
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(m)) }
//
// Tests share the servers and keep apart by Prefix on Kafka and by a database
// each on PostgreSQL. A test that wants to hurt a broker starts one of its own
// with StartKafka. Nothing here ever skips a test: what cannot be started fails
// it, with what to install. All of it needs a Unix.
//
// Each server is watched by one goroutine, which ends with it; none outlives
// Wrap's Run.
package testenv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// KafkaVar is the environment variable with the bootstrap address, host:port,
	// of a Kafka to test against.
	KafkaVar = "PENSTOCK_TEST_KAFKA"
	// PostgresVar is the environment variable with the URL of a PostgreSQL to
	// test against; its user may create databases.
	PostgresVar = "PENSTOCK_TEST_POSTGRES"
	// ThroughputVar is the environment variable that, set to anything, makes the
	// Kafka of a run one whose speed is measured (KafkaOptions.Throughput).
	ThroughputVar = "PENSTOCK_TEST_THROUGHPUT"
)

// cleanupTimeout bounds what is tidied up after one test.
const cleanupTimeout = 30 * time.Second

// shared is what this test binary has started for its tests. It is a global
// because a testing.TB carries nothing from TestMain to a test.
//
//nolint:gochecknoglobals // See above; Wrap empties it.
var shared services

// Runner is what *testing.M is to TestMain.
type Runner interface{ Run() int }

// Main runs a test binary's tests, stops the servers that they started, and
// exits.
func Main(m *testing.M) { os.Exit(Wrap(m).Run()) }

// Wrap returns a Runner that stops, after the tests, the servers that they
// started, and is Settled; it is what goleak.VerifyTestMain wants. What else is to
// be stopped after the tests is stopped by m.
func Wrap(m Runner) Runner { return Settled(wrapped{m}) }

type wrapped struct{ tests Runner }

// Run implements Runner.
func (w wrapped) Run() int {
	shared.open()
	code := w.tests.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		return max(code, 1)
	}
	return code
}

// Kafka returns the bootstrap address of the Kafka that tests share.
func Kafka(tb testing.TB) string {
	tb.Helper()
	addr, err := shared.kafkaAddr(tb.Context())
	if err != nil {
		tb.Fatalf("no Kafka to test against: %v", err)
	}
	return addr
}

// Postgres returns the URL of an empty database of the test's own, which goes
// when the test ends.
func Postgres(tb testing.TB) string {
	tb.Helper()
	server, err := shared.postgresURL(tb.Context())
	if err != nil {
		tb.Fatalf("no PostgreSQL to test against: %v", err)
	}
	name := "test_" + randomName()
	fresh, err := url.Parse(server)
	if err != nil {
		tb.Fatalf("%s: want a URL: %v", PostgresVar, err)
	}
	fresh.Path = "/" + name
	if err := execute(tb.Context(), server, "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("create a database for the test: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), cleanupTimeout)
		defer cancel()
		// FORCE, since a test that failed may have left connections.
		if err := execute(ctx, server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Logf("drop the test's database: %v", err)
		}
	})
	return fresh.String()
}

// Prefix returns a prefix for topic and group names, such as "t3f9a01b2c.",
// that no other test has. Topics that begin with it are deleted from the shared
// Kafka, if there is one, when the test ends.
func Prefix(tb testing.TB) string {
	tb.Helper()
	prefix := "t" + randomName() + "."
	tb.Cleanup(func() {
		addr := shared.kafkaIfStarted()
		if addr == "" {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), cleanupTimeout)
		defer cancel()
		if err := deleteTopics(ctx, addr, prefix); err != nil {
			tb.Logf("delete the test's topics: %v", err)
		}
	})
	return prefix
}

// randomName is ten characters that may stand in any name, lower-case letters and
// digits: 50 random bits.
func randomName() string {
	return strings.ToLower(rand.Text()[:10])
}

// execute runs one statement over a connection of its own.
func execute(ctx context.Context, server, statement string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	_, err = conn.Exec(ctx, statement)
	if err != nil {
		err = fmt.Errorf("%s: %w", statement, err)
	}
	return errors.Join(err, conn.Close(ctx))
}

// deleteTopics deletes the topics whose names begin with prefix.
func deleteTopics(ctx context.Context, addr, prefix string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return fmt.Errorf("make a Kafka client: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	var mine []string
	for _, name := range topics.Names() {
		if strings.HasPrefix(name, prefix) {
			mine = append(mine, name)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	answers, err := admin.DeleteTopics(ctx, mine...)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	return nil
}
