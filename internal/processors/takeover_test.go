package processors

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// link is a process's network: it can be frozen, as by SIGSTOP or a switch that
// holds packets, and thawed, upon which what was held arrives; and it can be
// cut for good, as a process is that is killed.
type link struct {
	mu     sync.Mutex
	thawed chan struct{} // closed while not frozen
	cut    bool
	conns  []net.Conn
}

func newLink() *link {
	l := &link{thawed: make(chan struct{})}
	close(l.thawed)
	return l
}

func (l *link) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, c)
	return &frozenConn{Conn: c, link: l}, nil
}

func (l *link) pass(ctx context.Context) error {
	l.mu.Lock()
	thawed, cut := l.thawed, l.cut
	l.mu.Unlock()
	if cut { // as from a host that is there and does not listen
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	select {
	case <-thawed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *link) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.thawed = make(chan struct{})
}

func (l *link) thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.thawed)
}

func (l *link) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for _, c := range l.conns {
		_ = c.Close()
	}
	select {
	case <-l.thawed:
	default:
		close(l.thawed)
	}
}

type frozenConn struct {
	net.Conn
	link *link
}

func (c *frozenConn) Write(b []byte) (int, error) {
	if err := c.link.pass(context.Background()); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// mortal is one that is missed soon when it is gone: no other test wants a session so
// short that a machine that stands still for a moment ends it.
func mortal(c *Config) { c.SessionTimeout = 2 * time.Second }

// behind gives a processor a cluster of its own, behind a link.
func (w *world) behind(l *link) *world {
	w.t.Helper()
	c, err := kafka.Open(w.t.Context(), kafka.Config{Brokers: []string{w.addr}, Dial: l.dial})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	other := *w
	other.cluster = c
	return &other
}

// TestAFrozenOwnerIsFencedAndItsJobsGoOn freezes an owner in the middle of its
// answers for longer than its session, and thaws it when another has gone on.
func TestAFrozenOwnerIsFencedAndItsJobsGoOn(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		t.Helper()
		l := newLink()
		t.Cleanup(l.kill)
		a := w.behind(l).start("one", mortal)
		const slow = "sim:tokens=160,ttft=0s,gap=50ms" // none has ended when all have begun
		var ids, deafs []string
		for range 6 {
			ids = append(ids, w.request(event.Standard, slow, ""))
			deafs = append(deafs, w.request(event.Standard, "deaf/"+slow, ""))
		}
		all := append(append([]string{}, ids...), deafs...)
		w.outputsUntil(func(o *told) bool { return o.NextSeq > 5 }, all...)
		l.freeze()
		b := w.start("two", nil)
		w.outputs(all...)
		l.thaw()
		w.facts(all...)
		later := w.request(event.Standard, quick, "")
		w.outputs(later)
		w.committed()
		a.end(t)
		b.end(t)
		got := w.outputs(append(all, later)...)
		for _, id := range ids {
			if o := got[id]; o.End != event.OutputCompleted || o.Attempt != 1 || len(o.Text()) == 0 {
				t.Errorf("%s was not continued: attempt %d, %v", id, o.Attempt, o.all)
			}
			if got[id].Text() != got[ids[0]].Text() {
				t.Errorf("%s does not say what it would have said undisturbed:\n%q\n%q", id, got[id].Text(), got[ids[0]].Text())
			}
		}
		for _, id := range deafs {
			if o := got[id]; o.End != event.OutputCompleted || o.Attempt != 2 || o.Text() != got[ids[0]].Text() {
				t.Errorf("%s was not superseded: attempt %d, %v", id, o.Attempt, o.all)
			}
		}
	})
}

// TestAKilledOwnersJobsAreTakenUp cuts an owner's network for good.
func TestAKilledOwnersJobsAreTakenUp(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	l := newLink()
	w.behind(l).start("one", func(c *Config) {
		mortal(c)
		c.Grace = time.Millisecond
	})
	var ids []string
	for range 30 {
		ids = append(ids, w.request(event.Interactive, "sim:tokens=40,ttft=0s,gap=50ms", ""))
	}
	done := w.request(event.Interactive, quick, "")
	w.outputsUntil(func(o *told) bool { return o.NextSeq > 2 }, append(ids, done)...)
	l.kill()
	w.start("two", nil)
	got := w.outputs(append(ids, done)...)
	for id, o := range got {
		if o.End != event.OutputCompleted || o.Attempt != 1 {
			t.Errorf("%s: attempt %d, %v", id, o.Attempt, o.all)
		}
	}
	w.facts(append(ids, done)...)
	w.committed()
}
