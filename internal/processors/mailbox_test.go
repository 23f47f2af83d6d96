package processors

import (
	"testing"
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
