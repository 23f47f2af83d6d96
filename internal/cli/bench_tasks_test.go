package cli

import (
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/testenv"
)

func TestBenchTasksMeasuresBesideTheBareLoop(t *testing.T) {
	args := []string{"bench", "tasks", "--kafka", testenv.Kafka(t), "--postgres", testenv.Postgres(t)}
	got := run(t, append(args, "--tasks", "500", "--rounds", "1")...).want(t, exitDone)
	for _, want := range []string{"ROUND", "bare", "penstock", "/s", "%"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("the table has no %q:\n%s", want, got.stdout)
		}
	}
	lines := run(t, append(args, "--latency", "50ms", "--in-flight", "20", "--seconds", "1", "-o", "jsonl")...).want(t, exitDone)
	if n := strings.Count(lines.stdout, "\n"); n != 1 || !strings.Contains(lines.stdout, `"latency":"50ms","in_flight":20,"tasks":400`) {
		t.Errorf("%d lines:\n%s", n, lines.stdout)
	}
}

func TestBenchTasksSaysWhatIsWrong(t *testing.T) {
	run(t, "bench", "tasks", "--postgres", "postgres://x", "--tasks", "0").want(t, exitUsage)
	run(t, "bench", "tasks", "--postgres", "postgres://x", "--latency", "1us").want(t, exitUsage)
	got := run(t, "bench", "tasks", "--postgres", "postgres://nobody@127.0.0.1:1/x", "--tasks", "1").want(t, exitFailed)
	if !strings.Contains(got.stderr, "connect") {
		t.Error(got.stderr)
	}
}
