package processors

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/internal/processors/engine"
)

func TestARenewedLeaseDoesNotStandInLineAndNeverGoesBack(t *testing.T) {
	box, at := newMailbox(), time.Unix(1_800_000_000, 0)
	box.post(engine.Tick{})
	if _, ok := box.renewed(); ok {
		t.Error("there is a lease before any was renewed")
	}
	box.renew(engine.LeaseRenewed{Sent: at.Add(time.Second), Member: "new"})
	box.renew(engine.LeaseRenewed{Sent: at, Member: "old"}) // its answer took longer
	<-box.some
	if got, ok := box.renewed(); !ok || got.Member != "new" {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := box.renewed(); ok {
		t.Error("it is there twice")
	}
	if got := box.take(nil); len(got) != 1 {
		t.Errorf("%d items", len(got))
	}
}

// TestReadersSleepWhileTheMailboxIsFull: they wait for the loop, and not by
// waking each other.
func TestReadersSleepWhileTheMailboxIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newMailbox()
		for range mailboxFull {
			box.post(engine.Tick{})
		}
		ctx, cancel := context.WithCancel(t.Context())
		took := make(chan bool, 3)
		for range 2 {
			go func() { took <- box.offer(ctx, engine.Tick{}) }()
		}
		synctest.Wait() // never returns while somebody spins
		if n := len(box.take(nil)); n != mailboxFull || !<-took || !<-took {
			t.Fatalf("%d were taken, and those who waited did not get their room", n)
		}
		for range mailboxFull {
			box.post(engine.Tick{})
		}
		go func() { took <- box.offer(ctx, engine.Tick{}) }()
		synctest.Wait()
		if cancel(); <-took {
			t.Error("one got in though its context had ended")
		}
	})
}
