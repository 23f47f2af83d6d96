package engine

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

// court is an engine that judges its peers, a log of pulses, and a clock.
type court struct {
	t    *testing.T
	e    *Engine
	now  time.Time
	lag  time.Duration // from a pulse's being sent to its being read, of all
	deaf bool          // no pulse of anybody's arrives
	// peers are those that pulse, by member id; each owns a partition.
	peers map[string]*suspect
	got   []string // who was to be removed
	at    []time.Time
}

type suspect struct {
	lp       LP
	owner    string
	epoch    int64
	released bool
	quiet    bool
}

func newCourt(t *testing.T, cfg Config, peers int) *court {
	t.Helper()
	cfg.Owner = "me"
	if cfg.EvictAfter == 0 {
		cfg.EvictAfter = time.Second
	}
	c := &court{t: t, e: New(cfg), now: time.UnixMilli(1_700_000_000_000), peers: map[string]*suspect{}}
	for i := range peers {
		c.join("p"+strconv.Itoa(i), int32(i+1))
	}
	return c
}

func (c *court) join(member string, partition int32) *suspect {
	p := &suspect{lp: LP{event.Standard, partition}, owner: "owner of " + member, epoch: 1}
	c.peers[member] = p
	return p
}

// pass lets time pass, a tick of 25 ms after the other.
func (c *court) pass(d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end); {
		c.now = c.now.Add(25 * time.Millisecond)
		c.step(LeaseRenewed{Sent: c.now, Member: "mine"})
		if c.now.UnixMilli()%250 == 0 && !c.deaf {
			c.pulses()
		}
		c.step(Tick{})
	}
}

func (c *court) pulses() {
	sent := c.now.Add(-c.lag)
	c.step(PulseSeen{LP: LP{event.Standard, 0}, Epoch: 1, Owner: "me", Member: "mine", Sent: sent})
	for _, member := range sortedKeys(c.peers) {
		if p := c.peers[member]; !p.quiet {
			c.step(PulseSeen{LP: p.lp, Epoch: p.epoch, Released: p.released, Owner: p.owner, Member: member, Sent: sent})
		}
	}
}

func sortedKeys[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (c *court) step(in Input) {
	for _, f := range only[Evict](c.e.Step(c.now, in)) {
		c.got = append(c.got, f.Member)
		c.at = append(c.at, c.now)
	}
}

func (c *court) removed(want ...string) {
	c.t.Helper()
	if !slices.Equal(c.got, want) {
		c.t.Errorf("removed: %q, want %q", c.got, want)
	}
}

func TestASilentPeerIsRemovedAfterASecond(t *testing.T) {
	c := newCourt(t, Config{}, 2)
	c.pass(3 * time.Second)
	c.removed()
	c.peers["p1"].quiet = true
	died := c.now
	c.pass(1500 * time.Millisecond)
	c.removed("p1")
	if after := c.at[0].Sub(died); after < 900*time.Millisecond || after > 1100*time.Millisecond {
		t.Errorf("after %v", after)
	}
}

func TestAnUnansweredRemovalIsAskedForAgainAndAnAnsweredOneIsNot(t *testing.T) {
	c := newCourt(t, Config{}, 2)
	c.pass(3 * time.Second)
	c.peers["p1"].quiet = true
	c.pass(1500 * time.Millisecond)
	c.step(Evicted{Member: "p1"})
	c.pass(time.Second)
	c.removed("p1", "p1")
	c.step(Evicted{Member: "p1", Out: true})
	c.pass(10 * time.Second)
	c.removed("p1", "p1")
}

func TestNobodyIsRemovedWhere(t *testing.T) {
	for name, story := range map[string]func(c *court){
		"the broker of the pulses stalls": func(c *court) {
			c.deaf = true
			c.pass(5 * time.Second)
			c.deaf = false
			c.pass(5 * time.Second)
		},
		"a peer takes two seconds longer to find that broker again": func(c *court) {
			c.deaf, c.peers["p0"].quiet = true, true
			c.pass(5 * time.Second)
			c.deaf = false
			c.pass(2 * time.Second)
			c.peers["p0"].quiet = false
			c.pass(5 * time.Second)
		},
		"a peer stands still for less than a second": func(c *court) {
			c.peers["p0"].quiet = true
			c.pass(750 * time.Millisecond)
			c.peers["p0"].quiet = false
			c.pass(3 * time.Second)
		},
		"our own stand still while theirs do not": func(c *court) {
			c.now = c.now.Add(4 * time.Second) // we were stopped, and they since
			c.peers["p0"].quiet = true
			c.pass(900 * time.Millisecond)
			c.peers["p0"].quiet = false
			c.pass(3 * time.Second)
		},
		"we read late": func(c *court) {
			c.lag = 1200 * time.Millisecond
			c.peers["p0"].quiet = true
			c.pass(4 * time.Second)
		},
		"more than half of all are silent": func(c *court) {
			c.peers["p0"].quiet, c.peers["p1"].quiet, c.peers["p2"].quiet = true, true, true
			c.pass(10 * time.Second)
		},
		"it has released all that it had": func(c *court) {
			c.peers["p0"].released = true
			c.pass(250 * time.Millisecond)
			c.peers["p0"].quiet = true
			c.pass(10 * time.Second)
		},
		"another has claimed all that it had": func(c *court) {
			c.peers["p0"].quiet = true
			c.peers["p1"].lp, c.peers["p1"].epoch = c.peers["p0"].lp, 2
			c.pass(10 * time.Second)
		},
		"it was heard once alone": func(c *court) {
			c.join("new", 9)
			c.pass(250 * time.Millisecond)
			c.peers["new"].quiet = true
			c.pass(10 * time.Second)
		},
		"we are ending": func(c *court) {
			c.step(Drain{})
			c.peers["p0"].quiet = true
			c.pass(10 * time.Second)
		},
		"it is ourselves under an earlier membership": func(c *court) {
			c.step(PulseSeen{LP: LP{event.Batch, 0}, Epoch: 1, Owner: "me", Member: "mine before", Sent: c.now})
			c.pass(10 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, Config{}, 4)
			c.pass(3 * time.Second)
			story(c)
			c.removed()
		})
	}
}

func TestNobodyIsRemovedWhereThatIsOff(t *testing.T) {
	c := newCourt(t, Config{EvictAfter: -1}, 2)
	c.pass(3 * time.Second)
	c.peers["p1"].quiet = true
	c.pass(10 * time.Second)
	c.removed()
}

func TestOneWhoseLeaseLapsedDoesNotJudge(t *testing.T) {
	c := newCourt(t, Config{}, 2)
	c.pass(3 * time.Second)
	c.peers["p1"].quiet = true
	for range 100 {
		c.now = c.now.Add(50 * time.Millisecond)
		c.pulses()
		c.step(Tick{})
	}
	c.removed()
}

func TestTheDeadAreRemovedOneAfterTheOther(t *testing.T) {
	c := newCourt(t, Config{}, 3)
	c.pass(3 * time.Second)
	c.peers["p1"].quiet, c.peers["p2"].quiet = true, true
	c.pass(1500 * time.Millisecond)
	c.removed("p1")
	c.step(Evicted{Member: "p1", Out: true})
	c.pass(time.Second)
	c.removed("p1", "p2")
	if c.at[1].Sub(c.at[0]) < time.Second {
		t.Errorf("%v between the two", c.at[1].Sub(c.at[0]))
	}
}

func TestTheOnlyPeerMayBeRemoved(t *testing.T) {
	c := newCourt(t, Config{}, 1)
	c.pass(3 * time.Second)
	c.peers["p0"].quiet = true
	c.pass(1500 * time.Millisecond)
	c.removed("p0")
}

func TestAProcessThatCameBackGetsTwiceAsLong(t *testing.T) {
	c := newCourt(t, Config{}, 3)
	c.pass(3 * time.Second)
	var took []time.Duration
	for i := range 3 { // it stands still again and again
		member := "p0/" + strconv.Itoa(i)
		p := c.join(member, 1)
		p.owner, p.epoch = "flapping", int64(2+i)
		c.peers["p0"].quiet = true
		c.pass(2 * time.Second)
		p.quiet = true
		still := c.now
		for n := len(c.got); len(c.got) == n; {
			c.pass(25 * time.Millisecond)
		}
		took = append(took, c.now.Sub(still))
		c.step(Evicted{Member: member, Out: true})
	}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if d := took[i] - want; d < -200*time.Millisecond || d > 200*time.Millisecond {
			t.Errorf("it was removed after %v, the %d. time", took[i], i+1)
		}
	}
}

func TestPeersAreForgotten(t *testing.T) {
	c := newCourt(t, Config{}, 1)
	for i := range 500 {
		p := c.join("m"+strconv.Itoa(i), 2)
		p.epoch = int64(i + 1)
		c.pulses()
		delete(c.peers, "m"+strconv.Itoa(i))
	}
	c.pass(2 * time.Minute)
	if n := len(c.e.peers.members); n > 2 {
		t.Errorf("%d members are remembered", n)
	}
}

func TestALaneWaitsNoLongerThanItsLastOwnerMayHaveALease(t *testing.T) {
	for name, tc := range map[string]struct {
		quiet time.Duration // before that
		out   time.Duration // before the assignment; 0: after it
		epoch int64         // that the commit tells of
		want  time.Duration
	}{
		"removed before":            {0, 500 * time.Millisecond, 1, 250 * time.Millisecond},
		"removed after":             {0, 0, 1, 750 * time.Millisecond},
		"it was not the last owner": {2 * time.Second, 500 * time.Millisecond, 3, 750 * time.Millisecond},
		"silent for a lease before": {1500 * time.Millisecond, 250 * time.Millisecond, 1, 0},
		"silent, and not removed":   {1500 * time.Millisecond, 0, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, Config{}, 1)
			c.pass(3 * time.Second)
			c.peers["p0"].quiet = true
			c.pass(tc.quiet)
			c.step(Evicted{Member: "p0", Out: tc.out > 0})
			c.pass(tc.out)
			lp := c.peers["p0"].lp
			text, err := offsets.Metadata{Epoch: tc.epoch}.Encode(0)
			if err != nil {
				t.Fatal(err)
			}
			c.step(Assigned{LP: lp, Life: 1, Member: "mine", Metadata: text})
			assigned := c.now
			for !c.e.lanes[lp].asked {
				c.pass(25 * time.Millisecond)
			}
			if got := c.now.Sub(assigned); got != tc.want && got != tc.want+25*time.Millisecond {
				t.Errorf("it waits for %v, not for %v", got, tc.want)
			}
		})
	}
}

func TestALaneWhosePulsesDoNotComeBackIsClaimedAnewBeforeItStartsAnything(t *testing.T) {
	e, lps, now := owned(t, 1, Config{PulseLease: time.Second, MaxInFlight: 10})
	lp := lps[0]
	pass := func(d time.Duration) (got []Effect) {
		for end := now.Add(d); now.Before(end); {
			*now = now.Add(250 * time.Millisecond)
			got = append(got, e.Step(*now, LeaseRenewed{Sent: *now, Member: "m"})...)
		}
		return got
	}
	back := func(after time.Duration) []Effect {
		return e.Step(*now, PulseSeen{LP: lp, Epoch: 1, Owner: "me", Member: "m", Sent: now.Add(-after)})
	}
	for range 5 {
		if got := only[FindEnd](pass(750 * time.Millisecond)); len(got) != 0 {
			t.Fatal("claimed anew, though its pulses come back")
		}
		back(0)
	}
	pass(750 * time.Millisecond)
	if got := only[Start](e.Step(*now, asked(lp, 0, 1))); len(got) != 1 {
		t.Error("nothing was started within the lease")
	}
	*now = now.Add(250 * time.Millisecond)
	if got := only[FindEnd](back(500 * time.Millisecond)); len(got) != 1 { // sent in time, and back too late
		t.Error("it was not claimed anew")
	}
	if got := only[Start](e.Step(*now, asked(lp, 1, 1))); len(got) != 0 {
		t.Error("something was started after the lease")
	}
	l := e.lanes[lp]
	got := only[AppendClaim](e.Step(*now, Located{LP: lp, Gen: l.gen, End: l.position}))
	if len(got) != 1 || got[0].Epoch != 2 {
		t.Fatalf("%+v", got)
	}
	at := e.lanes[lp].position
	if got := only[Start](e.Step(*now, Tokens{Partition: lp.Partition, From: at, Next: at + 1, Seen: []Seen{claimSeen(lp, at, 2, "me")}})); len(got) != 1 {
		t.Error("nothing was started under the new claim")
	}
}

func TestALaneOfAnEarlierMembershipIsNotLeasedByTheNext(t *testing.T) {
	e, lps, now := owned(t, 1, Config{})
	*now = now.Add(100 * time.Millisecond)
	e.Step(*now, LeaseRenewed{Sent: *now, Member: "m2"}) // the loss of the first was not told yet
	if got := only[Start](e.Step(*now, asked(lps[0], 0, 1))); len(got) != 0 {
		t.Error("a request was started on a lane that is another's")
	}
	*now = now.Add(time.Second)
	if got := only[AppendClaim](e.Step(*now, LeaseRenewed{Sent: *now, Member: "m2"})); len(got) != 0 {
		t.Error("it was claimed anew")
	}
}
