package gateway

// bell is how a reader that waits for more learns of it. It hangs on the reader's
// partition, and is rung when there is something of its subject. A bell costs no
// goroutine and no channel by itself.
//
// While its reader waits, nothing before the next ring is for the reader: it need
// not look at what was passed, which may have left the memory by then.
type bell struct {
	who   listener
	about subject

	// Guarded by the partition's mu.
	hung             bool
	waiting          bool // the reader had seen all there was, and was not rung since
	rung             bool // since then; what lies before passed is not for the reader
	passed           spot
	following, ahead *bell // others of the same subject
}

// listener is told when a bell is rung. ring is called with the partition's lock
// held: it must not wait, nor ask a partition.
type listener interface{ ring() }

// wakes is a listener for a goroutine that waits: a channel of capacity one.
type wakes chan struct{}

func (w wakes) ring() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// strike rings a bell whose reader waits. The reader's other rings are to come:
// it looks at all there is. The partition's mu is held, here and below.
func (b *bell) strike(passed spot) {
	if !b.waiting {
		return
	}
	b.waiting, b.rung, b.passed = false, true, passed
	b.who.ring()
}

// ringAll rings all bells: something has become of the window itself.
func (p *partition) ringAll() {
	for _, b := range p.bells {
		for ; b != nil; b = b.following {
			b.strike(p.last)
		}
	}
}

// hang hangs a bell that does not hang yet.
func (p *partition) hang(b *bell) {
	if b.hung {
		return
	}
	b.hung = true
	if p.bells == nil {
		p.bells = map[subject]*bell{}
	}
	b.following, b.ahead = p.bells[b.about], nil
	if b.following != nil {
		b.following.ahead = b
	}
	p.bells[b.about] = b
}

// unhang takes it away.
func (p *partition) unhang(b *bell) {
	if !b.hung {
		return
	}
	b.hung = false
	if b.following != nil {
		b.following.ahead = b.ahead
	}
	switch {
	case b.ahead != nil:
		b.ahead.following = b.following
	case b.following != nil:
		p.bells[b.about] = b.following
	default:
		delete(p.bells, b.about)
	}
	b.following, b.ahead = nil, nil
}
