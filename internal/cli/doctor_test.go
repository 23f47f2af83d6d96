package cli

import (
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/testenv"
)

func TestDoctorSaysWhatIsWrongAndFails(t *testing.T) {
	t.Parallel()
	got := run(t, "doctor", "--kafka", "127.0.0.1:1").want(t, exitFailed)
	for _, part := range []string{"fail  kafka ", "no broker can be reached at 127.0.0.1:1", "why: ", "do:  ", "warn  models"} {
		if !strings.Contains(got.stdout, part) {
			t.Errorf("there is no %q in\n%s", part, got.stdout)
		}
	}
	run(t, "doctor", "--kafka", "nowhere").want(t, exitUsage)
	prefix := testenv.Prefix(t)
	place := []string{"--kafka", testenv.Kafka(t), "--postgres", testenv.Postgres(t), "--prefix", prefix, "--partitions", "1"}
	with := func(args ...string) []string { return append(args, place...) }
	run(t, "topic", "apply", "--kafka", place[1], "--prefix", prefix, "--partitions", "1").want(t, exitDone)
	run(t, "migrate", "--postgres", place[3]).want(t, exitDone)
	lines := run(t, with("doctor", "--sim", "-o", "jsonl")...).want(t, exitDone).stdout
	if strings.Contains(lines, `"fail"`) || !strings.Contains(lines, `{"check":"models.sim","status":"ok"`) {
		t.Errorf("a deployment that is well:\n%s", lines)
	}
}
