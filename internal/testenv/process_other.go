//go:build !linux

package testenv

import "syscall"

// standsStill takes it that a process that was told to is stopped: only Linux says so.
func standsStill(int) bool { return true }

// childAttributes puts a child into a process group of its own. Only Linux can
// also promise that it dies with this process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
