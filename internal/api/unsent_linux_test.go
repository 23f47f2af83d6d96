package api

import (
	"net/http"
	"syscall"
	"testing"
	"time"
)

// TestTheSystemGivesUpAClientThatIsGoneWithoutAWord looks at the option alone: a
// network that takes no packets any more needs rights that a test may not have.
func TestTheSystemGivesUpAClientThatIsGoneWithoutAWord(t *testing.T) {
	set := make(chan time.Duration, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			close(set)
			return
		}
		defer closing(t, conn)
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Error(err)
		}
		if err := raw.Control(func(fd uintptr) {
			ms, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
			if err != nil {
				t.Error(err)
			}
			set <- time.Duration(ms) * time.Millisecond
		}); err != nil {
			t.Error(err)
		}
	})
	addr, _ := serve(t, h, ServerConfig{})
	_, _ = (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + addr) //nolint:bodyclose // it is not answered
	if got := <-set; got != maxUnheard {
		t.Errorf("a client that answers nothing is given up after %v, want %v", got, maxUnheard)
	}
}
