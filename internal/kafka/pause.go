package kafka

// maxAside bounds the bytes of what a reader has fetched of partitions that were
// paused before it was taken. Beyond it such a partition's are dropped, and
// fetched again.
const maxAside = 16 << 20

// pause keeps a partition from being read. What was fetched ahead is set aside
// until resume, for a partition whose reader falls behind is paused again and
// again, each time in the middle of what one fetch brought; where there is no
// room for it, it is dropped.
func (r *reader) pause(tp TopicPartition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.cursors[tp]
	if c == nil || c.paused {
		return
	}
	c.paused = true
	c.part()
	n := 0
	for _, ch := range r.chunks {
		if ch.TopicPartition == tp && !ch.aside {
			n += ch.bytes
		}
	}
	if r.aside+n > maxAside && !c.stopped { // else it ends in the fault, which nobody tells again
		if r.drop(tp) || c.at != c.next {
			c.told = false
		}
		r.generation++
		c.generation, c.at = r.generation, c.next
		return
	}
	for _, ch := range r.chunks {
		if ch.TopicPartition == tp {
			r.setAside(ch)
		}
	}
}

// setAside has a chunk wait for the end of its partition's pause. The lane that
// fetched it is not to wait as well, for others' sake.
func (r *reader) setAside(ch *chunk) {
	if ch.aside {
		return
	}
	n := ch.bytes
	r.give(ch)
	ch.lane, ch.aside, ch.bytes = nil, true, n
	r.aside += n
}

// arrive adds a chunk of a partition to what is to be taken.
func (r *reader) arrive(c *cursor, ch *chunk) {
	r.chunks = append(r.chunks, ch)
	if c.paused {
		r.setAside(ch)
		return
	}
	signal(r.arrived)
}

func (r *reader) resume(tp TopicPartition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.cursors[tp]; c != nil && c.paused {
		c.paused = false
		signal(r.arrived) // something may have been set aside
		r.wake(c.leader.broker)
	}
}
