//go:build !linux

package gateway

// awaiter is for Linux alone: elsewhere a connection's goroutine waits in its read.
type awaiter struct{}

func newAwaiter(any) *awaiter { return nil }

func (*awaiter) await() error { return nil }
