package gateway

import "sync"

// pump works for a connection, whose round it calls: one call at a time, and only
// while there is something to do, which ring says. Rounds are run by the crew,
// which all connections share, so one that waits has no goroutine of its own for
// this, and thousands for whom there is something are served by a few. What may
// have to wait (for a client that does not read, for Kafka) is done apart, by a
// goroutine for one round.
type pump struct {
	crew  *crew
	round func(apart bool) onward
	work  sync.WaitGroup // rounds, and whatever else the connection's end waits for

	mu      sync.Mutex // of the connection's own state as well
	rung    bool
	running bool
	ended   bool // nothing is started any more

	behind *pump // in the crew's queue
}

// onward is what comes after a round.
type onward uint8

const (
	// idle: nothing, until it is rung.
	idle onward = iota
	// again: the next round, when the others had theirs.
	again
	// apart: a round that may wait.
	apart
	// over: no round any more.
	over
)

// ring has the pump look around. It may be called with a partition's lock held.
func (p *pump) ring() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ringLocked()
}

func (p *pump) ringLocked() {
	p.rung = true
	if p.running || p.ended {
		return
	}
	p.running = true
	p.work.Add(1)
	p.crew.give(p)
}

// launch runs f in a goroutine that the connection's end waits for, unless all
// has ended.
func (p *pump) launch(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.work.Go(f)
}

// turn runs a round, and tells whether another is to follow.
func (p *pump) turn(alone bool) (more bool) {
	p.mu.Lock()
	ended := p.ended
	p.rung = false
	p.mu.Unlock()
	next := over
	if !ended {
		next = p.round(alone)
	}
	if next == apart && !alone {
		go func() {
			if p.turn(true) {
				p.crew.give(p)
			}
		}()
		return false
	}
	p.mu.Lock()
	more = next != over && (next != idle || p.rung) && !p.ended
	p.running = more || next == over && !p.ended // what is over is not begun again
	p.mu.Unlock()
	if !more {
		p.work.Done()
	}
	return more
}

// crew are the goroutines that run pumps: limit of them at the most, and none
// where there is nothing to do. The queue holds each pump once.
type crew struct {
	limit int
	all   sync.WaitGroup

	mu          sync.Mutex
	first, last *pump
	hands       int
}

// give queues a pump.
func (c *crew) give(p *pump) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.first = p
	} else {
		c.last.behind = p
	}
	c.last = p
	if c.hands < c.limit {
		c.hands++
		c.all.Go(c.run)
	}
}

// take gives the next pump; nil where there is none, and a goroutine less.
func (c *crew) take() *pump {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.first
	if p == nil {
		c.hands--
		return nil
	}
	if c.first = p.behind; c.first == nil {
		c.last = nil
	}
	p.behind = nil
	return p
}

func (c *crew) run() {
	for p := c.take(); p != nil; p = c.take() {
		if p.turn(false) {
			c.give(p)
		}
	}
}
