//go:build interop

package e2e

import (
	"os"
	"os/exec"
	"testing"
)

// TestInteropPage makes the page's checks, in a real browser, on the real thing:
// submit, watch, cut the network, resume, replay.
func TestInteropPage(t *testing.T) {
	d := deploy(t)
	d.start("processors")
	d.start("projections")
	gateway := d.start("ingest,gateway")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-tags", "browser", "-run", "^TestPage$/^running$", "../gateway/web")
	cmd.Env = append(os.Environ(), "PENSTOCK_PAGE_URL="+gateway.url)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
