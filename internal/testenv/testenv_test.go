package testenv

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(Wrap(m)) }

func TestEachTestHasADatabaseOfItsOwnThatGoesWithIt(t *testing.T) {
	var first, second string
	t.Run("use", func(t *testing.T) {
		first, second = Postgres(t), Postgres(t)
		if first == second {
			t.Fatalf("one database for two: %s", first)
		}
		for _, server := range []string{first, second} {
			if err := execute(t.Context(), server, "CREATE TABLE mine (id int)"); err != nil {
				t.Fatal(err)
			}
		}
	})
	if conn, err := pgx.Connect(t.Context(), first); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the first database outlived its test")
	}
}

func TestTopicsUnderAPrefixGoWithTheirTest(t *testing.T) {
	admin := adminClient(t, Kafka(t))
	var mine string
	t.Run("use", func(t *testing.T) {
		prefix := Prefix(t)
		if other := Prefix(t); other == prefix {
			t.Fatalf("the prefix %s came twice", prefix)
		}
		mine = prefix + "tokens"
		if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, mine); err != nil {
			t.Fatal(err)
		}
	})
	topics, err := admin.ListTopics(t.Context(), mine)
	if err != nil {
		t.Fatal(err)
	}
	if topics.Has(mine) {
		t.Errorf("topic %s outlived its test", mine)
	}
}

func TestRunPassesOnServersOutputAndExitCode(t *testing.T) {
	// Servers that are there already are used, so none is started here.
	t.Setenv(KafkaVar, "kafka.example:9092")
	t.Setenv(PostgresVar, "postgres://postgres.example/db")
	for _, c := range []struct {
		name, script string
		code         int
	}{
		{"success", "true", 0},
		{"failure", "exit 3", 3},
		{"death by a signal", "kill -KILL $$", 137},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			script := "echo $" + KafkaVar + " $" + PostgresVar + "; " + c.script
			if code := Run(t.Context(), []string{"sh", "-c", script}, &stdout, &stderr); code != c.code {
				t.Errorf("exit code %d, want %d; %s", code, c.code, stderr.String())
			}
			if got := stdout.String(); got != "kafka.example:9092 postgres://postgres.example/db\n" {
				t.Errorf("the command saw %q", got)
			}
		})
	}
	var stderr bytes.Buffer
	if code := Run(t.Context(), nil, &stderr, &stderr); code != 2 || !strings.Contains(stderr.String(), "no command") {
		t.Errorf("no command: code %d, %s", code, stderr.String())
	}
	if code := Run(t.Context(), []string{"/nonexistent/program"}, &stderr, &stderr); code != 1 {
		t.Errorf("no such program: code %d", code)
	}
}

// cancelOnWrite ends a context as soon as something is printed.
type cancelOnWrite struct{ cancel context.CancelFunc }

func (c cancelOnWrite) Write(p []byte) (int, error) { c.cancel(); return len(p), nil }

func TestInterruptEndsTheCommandAndWhatItStarted(t *testing.T) {
	t.Setenv(KafkaVar, "kafka.example:9092")
	t.Setenv(PostgresVar, "postgres://postgres.example/db")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr bytes.Buffer
	code := Run(ctx, []string{"sh", "-c", "echo up; sleep 600 & sleep 600"}, cancelOnWrite{cancel}, &stderr)
	if want := 128 + int(syscall.SIGTERM); code != want {
		t.Errorf("exit code %d, want %d; %s", code, want, stderr.String())
	}
}

func TestRunStartsBothServersAndStopsThem(t *testing.T) {
	t.Setenv(KafkaVar, "")
	t.Setenv(PostgresVar, "")
	var stdout, stderr bytes.Buffer
	if code := Run(t.Context(), []string{"sh", "-c", "echo $" + KafkaVar + " $" + PostgresVar}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	kafka, postgres, _ := strings.Cut(strings.TrimSpace(stdout.String()), " ")
	if !strings.HasPrefix(kafka, "127.0.0.1:") || !strings.HasPrefix(postgres, "postgres://") {
		t.Fatalf("the command saw %q and %q", kafka, postgres)
	}
	if conn, err := pgx.Connect(t.Context(), postgres); err == nil {
		_ = conn.Close(t.Context())
		t.Error("PostgreSQL outlived the run")
	}
}

func TestFailedStartIsRememberedAndNoneHappensOutsideOfMain(t *testing.T) {
	var l lazy[int]
	broken := errors.New("broken")
	calls := 0
	start := func() (int, error) { calls++; return 0, broken }
	if _, err := l.get(start); !errors.Is(err, errNoMain) {
		t.Errorf("before open: %v", err)
	}
	l.open()
	for range 2 {
		if _, err := l.get(start); !errors.Is(err, broken) {
			t.Errorf("got %v, want %v", err, broken)
		}
	}
	if calls != 1 {
		t.Errorf("started %d times, want once", calls)
	}
	if err := l.close(func(int) error { return errors.New("nothing to end") }); err != nil {
		t.Error(err)
	}
}

// fakePrograms makes a PATH that holds nothing but the given shell scripts.
func fakePrograms(t *testing.T, scripts map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, script := range scripts {
		body := "#!/bin/sh\nPATH=/usr/bin:/bin\n" + script + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return dir
}

// pretendEnv runs its arguments without the variable before them, on the PATH
// as it is.
const pretendEnv = `shift; name=$1; shift; exec "$(dirname "$0")/$name" "$@"`

// pretendSudo does what it is asked to, for a test that does not run as root.
const pretendSudo = `shift; name=$1; shift; [ "$name" = true ] || exec "$(dirname "$0")/$name" "$@"`

func TestMissingProgramIsInstalledFromTheFirstPackageThatHasIt(t *testing.T) {
	dir := fakePrograms(t, map[string]string{
		"env":  pretendEnv,
		"sudo": pretendSudo,
		"apt-get": `case "$*" in
			*update) ;;
			*newer) cp "$0" "$(dirname "$0")/wanted" ;;
			*) echo "no such package"; exit 100 ;;
		esac`,
	})
	if err := requireProgram(t.Context(), "wanted", "older", "newer"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "wanted")); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeInstalledIsNamed(t *testing.T) {
	for name, scripts := range map[string]map[string]string{
		"no apt-get":      nil,
		"no such package": {"env": pretendEnv, "sudo": pretendSudo, "apt-get": `case "$*" in *update) ;; *) exit 100 ;; esac`},
		"no network":      {"env": pretendEnv, "sudo": pretendSudo, "apt-get": "exit 100"},
		"no password":     {"env": pretendEnv, "sudo": "exit 1", "apt-get": "exit 100"},
	} {
		t.Run(name, func(t *testing.T) {
			fakePrograms(t, scripts)
			err := requireProgram(t.Context(), "wanted", "the-package")
			if err == nil || !strings.Contains(err.Error(), "apt-get install the-package") {
				t.Errorf("got %v, want what to install", err)
			}
		})
	}
}

func TestKafkaIsFetchedOnceAndAsAWhole(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	fakePrograms(t, map[string]string{"mvn": `mkdir lib && echo jar >lib/kafka.jar`})
	jars, err := kafkaJars(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(jars, "kafka.jar")); err != nil {
		t.Error(err)
	}
	fakePrograms(t, map[string]string{"mvn": "exit 1"})
	if again, err := kafkaJars(t.Context()); err != nil || again != jars {
		t.Errorf("the second time: %s, %v", again, err)
	}

	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	fakePrograms(t, map[string]string{"mvn": `mkdir lib && echo half >lib/kafka.jar; echo no route; exit 1`})
	if jars, err := kafkaJars(t.Context()); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("a fetch that failed half-way: %s, %v", jars, err)
	}
}
