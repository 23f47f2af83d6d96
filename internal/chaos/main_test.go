package chaos

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/testenv"
)

func TestMain(m *testing.M) {
	// A link that broke off may leave goroutines of the proxy's own behind, which
	// send to each other's channels and are not received.
	const link = "github.com/Shopify/toxiproxy/v2"
	goleak.VerifyTestMain(testenv.Wrap(idle{m}),
		goleak.IgnoreAnyFunction(link+"/toxics.(*ToxicStub).Run"), goleak.IgnoreAnyFunction(link+".(*ToxicLink).read"))
}

// idle lets the connections go that readiness was asked over.
type idle struct{ tests testenv.Runner }

func (i idle) Run() int {
	defer http.DefaultClient.CloseIdleConnections()
	return i.tests.Run()
}

// build builds the program, with coverage where `make test` wants it.
func build(t *testing.T, args ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "penstock")
	all := append([]string{"build", "-o", program}, args...)
	if os.Getenv("PENSTOCK_COVERDIR") != "" {
		all = append(all, "-cover", "-covermode=atomic", "-coverpkg=github.com/penstock-io/penstock/...")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(all, "../../cmd/penstock")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return program
}

// coverage is the environment by which processes' statements count.
func coverage() []string {
	if dir := os.Getenv("PENSTOCK_COVERDIR"); dir != "" {
		return []string{"GOCOVERDIR=" + dir}
	}
	return nil
}

// logDir is where processes' logs go: they are kept where the test fails.
func logDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("CHAOS_LOGS"); dir != "" {
		dir = filepath.Join(dir, filepath.FromSlash(t.Name()))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir, err := os.MkdirTemp("", "penstock-chaos-") //nolint:usetesting // a failed run's logs are for somebody to read
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(fmt.Sprint("the processes' logs are in ", dir))
			return
		}
		_ = os.RemoveAll(dir)
	})
	return dir
}
