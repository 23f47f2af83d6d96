package gateway

import (
	"slices"
	"testing"
	"time"
)

// notices keeps the notices that it is given.
type notices struct{ types []string }

func (*notices) record(*entry, string) {}

func (n *notices) notice(_ string, what notice, _ time.Time) {
	n.types = append(n.types, what.Type)
}
func (*notices) full() bool { return false }
func (*notices) reset()     {}

// TestASnapshotIsSentThoughTheLogIsTruncatedWhileItIsRead has feeds that have begun a
// snapshot of a log that was longer, and to which nothing is appended any more.
func TestASnapshotIsSentThoughTheLogIsTruncatedWhileItIsRead(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.started()
	a.say("one")
	part, err := g.gateway.hub.acquire(t.Context(), a.part)
	g.no(err)
	defer g.gateway.hub.release(part)
	const was = 100
	free := func() {}
	stands := func() *reader {
		r := newReader(g.gateway.hub, part, was/2, -1)
		r.opens-- // the partition is followed anew
		return r
	}
	job := &jobFeed{snap: &snapshot{until: was, free: free}}
	job.g, job.tenant, job.id, job.part, job.reader, job.to = g.gateway, "default", a.head.Job, part, stands(), job
	job.visitor = job.visit
	talk := &conversationFeed{g: g.gateway, tenant: "default", id: "c", part: part, reader: stands(), snap: &talk{until: was, free: free}}
	talk.visitor = talk.visit
	for name, f := range map[string]feed{"a job": job, "a conversation": talk} {
		var out notices
		job.out, talk.out = &out, &out
		for {
			wait, err := f.poll(t.Context())
			g.no(err)
			if wait != nil {
				break
			}
		}
		if want := []string{streamGap, streamSnapshot}; !slices.Equal(out.types, want) {
			t.Errorf("of %s came %v, want %v", name, out.types, want)
		}
	}
}
