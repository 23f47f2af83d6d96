package testenv

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kafkaVersion is the Apache Kafka that tests run against; kafka.pom.xml names
// the same.
const kafkaVersion = "4.3.1"

//go:embed kafka.pom.xml
var kafkaPOM []byte

// kafkaJars returns the directory that holds Kafka's jars, fetching them with
// Maven where this user has never had them. Two processes that fetch at once
// do not disturb each other: each fills a directory of its own, and the first
// rename wins.
func kafkaJars(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for Kafka's jars, set HOME or XDG_CACHE_HOME: %w", err)
	}
	parent := filepath.Join(cache, "penstock")
	final := filepath.Join(parent, "kafka-"+kafkaVersion)
	if isDir(final) {
		return final, nil
	}
	if err := requireProgram(ctx, "mvn", "maven"); err != nil {
		return "", err
	}
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return "", fmt.Errorf("make the cache for Kafka's jars: %w", err)
	}
	work, err := os.MkdirTemp(parent, "fetch-")
	if err != nil {
		return "", fmt.Errorf("make a directory to fetch Kafka's jars into: %w", err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // What stays behind is only a cache.
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), kafkaPOM, 0o600); err != nil {
		return "", fmt.Errorf("write Kafka's pom.xml: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib")
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Kafka %s with Maven, which needs Maven Central or a mirror in ~/.m2/settings.xml: %w\n%s",
			kafkaVersion, err, lastLines(string(out)))
	}
	if err := os.Rename(filepath.Join(work, "lib"), final); err != nil && !isDir(final) {
		return "", fmt.Errorf("put Kafka's jars in place: %w", err)
	}
	return final, nil
}

// requireProgram sees to it that program is on the PATH: it installs the first
// of the Debian packages that can be had, or says what to install.
func requireProgram(ctx context.Context, program string, packages ...string) error {
	_, err := exec.LookPath(program)
	if err == nil {
		return nil
	}
	advice := fmt.Errorf("%s is missing: install it (on Debian: apt-get install %s)", program, packages[0])
	if _, err := exec.LookPath("apt-get"); err != nil {
		return advice
	}
	apt := []string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"}
	if os.Geteuid() != 0 {
		if err := exec.CommandContext(ctx, "sudo", "-n", "true").Run(); err != nil {
			return fmt.Errorf("%w; sudo asks for a password, so this run may not", advice)
		}
		apt = append([]string{"sudo", "-n"}, apt...)
	}
	if err := runQuietly(ctx, append(apt, "update")...); err != nil {
		return errors.Join(advice, err)
	}
	var failures []error
	for _, name := range packages {
		err := runQuietly(ctx, append(apt, "install", "--no-install-recommends", name)...)
		if err == nil {
			_, err = exec.LookPath(program)
		}
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	return errors.Join(append([]error{advice}, failures...)...)
}

// runQuietly runs a command and puts the end of what it printed into its error.
func runQuietly(ctx context.Context, argv ...string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput() //nolint:gosec // Every caller passes words of its own.
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, lastLines(string(out)))
	}
	return nil
}

// lastLines returns the last twenty lines of s, enough to see why a program
// ended.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// isDir reports whether path is a directory; a path that cannot be looked at
// is none.
func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
