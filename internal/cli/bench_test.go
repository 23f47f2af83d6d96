package cli

import (
	"strings"
	"testing"
)

func TestBenchTTFTMeasuresARunningDeployment(t *testing.T) {
	p := dev(t)
	args := []string{"bench", "ttft", "--kafka", p.kafka(t), "--concurrency", "1,3", "--trips", "6", "--rounds", "2"}
	got := p.on(t, args...).want(t, exitDone)
	for _, want := range []string{"AT A TIME", "bare", "penstock", " ms", "/s"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("the table has no %q:\n%s", want, got.stdout)
		}
	}
	lines := p.on(t, append(args, "-o", "jsonl")...).want(t, exitDone)
	if n := strings.Count(lines.stdout, "\n"); n != 4 || !strings.Contains(lines.stdout, `"ratio_p50":`) {
		t.Errorf("%d lines:\n%s", n, lines.stdout)
	}
}

func TestBenchTTFTSaysWhatIsWrong(t *testing.T) {
	run(t, "bench", "ttft", "--concurrency", "0").want(t, exitUsage)
	run(t, "bench", "ttft", "--trips", "1", "--rounds", "2").want(t, exitUsage)
	p := dev(t)
	got := run(t, "bench", "ttft", "--kafka", p.kafka(t), "--server", "http://127.0.0.1:1", "--trips", "3").want(t, exitFailed)
	if !strings.Contains(got.stderr, "connection refused") {
		t.Error(got.stderr)
	}
}
