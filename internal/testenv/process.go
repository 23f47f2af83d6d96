package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stopPatience bounds the wait for a child to stand still.
const stopPatience = 30 * time.Second

// process is a child that does not outlive this process, however this process
// ends. Two goroutines belong to it, and both end when it ends: one that waits
// for it and, inside os/exec, one that copies its output.
type process struct {
	pid  int
	done chan struct{} // closed once the child is gone
	err  error         // how it ended; read after done
}

// startProcess starts cmd in a process group of its own, so that a Ctrl-C meant
// for the tests does not take the services away under them. The context of cmd
// must not end before it: that is for signal, kill and terminate.
func startProcess(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = childAttributes()
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		// Linux delivers the parent-death signal when the thread that
		// started the child ends, so this thread stays until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start %s: %w", cmd.Path, err)
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, err
	}
	return p, nil
}

// signal sends sig to the child and all that it started. A child that is gone
// already is no error.
func (p *process) signal(sig syscall.Signal) error {
	if err := syscall.Kill(-p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to process group %d: %w", sig, p.pid, err)
	}
	return nil
}

// awaitStop waits until a child that was sent SIGSTOP stands still. The system takes
// its time over that: a busy machine lets the child work for tens of milliseconds.
func (p *process) awaitStop() error {
	late := time.NewTimer(stopPatience)
	defer late.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !standsStill(p.pid) {
		select {
		case <-tick.C:
		case <-p.done:
			return errors.Join(fmt.Errorf("process %d has ended, and does not stand still", p.pid), p.err)
		case <-late.C:
			return fmt.Errorf("process %d does not stand still %s after SIGSTOP", p.pid, stopPatience)
		}
	}
	return nil
}

// kill ends the child at once and waits until it is gone.
func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// terminate asks the child to end, and kills it after the grace period.
func (p *process) terminate(grace time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-p.done:
		return nil
	case <-late.C:
		return p.kill()
	}
}

// exitCode is the status to pass on for a command that ended with err: its own,
// or, as a shell says it, 128 and the signal that ended it.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 1
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// discard removes a directory of test data; what stays behind is in the
// system's temporary directory and harms nobody.
func discard(dir string) {
	_ = os.RemoveAll(dir)
}

// Process is a program that a test runs and hurts. It does not outlive the test's
// process, however that ends.
type Process struct{ p *process }

// StartProcess starts cmd, whose context must not end before it, in a process
// group of its own.
func StartProcess(cmd *exec.Cmd) (*Process, error) {
	p, err := startProcess(cmd)
	if err != nil {
		return nil, err
	}
	return &Process{p}, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.p.pid }

// Signal sends a signal; a process that is gone is no error.
func (p *Process) Signal(sig syscall.Signal) error { return p.p.signal(sig) }

// Kill ends it with SIGKILL, and returns when it is gone.
func (p *Process) Kill() error { return p.p.kill() }

// Done is closed once it is gone.
func (p *Process) Done() <-chan struct{} { return p.p.done }

// Err is how it ended, once Done is closed; nil is well.
func (p *Process) Err() error { return p.p.err }
