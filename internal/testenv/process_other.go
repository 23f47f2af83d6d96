//go:build !linux

package testenv

import "syscall"

// childAttributes puts a child into a process group of its own. Only Linux can
// also promise that it dies with this process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
