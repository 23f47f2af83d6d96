package kafka

import (
	"slices"
	"sync"
)

// role is what a reader does for the other readers of a cluster.
type role int8

const (
	alone role = iota
	hosts      // others' partitions ride along with its own
	rides      // its partitions ride along with a host's
)

// share has the tails of one process that follow the same partitions fetch and
// unpack them once. A guest's partition rides along with a host's from when it
// has reached the log's end and stands where the host's does, or ahead of it:
// what the host's fetch brings goes to both, each taking it at its own pace. To
// get there each reads for itself.
//
// It rides along only while all goes well. When the host leaves the partition,
// loses its leader, meets a fault or has no room, and when the guest has no room,
// they part: the guest goes on from where it stands with fetches of its own, and
// so finds out for itself what became of its position. It does not ride again
// before one of them has told it the log's end. So neither waits for the other's
// consumer, and each learns of what was lost as it would alone.
//
// All readers of a share have one mutex.
type share struct {
	mu      sync.Mutex
	readers []*reader
}

// join lets a reader share. It follows nothing yet.
func (s *share) join(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = append(s.readers, r)
}

// leave ends what a reader shares, of which the context has ended.
func (s *share) leave(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = slices.DeleteFunc(s.readers, func(other *reader) bool { return other == r })
	for _, c := range r.cursors {
		c.part()
	}
}

// meet has a partition ride along, or another with it, where they have come
// together. The caller holds mu.
func (r *reader) meet(c *cursor) {
	if r.role == alone || c.host != nil || c.guest != nil {
		return
	}
	for _, other := range r.c.share.readers {
		o := other.cursors[c.TopicPartition]
		if o == nil {
			continue
		}
		host, guest := c, o
		if r.role == rides {
			host, guest = o, c
		}
		if host.takes(guest) {
			host.guest, guest.host = guest, host
			guest.by = nil // what is under way is not delivered
			return
		}
	}
}

// takes tells whether a partition may ride along. Under one leader, in one epoch of
// it, a log has one history: so it is enough that the guest has it to its end, and
// the host, that stands before it, goes on to read it.
func (c *cursor) takes(guest *cursor) bool {
	return c.of.role == hosts && guest.of.role == rides && c.guest == nil && guest.host == nil &&
		c.of.ctx.Err() == nil && guest.of.ctx.Err() == nil && c.sound() && guest.sound() && !c.fresh && guest.told && guest.at >= c.at &&
		c.leader == guest.leader && c.id == guest.id && c.of.roomy(c.leader.broker) && guest.of.brought < int(guest.of.limits.bytes)
}

// roomy tells whether a reader goes on to fetch from a broker: what it has fetched
// is being taken.
func (r *reader) roomy(broker int32) bool {
	pair := r.lanes[broker]
	return pair == nil || pair[0].bytes < int(r.limits.bytes)
}

// bring gives a guest what its host has read. The caller holds mu.
func (c *cursor) bring(d *unpacked) {
	g := c.guest
	if g == nil || d.next <= g.at {
		return
	}
	r := g.of
	if r.brought >= int(r.limits.bytes) {
		c.part()
		return
	}
	records := d.records
	for len(records) > 0 && records[0].Offset < g.at {
		records = records[1:]
	}
	if n := len(records); n > 0 {
		g.epoch = records[n-1].LeaderEpoch
	}
	r.brought += d.bytes
	r.arrive(g, &chunk{
		TopicPartition: g.TopicPartition, records: records, from: g.at, next: d.next,
		highWatermark: d.highWatermark, brought: true, bytes: d.bytes,
	})
	g.at, g.told = d.next, d.next >= d.highWatermark
	r.c.metrics.shared.WithLabelValues(g.Topic).Add(float64(len(records)))
}

// part ends a partition's riding along, whichever side it is. The caller holds mu.
func (c *cursor) part() {
	host, guest := c, c.guest
	if c.host != nil {
		host, guest = c.host, c
	}
	if guest == nil {
		return
	}
	host.guest, guest.host = nil, nil
	guest.told = false // until it has seen the end itself, under a leader that it knows of
	guest.of.wake(guest.leader.broker)
}

// partAll ends the riding along with all partitions of a broker, of which a reader
// fetches nothing at present. The caller holds mu.
func (r *reader) partAll(broker int32) {
	if r.role != hosts {
		return
	}
	for _, c := range r.cursors {
		if c.leader.broker == broker {
			c.part()
		}
	}
}
