//go:build unix && !linux

package devstack

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Nothing here ends a child with its parent; the next start finds it instead.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// serversOn lists the postmasters that were started on the data directory; the
// backends end by themselves once their postmaster has gone.
func serversOn(data string) ([]int, error) {
	data, err := filepath.EvalSymlinks(data)
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("ps", "-axo", "pid=,command=").Output() //nolint:noctx // local and immediate
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for line := range bytes.Lines(out) {
		pid, command, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if n, err := strconv.Atoi(pid); ok && err == nil && strings.Contains(command, "-D "+data+" ") {
			pids = append(pids, n)
		}
	}
	return pids, nil
}
