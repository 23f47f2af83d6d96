//go:build browser

package web

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestModules runs the tests of the modules that need no page.
func TestModules(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("Node.js is missing, on which the page's modules are tested: install it (on Debian: apt-get install nodejs)")
	}
	tests, err := filepath.Glob("tests/*.test.js")
	if err != nil || len(tests) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	out, err := exec.CommandContext(t.Context(), node, append([]string{"--test"}, tests...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("node --test: %v\n%s", err, out)
	}
}
