package cli

import (
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/event"
)

func TestBoundsThatCannotBeAreRefusedByName(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--max-in-flight 0":                    "max-in-flight: 0: it must be 1 or more",
		"--max-window=-3":                      "max-window: -3: it must be 1 or more",
		"--max-span 20001":                     "max-span: 20001: it must be 1 to 20000, which is what a commit's metadata can hold",
		"--max-per-tenant=-1":                  "max-per-tenant: -1: it must be 1 or more, or 0 for no bound",
		"--evict-after=-1s":                    "evict-after: -1s: it must be above 0, or 0 for never",
		"--evict-after 100ms":                  "evict-after: 100ms: it must be 500ms or more, or 0 for never",
		"--session-timeout=0s":                 "session-timeout: 0s: it must be above 0, such as 6s",
		"--reserved batch=-1":                  "reserved: -1 for batch: it must be 0 or more",
		"--reserved batch=5 --max-in-flight 4": "reserved: 7 calls for all lanes together, of 4 in all: reserve fewer, or raise max-in-flight",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			o := call{}.run(t, append([]string{"run", "--sim"}, strings.Fields(args)...)...).want(t, exitUsage)
			if !strings.Contains(o.stderr, want) {
				t.Errorf("it says %q, and not %q", o.stderr, want)
			}
		})
	}
}

func TestAReserveOfZeroIsNone(t *testing.T) {
	t.Parallel()
	f := WorkFlags{MaxInFlight: 2, MaxWindow: 1, MaxWindowBytes: 1, MaxSpan: 1, MaxEndings: 1, MaxCancels: 1, SessionTimeout: 1}
	f.Reserved = map[event.Lane]int{event.Interactive: 0, event.Batch: 2}
	c, err := f.work()
	if err != nil || c.Reserved[event.Interactive] != -1 || c.Reserved[event.Standard] != 0 || c.Reserved[event.Batch] != 2 {
		t.Errorf("%v, %v", c.Reserved, err)
	}
}
