package gateway

import (
	"errors"
	"syscall"
	"unsafe"
)

// awaiter waits for a connection to have something to read, and reads nothing. It
// takes so little of a goroutine's stack that 2 KB are enough for one that does
// no more; a read takes a stack of 4 KB, and keeps it. And it writes what the
// system takes at once, and waits for nothing.
type awaiter struct {
	raw syscall.RawConn
	// Of the write under way. They are here, and put is made once, so that a write
	// allocates nothing.
	put    func(fd uintptr) bool
	out    []byte
	done   int
	failed error
}

func newAwaiter(conn any) *awaiter {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil // TLS, which may have read ahead
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	a := &awaiter{raw: raw}
	a.put = a.send
	return a
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

// write writes as much of b as the system takes at once. One goroutine may write
// at a time.
func (a *awaiter) write(b []byte) (n int, err error) {
	a.out, a.done, a.failed = b, 0, nil
	err = a.raw.Write(a.put)
	a.out = nil
	if err == nil {
		err = a.failed
	}
	return a.done, err //nolint:wrapcheck // only looked at
}

// send is write on a file descriptor, which does not wait: Go's never do. It says
// that it is through even where something is left, so that nobody waits here.
func (a *awaiter) send(fd uintptr) bool {
	for a.done < len(a.out) {
		n, err := syscall.Write(int(fd), a.out[a.done:])
		switch {
		case err == nil:
			a.done += n
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return true
		default:
			a.failed = err
			return true
		}
	}
	return true
}
