package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// taps read the sockets of many watchers with a few goroutines, each with an
// epoll of its own: one call tells which sockets can be read, and one reads each
// of them.
type taps struct {
	ctx   context.Context //nolint:containedctx // of the run
	work  *errgroup.Group
	all   []*tap
	added atomic.Int64
	left  atomic.Int64 // watchers, added or not, that have not come to their end
}

// tap is one of its goroutines.
type tap struct {
	of    *taps
	epoll int

	mu       sync.Mutex
	watchers map[int32]*watcher // by file descriptor
}

// newTaps makes taps for so many watchers, which end when all have come to their
// end, or ctx ends.
func newTaps(ctx context.Context, work *errgroup.Group, watchers int) (*taps, error) {
	t := &taps{ctx: ctx, work: work}
	t.left.Store(int64(watchers))
	for range max(runtime.GOMAXPROCS(0)/2, 1) {
		epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("make an epoll: %w", err) // those that were made end with ctx
		}
		one := &tap{of: t, epoll: epoll, watchers: map[int32]*watcher{}}
		t.all = append(t.all, one)
		work.Go(one.run)
	}
	return t, nil
}

// add has a watcher's socket read.
func (t *taps) add(w *watcher) error {
	conn, ok := w.conn.(*net.TCPConn)
	if !ok { // TLS has to be read by what speaks it
		t.left.Add(-1)
		spawn(t.ctx, t.work, w)
		return nil
	}
	file, err := conn.File()
	if err != nil {
		return fmt.Errorf("take a socket: %w", err)
	}
	_ = conn.Close() // file is the same socket, of which Go's own poller knows nothing: it would be woken for each token as well
	w.conn = file
	fd := int32(file.Fd()) //nolint:gosec // a file descriptor
	one := t.all[int(t.added.Add(1))%len(t.all)]
	one.mu.Lock()
	one.watchers[fd] = w
	one.mu.Unlock()
	if err := syscall.EpollCtl(one.epoll, syscall.EPOLL_CTL_ADD, int(fd), &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: fd}); err != nil {
		return fmt.Errorf("wait for a socket: %w", err)
	}
	return nil
}

const (
	tapEvents = 1024 // that one call tells of
	tapWaitMS = 100  // after which a tap looks whether all is over
	// tapRest is how long a tap rests between two looks. It is in what is
	// measured, and saves a wake-up a token, for which server and client would
	// fight where they share the cores.
	tapRest = 2 * time.Millisecond
)

// run reads until all is over.
func (o *tap) run() error {
	defer o.close()
	events, buf := make([]syscall.EpollEvent, tapEvents), make([]byte, readBytes)
	for o.of.left.Load() > 0 {
		if err := o.of.ctx.Err(); err != nil {
			return err //nolint:wrapcheck // the run's own
		}
		n, err := syscall.EpollWait(o.epoll, events, tapWaitMS)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("wait for sockets: %w", err)
		}
		for i := range max(n, 0) {
			if err := o.take(events[i].Fd, buf); err != nil {
				return err
			}
		}
		if err := pause(o.of.ctx, tapRest); err != nil {
			return err
		}
	}
	return nil
}

// take reads one socket, once: what is left shows again.
func (o *tap) take(fd int32, buf []byte) error {
	o.mu.Lock()
	w := o.watchers[fd]
	o.mu.Unlock()
	n, err := syscall.Read(int(fd), buf)
	if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN) {
		return nil
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return w.failed(err)
	}
	done, err := w.read(buf[:n])
	if done {
		o.mu.Lock()
		delete(o.watchers, fd)
		o.mu.Unlock()
		_ = w.conn.Close() // and with it goes its place in the epoll
		o.of.left.Add(-1)
	}
	return err
}

func (o *tap) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.watchers {
		_ = w.conn.Close() // nobody reads it any more
	}
	_ = syscall.Close(o.epoll)
}
