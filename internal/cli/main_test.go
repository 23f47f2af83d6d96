package cli

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/testenv"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(withShared{m})) }

// withShared stops the shared server after the tests.
type withShared struct{ testenv.Runner }

func (w withShared) Run() int {
	code := w.Runner.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.p != nil {
		if rc := shared.p.stop(); rc != exitDone {
			_, _ = io.WriteString(os.Stderr, "the shared server ended badly:\n"+shared.p.stderr.String())
			code = 1
		}
		_ = os.RemoveAll(shared.dir)
	}
	return code
}

// shared is one `penstock dev` for the tests that only need a server.
var shared struct {
	mu  sync.Mutex
	p   *process
	dir string
}

// text is a buffer that may be read while it is written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// process is a command that runs beside the test.
type process struct {
	addr           string
	stdout, stderr text
	stop           func() int // stops it and gives its exit code
}

// spawn runs a command that serves, and returns once it does; with an exit code
// where it ended before.
func spawn(args ...string) (p *process, code int, serving bool) {
	p = &process{}
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan string, 1), make(chan int, 1)
	go func() {
		ended <- Run(ctx, args, System{
			Name: "bin/penstock", Stdin: strings.NewReader(""), Stdout: &p.stdout, Stderr: &p.stderr,
			Started: func(addr string) { started <- addr },
		})
	}()
	p.stop = sync.OnceValue(func() int { cancel(); return <-ended })
	select {
	case p.addr = <-started:
		return p, 0, true
	case code = <-ended:
		cancel()
		return p, code, false
	}
}

// serving is spawn for a command that must serve; it ends with the test.
func serving(t *testing.T, args ...string) *process {
	t.Helper()
	p, code, ok := spawn(args...)
	if !ok {
		t.Fatalf("penstock %s exited with %d: %s", strings.Join(args, " "), code, p.stderr.String())
	}
	t.Cleanup(func() { p.stop() })
	return p
}

// dataDir is a directory that PostgreSQL's account can reach, which t.TempDir is
// not where the tests run as root.
func dataDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "penstock-cli-") //nolint:usetesting // see above
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// dev is the shared server.
func dev(t *testing.T) *process {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.p == nil {
		shared.dir = dataDir(t)
		p, code, ok := spawn("dev", "--listen", "127.0.0.1:0", "--partitions", "3", "--data", shared.dir)
		if !ok {
			t.Fatalf("penstock dev exited with %d: %s", code, p.stderr.String())
		}
		shared.p = p
	}
	return shared.p
}

// kafka is where a dev's broker listens, as it said.
func (p *process) kafka(t *testing.T) string {
	t.Helper()
	_, rest, _ := strings.Cut(p.stdout.String(), "kcat -C -b ")
	addr, _, ok := strings.Cut(rest, " ")
	if !ok {
		t.Fatalf("it said nothing of its broker: %s", p.stdout.String())
	}
	return addr
}

// outcome is what a command that ends did.
type outcome struct {
	code           int
	stdout, stderr string
}

// call is a command's surroundings, beside its arguments.
type call struct {
	stdin string
	env   map[string]string
}

func (c call) run(t *testing.T, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var out, errs text
	code := Run(ctx, args, System{
		Stdin: strings.NewReader(c.stdin), Stdout: &out, Stderr: &errs,
		Env: func(name string) (string, bool) { v, ok := c.env[name]; return v, ok },
	})
	return outcome{code, out.String(), errs.String()}
}

func run(t *testing.T, args ...string) outcome { t.Helper(); return call{}.run(t, args...) }

// on runs a client command against the process.
func (p *process) on(t *testing.T, args ...string) outcome {
	t.Helper()
	return call{env: map[string]string{"PENSTOCK_SERVER": "http://" + p.addr}}.run(t, args...)
}

func (o outcome) want(t *testing.T, code int) outcome {
	t.Helper()
	if o.code != code {
		t.Fatalf("the exit code is %d, want %d\nstdout: %s\nstderr: %s", o.code, code, o.stdout, o.stderr)
	}
	return o
}

// golden compares with a file under testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("it is not as in %s (-want +got); go test -update writes it anew:\n%s", path, diff)
	}
}
