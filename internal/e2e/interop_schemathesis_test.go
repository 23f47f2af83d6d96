//go:build interop

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/testenv"
)

// TestInteropSchemathesis holds the running program to schemas/openapi.yaml with
// what schemathesis makes of it: the examples, and valid and invalid requests to
// every operation, one for each rule of the document. These are the same in every
// run. With PENSTOCK_SCHEMATHESIS_SECONDS it also draws requests at random, and
// chains of them, for so long.
func TestInteropSchemathesis(t *testing.T) {
	t.Parallel()
	python := testenv.Python(t, "schemathesis==4.32.5")
	seconds, phases := "120", "examples,coverage"
	if s := os.Getenv("PENSTOCK_SCHEMATHESIS_SECONDS"); s != "" {
		seconds, phases = s, phases+",fuzzing,stateful"
	}
	within, err := time.ParseDuration(seconds + "s")
	if err != nil {
		t.Fatal(err)
	}
	p := upstreamed(t)
	dir, err := filepath.Abs(filepath.Join("testdata", "schemathesis"))
	if err != nil {
		t.Fatal(err)
	}
	document, err := filepath.Abs("../../schemas/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// The budget ends what repeats; examples and the first round take what they take.
	ctx, cancel := context.WithTimeout(t.Context(), 3*within+4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
		"--config-file", filepath.Join(dir, "schemathesis.toml"),
		"run", document, "--url", p.url, "--phases", phases, "--max-time", seconds, "--no-color")
	cmd.Dir = t.TempDir() // it keeps what it found
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir, "SCHEMATHESIS_HOOKS=hooks")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
