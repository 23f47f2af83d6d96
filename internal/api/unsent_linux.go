package api

import "syscall"

// Options of tcp(7), inherited by what is accepted.
const (
	tcpUserTimeout  = 18
	tcpNotsentLowat = 25
)

// bounded has the system keep no more than maxUnsent bytes for a connection behind
// what is on its way to the client: else a client that does not read costs it
// megabytes, and gets what is as old as they are once it reads again. And it has it
// give up after maxUnheard a client that is gone without a word, for which it would
// send the same bytes again for a quarter of an hour.
func bounded(_, _ string, c syscall.RawConn) error {
	// A system that does not know an option does as it does without.
	return c.Control(func(fd uintptr) { //nolint:wrapcheck // it tells whether the socket was closed
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, maxUnsent)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(maxUnheard.Milliseconds()))
	})
}
