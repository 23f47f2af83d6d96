package engine

import (
	"testing"
	"time"
)

// churn is a run in which each process does all that there is to do every few
// milliseconds, as real ones do, so that pulses come at their pace and peers are
// judged. Every few seconds one is killed, stands still, ends in order or comes
// in, or nobody's pulses arrive.
type churn struct {
	*world
	deaf time.Time // until when no pulse arrives
}

func (c *churn) pass(d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end) && c.wrong == nil; c.now = c.now.Add(5 * time.Millisecond) {
		if c.n(3) == 0 {
			c.request()
		}
		for _, p := range c.procs {
			p.mute = c.now.Before(c.deaf)
			if p.alive && !c.now.Before(p.stalled) {
				p.everything()
			}
			if p.alive && !p.member && p.fetch != nil && c.n(50) == 0 {
				p.notice()
			}
		}
	}
}

func (c *churn) happens() {
	p := c.living()[c.n(len(c.living()))]
	switch c.n(6) {
	case 0, 1:
		p.crash()
	case 2:
		p.stalled = c.now.Add(time.Duration(500+c.n(3000)) * time.Millisecond)
	case 3:
		p.drain()
	case 4:
		c.deaf = c.now.Add(time.Duration(c.n(5000)) * time.Millisecond)
	case 5:
		p.loseWrites(0) // the network is cut for a moment
		p.loseWrites(1)
	}
	for len(c.living()) < 3 {
		c.spawn()
		for range 2 { // who owns nothing has no pulse
			c.move(c.lps[c.n(len(c.lps))], c.procs[len(c.procs)-1])
		}
	}
}

func churnRun(seed uint64) (tally, error) {
	c := &churn{world: newWorld(seedOf(seed), scenario{steps: 1, requests: 60, faults: 4})}
	c.spawn()
	for i, lp := range c.lps {
		c.move(lp, c.procs[i%3])
	}
	c.pass(3 * time.Second)
	for range 4 {
		c.happens()
		c.pass(time.Duration(1500+c.n(3000)) * time.Millisecond)
		if c.wrong != nil {
			return c.seen, c.wrong
		}
	}
	c.calm()
	if c.wrong == nil {
		c.finalCheck()
	}
	return c.seen, c.wrong
}

func TestSimulationOfProcessesThatComeAndGo(t *testing.T) {
	t.Parallel()
	all := search(t, churnRun, 0, 25)
	if all.evicted < all.runs/5 {
		t.Errorf("hardly anybody is evicted: %v", all)
	}
}

// TestSimulationEvictsTheDead kills one of three, in the midst of its work and
// with nothing else going wrong.
func TestSimulationEvictsTheDead(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		c := &churn{world: newWorld(seedOf(seed), scenario{steps: 1, requests: 60})}
		c.spawn()
		for i, lp := range c.lps {
			c.move(lp, c.procs[i%3])
		}
		c.pass(3 * time.Second)
		dead := c.procs[0]
		dead.crash()
		c.pass(2 * time.Second)
		if c.seen.evicted != 1 || dead.member {
			t.Errorf("seed %d: %d were evicted of one dead", seed, c.seen.evicted)
		}
		c.calm()
		if c.wrong == nil {
			c.finalCheck()
		}
		if c.wrong != nil {
			t.Fatalf("seed %d: %v", seed, c.wrong)
		}
	}
}
