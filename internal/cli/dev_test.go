package cli

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/app"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

func TestDevKeepsItsJobsAndTokensOverARestart(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	lent(t, dir)
	args := []string{"dev", "--listen", "127.0.0.1:0", "--partitions", "2", "--data", dir}
	first := serving(t, args...)
	done := first.on(t, "job", "submit", "-m", quick, "--wait", "hello").want(t, exitDone)
	id := firstJob(t, done.stdout)
	records := first.on(t, "job", "tail", id, "-o", "jsonl").want(t, exitDone).stdout
	long := firstJob(t, first.on(t, "job", "submit", "-m", "sim:tokens=40,ttft=0s,gap=150ms", "take your time").want(t, exitDone).stdout)
	eventually(t, "the long job has begun", func() bool {
		return strings.Contains(first.on(t, "job", "get", long, "-o", "jsonl").stdout, `"status":"running"`)
	})

	var out, errs text
	if code := Run(t.Context(), args, System{Stdout: &out, Stderr: &errs}); code != exitFailed || !strings.Contains(errs.String(), "another penstock dev works in "+dir) {
		t.Errorf("two at once: %d, %q", code, errs.String())
	}
	if code := first.stop(); code != exitDone {
		t.Fatalf("the stop: %d, %s", code, first.stderr.String())
	}
	if said := first.stdout.String(); !strings.HasSuffix(said, "\nStopped.\n") {
		t.Errorf("it ended with %q", said)
	}

	second := serving(t, args...)
	if got := second.on(t, "job", "tail", id, "-o", "jsonl").want(t, exitDone).stdout; got != records {
		t.Errorf("the tokens after the restart:\n%s\nbefore:\n%s", got, records)
	}
	if o := second.on(t, "job", "get", id).want(t, exitDone); !strings.Contains(o.stdout, "completed") {
		t.Errorf("the job after the restart: %s", o.stdout)
	}
	if first.kafka(t) != second.kafka(t) {
		t.Errorf("the broker was at %s and is at %s", first.kafka(t), second.kafka(t))
	}
	text := second.on(t, "job", "tail", long).want(t, exitDone).stdout
	if n := len(strings.Fields(text)); n != 40 {
		t.Errorf("the job that was cut off said %d words of 40: %s", n, text)
	}
}

// lent notes an address for a dev's broker as if it had been there before: on Linux
// one of the loopback that nobody else uses, so that nobody takes it while it stops.
func lent(t *testing.T, dir string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return // it has no such addresses, and any that is free will do nearly always
	}
	at := fmt.Sprintf("127.%d.%d.%d:29092", 1+rand.IntN(254), rand.IntN(255), 1+rand.IntN(254))
	if err := os.MkdirAll(filepath.Join(dir, "kafka"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kafka", "address"), []byte(at), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDevSaysWhatThereIsToTry(t *testing.T) {
	t.Parallel()
	p := dev(t)
	said := p.stdout.String()
	for _, want := range []string{
		"Penstock is at http://" + p.addr, `  bin/penstock job submit --server http://` + p.addr + ` --model sim --follow "hello"`,
		"kcat -C -b ", "penstock.tokens", "Data: /",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q: %s", want, said)
		}
	}
	line := ""
	for l := range strings.Lines(said) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "curl") {
			line = l
		}
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl here to try the line with")
	}
	got, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput()
	if err != nil || !strings.Contains(string(got), `"type":"output.completed"`) {
		t.Errorf("%s: %v, %s", line, err, got)
	}
}

func TestDevRunsOnRealParts(t *testing.T) {
	t.Parallel()
	addr := embeddedBroker(t)
	p := serving(t, "dev", "--listen", "127.0.0.1:0", "--partitions", "1", "--kafka", addr, "--postgres", testenv.Postgres(t))
	p.on(t, "job", "submit", "-m", quick, "--wait", "hello").want(t, exitDone)
	if said := p.stdout.String(); !strings.Contains(said, "-b "+addr+" ") || !strings.Contains(said, "Data: in the Kafka and PostgreSQL that were named") {
		t.Errorf("it says %s", said)
	}
	if code := p.stop(); code != exitDone {
		t.Errorf("the stop: %d, %s", code, p.stderr.String())
	}
}

func TestDevTakesAnotherPortWhereItsOwnIsTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a test's
	if err := os.MkdirAll(filepath.Join(dir, "kafka"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kafka", "address"), []byte(taken.Addr().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serving(t, "dev", "--listen", "127.0.0.1:0", "--partitions", "1", "--data", dir, "--postgres", testenv.Postgres(t))
	if p.kafka(t) == taken.Addr().String() {
		t.Errorf("the broker is at %s, which is taken", taken.Addr())
	}
	if !strings.Contains(p.stderr.String(), "last address cannot be had") {
		t.Errorf("it did not say so: %s", p.stderr.String())
	}
}

func TestDevStopsWhatItStartedWhereItCannotServe(t *testing.T) {
	t.Parallel()
	dir, database := t.TempDir(), testenv.Postgres(t)
	busy := dev(t).addr
	for range 2 { // the second would find the directory in use
		if o := run(t, "dev", "--listen", busy, "--partitions", "1", "--data", dir, "--postgres", database).want(t, exitFailed); !strings.Contains(o.stderr, "listen on") {
			t.Errorf("on a taken address: %s", o.stderr)
		}
	}
	if o := run(t, "dev", "--listen", "x", "--data", dir, "--postgres", database).want(t, exitUsage); !strings.Contains(o.stderr, "host:port") {
		t.Errorf("on no address: %s", o.stderr)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := run(t, "dev", "--data", plain, "--postgres", database).want(t, exitFailed); !strings.Contains(o.stderr, "plain") {
		t.Errorf("in a file: %s", o.stderr)
	}
}

func TestDevKeepsDataWhereTheSystemDoes(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the directories are Linux's")
	}
	for want, env := range map[string]map[string]string{
		"/x/penstock/dev":                     {"XDG_DATA_HOME": "/x", "HOME": "/home/me"},
		"/home/me/.local/share/penstock/dev":  {"HOME": "/home/me"},
		"/home/you/.local/share/penstock/dev": {"XDG_DATA_HOME": "relative", "HOME": "/home/you"},
	} {
		got, err := (&DevCmd{}).dataDir(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if err != nil || got != want {
			t.Errorf("with %v it is %q, %v; want %q", env, got, err, want)
		}
	}
}

func TestDevEndsWithItsDatabase(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	sys := &System{Stderr: &text{}}
	c := DevCmd{Data: dir}
	s, err := c.start(t.Context(), sys, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(app.Config{
		Listen: "127.0.0.1:0", Kafka: s.kafka, Postgres: s.postgres, Topics: topics.Options{Partitions: 1}, Apply: true, Grace: time.Second,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = s.serve(t.Context(), a, func(string) { _ = s.database.Stop(t.Context()) })
	if err == nil || !strings.Contains(err.Error(), "PostgreSQL has ended by itself") {
		t.Errorf("without its database it ended with %v", err)
	}
	if err := s.stop(t.Context()); err != nil {
		t.Errorf("the stop: %v", err)
	}
}
