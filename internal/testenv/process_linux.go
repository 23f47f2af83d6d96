package testenv

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// childAttributes puts a child into a process group of its own and has the
// kernel kill it when this process dies, by SIGKILL too.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// standsStill tells whether all threads of a process are stopped, by the state
// behind their names in /proc (proc(5)).
func standsStill(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path) //nolint:gosec // The path is the kernel's.
		if err != nil {
			continue // it has ended
		}
		if _, state, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" ")); !ok || state[0] != 'T' {
			return false
		}
	}
	return len(threads) > 0
}
