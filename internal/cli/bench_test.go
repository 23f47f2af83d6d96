package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestBenchTTFTMeasuresARunningDeployment(t *testing.T) {
	p := dev(t)
	args := []string{"bench", "ttft", "--kafka", p.kafka(t), "--concurrency", "1,3", "--trips", "6", "--rounds", "2"}
	got := p.on(t, args...).want(t, exitDone)
	for _, want := range []string{"AT A TIME", "bare", "penstock", "penstock-websocket", " ms", "/s"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("the table has no %q:\n%s", want, got.stdout)
		}
	}
	lines := p.on(t, append(args, "-o", "jsonl")...).want(t, exitDone)
	if n := strings.Count(lines.stdout, "\n"); n != 6 || !strings.Contains(lines.stdout, `"ratio_p50":`) {
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

func TestBenchConnectionsMeasuresWhatWaitingCosts(t *testing.T) {
	p := dev(t)
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "process_resident_memory_bytes 1.048576e+06\ngo_goroutines 7\ngo_memstats_stack_inuse_bytes 1024\n")
	}))
	t.Cleanup(metrics.Close)
	for _, kind := range []string{"ws", "ws-watching", "sse", "sse-http2"} {
		args := []string{"bench", "connections", "--metrics", metrics.URL, "--kind", kind, "--connections", "7", "--partitions", "3", "--hold", "10ms"}
		got := p.on(t, args...).want(t, exitDone)
		for _, want := range []string{"RESIDENT EACH", kind, "0.0 KiB", "7 / 7 / 7"} {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("the table has no %q:\n%s", want, got.stdout)
			}
		}
		if lines := p.on(t, append(args, "-o", "jsonl")...).want(t, exitDone); !strings.Contains(lines.stdout, `"resident_held":1048576`) {
			t.Errorf("%s", lines.stdout)
		}
	}
	run(t, "bench", "connections", "--connections", "0").want(t, exitUsage)
	if got := p.on(t, "bench", "connections", "--metrics", "http://127.0.0.1:1", "--hold", "1ms").want(t, exitFailed); !strings.Contains(got.stderr, "metrics listener") {
		t.Error(got.stderr)
	}
}

func TestBenchStreamsMeasuresFromAppendToReceipt(t *testing.T) {
	p := dev(t)
	args := []string{"bench", "streams", "--streams", "3", "--watchers", "2", "--rate", "100", "--warm", "1s", "--measure", "3s"}
	got := p.on(t, args...).want(t, exitDone)
	for _, want := range []string{"DELIVERED", "600 tokens/s", " ms"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("the table has no %q:\n%s", want, got.stdout)
		}
	}
	if want := "3 jobs stream to 2 watchers each; what comes after 1s is counted, for 3s.\n"; got.stderr != want {
		t.Errorf("it said %q, want %q", got.stderr, want)
	}
	if lines := p.on(t, append(args, "-o", "jsonl")...).want(t, exitDone); !strings.Contains(lines.stdout, `"p99_ms":`) || strings.Contains(lines.stdout, `"tokens_per_second":0,`) {
		t.Errorf("%s", lines.stdout)
	}
	run(t, "bench", "streams", "--rate", "0").want(t, exitUsage)
	if got := run(t, "bench", "streams", "--server", "http://127.0.0.1:1").want(t, exitFailed); !strings.Contains(got.stderr, "connection refused") {
		t.Error(got.stderr)
	}
}
