package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/internal/testenv"
)

// slot is a place in which a process of the program runs, again and again: same
// roles, same address, and its own way to the brokers.
type slot struct {
	name  string // in capitals, as Kafka's listener for it is called
	roles string
	addr  string // where it serves HTTP
	argv  []string
	env   []string
	log   string // the file that all its processes write to

	fault sync.Mutex // held while a fault is on it

	mu      sync.Mutex
	now     *testenv.Process // nil before the first start
	pids    map[int]bool     // of all its processes
	freezes []Freeze
}

// url is where its HTTP API is.
func (s *slot) url() string { return "http://" + s.addr }

// start starts its process. The one before must be gone.
func (s *slot) start(ctx context.Context) error {
	file, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", s.name, err)
	}
	defer func() { _ = file.Close() }()                                              // the child has its own
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.argv[0], s.argv[1:]...) //nolint:gosec // to run the program is what this is for
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = file, file
	p, err := testenv.StartProcess(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = p
	s.pids[p.PID()] = true
	return nil
}

func (s *slot) process() *testenv.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// owns tells whether one of its processes had that id.
func (s *slot) owns(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pids[pid]
}

func (s *slot) kill() error {
	p := s.process()
	if p == nil {
		return nil
	}
	return p.Kill() //nolint:wrapcheck // it says what it could not do
}

// stopPatience is what a process gets to end after SIGTERM: its grace, and more
// than it should take beyond that.
const stopPatience = 90 * time.Second

// errStop says that a process did not stop as it should.
var errStop = errors.New("did not stop in order")

// stop ends its process as an orchestrator does.
func (s *slot) stop(ctx context.Context) error {
	p := s.process()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err //nolint:wrapcheck // as above
	}
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-p.Done():
		if err := p.Err(); err != nil {
			return fmt.Errorf("%s %w: %w", s.name, errStop, err)
		}
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("%s %w within %s", s.name, errStop, stopPatience), p.Kill())
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.Kill())
	}
}

// freeze stops its process with SIGSTOP for a while.
func (s *slot) freeze(ctx context.Context, d time.Duration) error {
	p := s.process()
	from := time.Now()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err //nolint:wrapcheck // as above
	}
	pause(ctx, d)
	s.mu.Lock()
	s.freezes = append(s.freezes, Freeze{Process: s.name, From: from, To: time.Now()})
	s.mu.Unlock()
	return p.Signal(syscall.SIGCONT) //nolint:wrapcheck // as above
}

// readyPatience is how long a process may take to be ready after a start: long,
// for the machine may be a loaded one, and Kafka away.
const readyPatience = 3 * time.Minute

// ready waits until its process says that it is. One that gives up its start,
// since Kafka is away for longer than it waits, is started again, as an
// orchestrator does.
func (s *slot) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for {
		if ask(ctx, s.url()+"/readyz") == http.StatusOK {
			return nil
		}
		select {
		case <-s.process().Done():
			if err := s.start(ctx); err != nil {
				return err
			}
			pause(ctx, time.Second)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: see %s", s.name, s.log)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ask returns the status of an answer, and 0 where there is none.
func ask(ctx context.Context, url string) int {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// logFile is where a slot's processes write.
func logFile(dir, name string) string { return filepath.Join(dir, name+".log") }
