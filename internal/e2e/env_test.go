package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/testenv"
)

// program is the built penstock: built once, with coverage where `make test`
// wants it of whole processes too.
var program string

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(built{m})) }

// built builds the program before the tests run.
type built struct{ tests testenv.Runner }

func (b built) Run() int {
	dir, err := os.MkdirTemp("", "penstock-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program = filepath.Join(dir, "penstock")
	args := []string{"build", "-o", program}
	if os.Getenv("PENSTOCK_COVERDIR") != "" {
		args = append(args, "-cover", "-covermode=atomic", "-coverpkg=github.com/penstock-io/penstock/...")
	}
	build := exec.Command("go", append(args, "../../cmd/penstock")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	defer http.DefaultClient.CloseIdleConnections()
	return b.tests.Run()
}

// process is one running penstock.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	url  string
	out  *log
	done chan struct{}
	err  error
}

// log keeps what a process says, and is shown where its test fails.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// spawn starts the program with arguments, an address of its own, and
// environment on top of the test's.
func spawn(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	addr := freeAddr(t)
	p := &process{t: t, name: name, url: "http://" + addr, out: &log{}, done: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Env = append(p.cmd.Env, "PENSTOCK_LISTEN="+addr, "PENSTOCK_LOG_FORMAT=text")
	if dir := os.Getenv("PENSTOCK_COVERDIR"); dir != "" {
		p.cmd.Env = append(p.cmd.Env, "GOCOVERDIR="+dir)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("what %s said:\n%s", name, tailOf(p.out.String()))
		}
	})
	return p
}

func tailOf(s string) string {
	const most = 6000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// freeAddr is an address that nobody else takes before it is listened on: it is not
// on 127.0.0.1, where all others are, but on any other of the system's loopback.
func freeAddr(t *testing.T) string {
	t.Helper()
	host := net.IPv4(127, 1+rand.N[byte](254), rand.N[byte](255), 1+rand.N[byte](254))
	l, err := net.Listen("tcp", net.JoinHostPort(host.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop ends it as an orchestrator does, and wants it to end well.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.t.Fatalf("%s did not stop", p.name)
	}
	if p.err != nil {
		p.t.Fatalf("%s stopped with %v", p.name, p.err)
	}
}

// ready waits until the process says that it is.
func (p *process) ready() *process {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 60*time.Second)
	defer cancel()
	for {
		status, body := get(ctx, p.url+"/readyz")
		if status == http.StatusOK {
			return p
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended: %v", p.name, p.err)
		case <-ctx.Done():
			p.t.Fatalf("%s did not become ready: %d %s", p.name, status, body)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// unready waits until readiness names a part that is away.
func (p *process) unready(part string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	for {
		status, body := get(ctx, p.url+"/readyz")
		if status == http.StatusServiceUnavailable && strings.Contains(body, `"`+part+`":{"status":"unavailable"`) {
			return
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("readiness does not say that %s is away: %d %s", part, status, body)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// get asks a URL, and returns status 0 where nobody answers.
func get(ctx context.Context, url string) (status int, body string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// deployment is where the processes of a test meet.
type deployment struct {
	t   *testing.T
	env []string
}

// deploy makes topics and a database of the test's own.
func deploy(t *testing.T) *deployment {
	t.Helper()
	return deployOn(t, testenv.Kafka(t), testenv.Postgres(t), testenv.Prefix(t))
}

func deployOn(t *testing.T, kafka, postgres, prefix string) *deployment {
	t.Helper()
	d := &deployment{t: t, env: []string{
		"PENSTOCK_KAFKA=" + kafka, "PENSTOCK_POSTGRES=" + postgres,
		"PENSTOCK_PREFIX=" + prefix, "PENSTOCK_PARTITIONS=4", "PENSTOCK_SIM=true",
	}}
	d.command("topic", "apply")
	d.command("migrate")
	return d
}

// command runs a command of the program to its end.
func (d *deployment) command(args ...string) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), program, args...)
	cmd.Env = append(os.Environ(), d.env...)
	if dir := os.Getenv("PENSTOCK_COVERDIR"); dir != "" {
		cmd.Env = append(cmd.Env, "GOCOVERDIR="+dir)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("penstock %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// start starts a process with roles, and waits until it is ready.
func (d *deployment) start(roles string) *process {
	d.t.Helper()
	return spawn(d.t, roles, d.env, "run", "--roles", roles).ready()
}
