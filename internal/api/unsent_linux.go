package api

import "syscall"

// tcpNotsentLowat is TCP_NOTSENT_LOWAT of tcp(7), inherited by what is accepted.
const tcpNotsentLowat = 25

// bounded has the system keep no more than maxUnsent bytes for a connection behind
// what is on its way to the client: else a client that does not read costs it
// megabytes, and gets what is as old as they are once it reads again.
func bounded(_, _ string, c syscall.RawConn) error {
	// A system that does not know the option keeps as much as it does without.
	return c.Control(func(fd uintptr) { //nolint:wrapcheck // it tells whether the socket was closed
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, maxUnsent)
	})
}
