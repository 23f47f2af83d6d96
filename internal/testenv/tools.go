package testenv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Program sees to it that a program is on the PATH, installing the first of the
// Debian packages that can be had, and fails the test where it cannot.
func Program(tb testing.TB, program string, packages ...string) {
	tb.Helper()
	if err := requireProgram(tb.Context(), program, packages...); err != nil {
		tb.Fatal(err)
	}
}

// KafkaClasses is a class path that holds Kafka's own clients and tools, for
// `java -cp`.
func KafkaClasses(tb testing.TB) string {
	tb.Helper()
	jars, err := kafkaJars(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(jars, "*")
}

// Python is the interpreter of a virtual environment that holds packages, each
// with its version ("confluent-kafka==2.16.1"). It is made once a user and kept.
func Python(tb testing.TB, packages ...string) string {
	tb.Helper()
	python, err := pythonWith(tb.Context(), packages)
	if err != nil {
		tb.Fatal(err)
	}
	return python
}

// pythonWith makes the environment in a directory of its own and renames it
// into place, so that two processes at once do not disturb each other.
func pythonWith(ctx context.Context, packages []string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for Python's packages, set HOME or XDG_CACHE_HOME: %w", err)
	}
	sum := sha256.Sum256([]byte(strings.Join(packages, "\n")))
	parent := filepath.Join(cache, "penstock")
	final := filepath.Join(parent, "python-"+hex.EncodeToString(sum[:6]))
	python := filepath.Join("bin", "python3")
	if isDir(final) {
		return filepath.Join(final, python), nil
	}
	if err := requireProgram(ctx, "python3", "python3"); err != nil {
		return "", err
	}
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return "", fmt.Errorf("make the cache for Python's packages: %w", err)
	}
	work, err := os.MkdirTemp(parent, "fetch-")
	if err != nil {
		return "", fmt.Errorf("make a directory for Python's packages: %w", err)
	}
	defer discard(work)
	if err := runQuietly(ctx, "python3", "-m", "venv", work); err != nil {
		return "", fmt.Errorf("make a virtual environment (on Debian: apt-get install python3-venv): %w", err)
	}
	install := append([]string{filepath.Join(work, python), "-m", "pip", "install", "-q", "--disable-pip-version-check"}, packages...)
	if err := runQuietly(ctx, install...); err != nil {
		return "", fmt.Errorf("fetch Python packages: %w", err)
	}
	if err := os.Rename(work, final); err != nil && !isDir(final) {
		return "", fmt.Errorf("put Python's packages in place: %w", err)
	}
	return filepath.Join(final, python), nil
}
