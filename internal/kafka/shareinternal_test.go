package kafka

import (
	"context"
	"testing"
)

func TestAGuestRidesOnlyWhereItsLogIsTheHosts(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	limits := limitsOf(0, 1000, 0, 0)
	pair := func() (host, guest *cursor) {
		tp := TopicPartition{"t", 0}
		make1 := func(as role, at int64) *cursor {
			r := &reader{role: as, ctx: t.Context(), limits: limits, lanes: map[int32]*[laneCount]*lane{1: {{}, {}}}}
			return &cursor{TopicPartition: tp, of: r, id: [16]byte{1}, at: at, leader: leader{1, 7}, told: true}
		}
		return make1(hosts, 5), make1(rides, 5)
	}
	if host, guest := pair(); !host.takes(guest) || guest.takes(host) {
		t.Error("two at one place are not taken for that, or the wrong way round")
	}
	if host, guest := pair(); !func() bool { guest.at = 9; return host.takes(guest) }() {
		t.Error("a guest ahead of its host does not ride")
	}
	for name, spoil := range map[string]func(host, guest *cursor){
		"the guest is behind":                   func(_, g *cursor) { g.at = 4 },
		"the guest has not seen the end":        func(_, g *cursor) { g.told = false },
		"the host was just followed":            func(h, _ *cursor) { h.fresh = true },
		"the host has lost its leader":          func(h, _ *cursor) { h.leader = leader{-1, -1} },
		"they know another epoch":               func(h, _ *cursor) { h.leader.epoch++ },
		"they know another leader":              func(_, g *cursor) { g.leader.broker++ },
		"the topics are not the same":           func(h, _ *cursor) { h.id[0]++ },
		"the host's position is in doubt":       func(h, _ *cursor) { h.check = true },
		"the broker has not got the guest's":    func(_, g *cursor) { g.ranged = true },
		"the guest has stopped":                 func(_, g *cursor) { g.stopped = true },
		"the host has a guest":                  func(h, _ *cursor) { h.guest = new(cursor) },
		"the guest has a host":                  func(_, g *cursor) { g.host = new(cursor) },
		"what the host fetched is not taken":    func(h, _ *cursor) { h.of.lanes[1][0].bytes = 1000 },
		"what the guest was given is not taken": func(_, g *cursor) { g.of.brought = 1000 },
		"the host is being closed":              func(h, _ *cursor) { h.of.ctx = ended },
		"the guest is being closed":             func(_, g *cursor) { g.of.ctx = ended },
	} {
		if host, guest := pair(); !host.takes(guest) {
			t.Fatal(name, "rides not to begin with")
		} else if spoil(host, guest); host.takes(guest) {
			t.Errorf("a guest rides although %s", name)
		}
	}
	// What parted them may be a change of leader, of which only the guest's own
	// fetch tells it what the log lost.
	host, guest := pair()
	host.guest, guest.host = guest, host
	guest.of.ctx = ended
	host.part()
	guest.of.ctx = t.Context()
	if host.guest != nil || guest.host != nil || host.takes(guest) {
		t.Error("a guest that was left rides on before it has seen the end for itself")
	}
}
