package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// repository is where the program's own module lies.
	repository = "../.."
	// patience bounds the wait for anything that a process should do, on a machine
	// that does other things too.
	patience = 60 * time.Second
	// stampedVersion is what the recipe's build is told.
	stampedVersion = "v9.8.7-check"
)

// image is the program as the recipe builds it, made once.
var image struct {
	dir string
	get func() (program string, err error)
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "penstock-deploy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	image.dir = dir
	image.get = sync.OnceValues(func() (string, error) { return buildImage(dir) })
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// program is the path of the built program.
func program(t *testing.T) string {
	t.Helper()
	path, err := image.get()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// process is what a container would be.
type process struct {
	listen, metrics string // host:port
	cmd             *exec.Cmd
	out             *bytes.Buffer
	ended           chan struct{}
	err             error // once ended
}

// begin runs the program as a container's command with a container's environment,
// but with addresses of this machine.
func begin(t *testing.T, args []string, env map[string]string) *process {
	t.Helper()
	p := &process{listen: freeAddr(t), metrics: freeAddr(t), out: &bytes.Buffer{}, ended: make(chan struct{})}
	p.cmd = exec.Command(program(t), args...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.Env = []string{"HOME=" + t.TempDir()}
	for k, v := range env {
		p.cmd.Env = append(p.cmd.Env, k+"="+v)
	}
	p.cmd.Env = append(p.cmd.Env, "PENSTOCK_LISTEN="+p.listen, "PENSTOCK_METRICS_LISTEN="+p.metrics) // the last one stands
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("penstock %s:\n%s", strings.Join(args, " "), p.out)
		}
	})
	return p
}

// wait waits for a process to end well.
func (p *process) wait(t *testing.T, limit time.Duration) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		t.Fatalf("%s has not ended within %v", p.cmd, limit)
	}
	if p.err != nil {
		t.Fatalf("%s: %v", p.cmd, p.err)
	}
}

// answers waits until a path is answered with 200.
func answers(t *testing.T, url string) {
	t.Helper()
	var last error
	eventually(t, func() bool {
		var status int
		status, _, last = ask(t.Context(), http.MethodGet, url, "")
		if last == nil && status != http.StatusOK {
			last = fmt.Errorf("status %d", status)
		}
		return last == nil
	}, func() string { return fmt.Sprintf("%s: %v", url, last) })
}

func eventually(t *testing.T, ok func() bool, what func() string) {
	t.Helper()
	deadline, tick := time.NewTimer(patience), time.NewTicker(50*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("never: %s", what())
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, method, url, body string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

// freeAddr is an address that nobody listens on, and that nobody else takes before
// it is listened on: it is another one of the loopback than all others use.
func freeAddr(t *testing.T) string {
	t.Helper()
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(255), 1+rand.IntN(254))
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// services are a Kafka and a PostgreSQL that a command may use, by settings.
func services(t *testing.T) map[string]string {
	t.Helper()
	env := map[string]string{"PENSTOCK_KAFKA": os.Getenv("PENSTOCK_TEST_KAFKA"), "PENSTOCK_POSTGRES": os.Getenv("PENSTOCK_TEST_POSTGRES")}
	for name, value := range env {
		if value == "" {
			t.Fatalf("there is no %s to test with: run it with `make deploy-check`, which starts them", name)
		}
	}
	return env
}

// takeOneJobThrough runs a simulated job on a process that takes jobs in, and
// waits for its row.
func takeOneJobThrough(t *testing.T, gateway *process) {
	t.Helper()
	base := "http://" + gateway.listen
	status, body, err := ask(t.Context(), http.MethodPost, base+"/v1/jobs", `{"body":{"model":"sim:tokens=3,ttft=0s,gap=0s","messages":[{"role":"user","content":"hello"}]}}`)
	if err != nil || status != http.StatusAccepted {
		t.Fatalf("a job: %d %s %v", status, body, err)
	}
	_, id, _ := strings.Cut(body, `"id":"`)
	id, _, _ = strings.Cut(id, `"`)
	eventually(t, func() bool {
		_, body, err = ask(t.Context(), http.MethodGet, base+"/v1/jobs?status=completed", "")
		return err == nil && strings.Contains(body, id)
	}, func() string { return fmt.Sprintf("%s is listed as completed: %s %v", id, body, err) })
}

// stop ends processes as an engine does, and checks that they are in time.
func stop(t *testing.T, limit time.Duration, all ...*process) {
	t.Helper()
	for _, p := range all {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("%s: %v", p.cmd, err)
		}
	}
	for _, p := range all {
		p.wait(t, limit)
	}
}

// copyTree copies the files of a tree that keep lets through.
func copyTree(from, to string, keep func(path string) (bool, error)) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == ".git" || rel == ".build" {
				return fs.SkipDir // large, and in nobody's context
			}
			return nil
		}
		if ok, err := keep(filepath.ToSlash(rel)); !ok || err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		return errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, text, 0o644))
	})
}
