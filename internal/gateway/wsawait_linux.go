package gateway

import (
	"syscall"
	"unsafe"
)

// awaiter waits for a connection to have something to read, and reads nothing. It
// takes so little of a goroutine's stack that 2 KB are enough for one that does
// no more; a read takes a stack of 4 KB, and keeps it.
type awaiter struct{ raw syscall.RawConn }

func newAwaiter(conn any) *awaiter {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil // TLS, which may have read ahead
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return &awaiter{raw}
}

// await returns when a read would not wait, or with what ended the connection.
func (a *awaiter) await() error {
	return a.raw.Read(readable) //nolint:wrapcheck // only looked at
}

// readable peeks. The call never waits, so the scheduler need not know of it.
func readable(fd uintptr) bool {
	var b byte
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, //nolint:gosec // the kernel writes one byte at most
		syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno != syscall.EAGAIN && errno != syscall.EINTR
}
