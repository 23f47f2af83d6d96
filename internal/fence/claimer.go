package fence

// Claimer takes one lane of one partition for one owner, by the four steps of
// the protocol: wait out the leases of whoever was before, read the partition
// to its end, append a claim under a lease, read the claim back. Then it owns
// the lane until the log shows a newer claim.
//
// It is a value without pointers: its caller tells it what has happened, asks
// Next what to do, and does it. Of one Claimer at most one claim is in flight.
type Claimer struct {
	phase   phase
	newest  int64 // newest epoch of the lane that is known, own claims included
	claimed int64 // epoch of the claim in flight or owned
	end     int64 // the partition is to be read up to here before claiming
}

type phase uint8

const (
	waiting   phase = iota // for the leases of those before to run out
	locating               // the partition's end
	reading                // up to the end
	ready                  // to append a claim, under a lease
	appending              // a claim is on its way, or in the log and not read back
	owning
	lost
)

// Action is what a Claimer needs next.
type Action uint8

// The actions.
const (
	Wait      Action = iota // nothing to be done but to go on reading the partition
	FindEnd                 // find the partition's end offset, and tell it to End
	AppendNow               // append a claim of Epoch(), and call Sent
	Own                     // the lane is owned, in epoch Epoch()
	Lost                    // another owner has it, for good
)

// NewClaimer starts a claim. known is the newest epoch of the lane that is
// known from elsewhere: commit metadata, pulse, or a read so far.
func NewClaimer(known int64) Claimer { return Claimer{newest: known} }

// Next says what to do. lease tells whether the partition's lease holds now.
func (c *Claimer) Next(lease bool) Action {
	switch c.phase {
	case locating:
		return FindEnd
	case ready:
		if lease {
			return AppendNow
		}
		return Wait
	case owning:
		return Own
	case lost:
		return Lost
	default:
		return Wait
	}
}

// Epoch is the epoch owned, or in flight, or to be claimed next.
func (c *Claimer) Epoch() int64 {
	if c.phase == ready {
		return c.newest + 1
	}
	return c.claimed
}

// Owns tells whether the lane is owned.
func (c *Claimer) Owns() bool { return c.phase == owning }

// Waited tells that the leases of all that were before have run out, or were
// released.
func (c *Claimer) Waited() {
	if c.phase == waiting {
		c.phase = locating
	}
}

// End tells the partition's end offset, found after Next asked for it.
// position is the offset up to which the partition has been read.
func (c *Claimer) End(end, position int64) {
	if c.phase == locating {
		c.phase, c.end = reading, end
		c.ReadTo(position)
	}
}

// ReadTo tells that everything before position has been read, and every claim
// and record of the lane among it told to Saw.
func (c *Claimer) ReadTo(position int64) {
	if c.phase == reading && position >= c.end {
		c.phase = ready
	}
}

// Sent tells that the claim of Epoch() is on its way.
func (c *Claimer) Sent() {
	if c.phase == ready {
		c.claimed = c.newest + 1
		c.phase = appending
	}
}

// Failed tells that the claim was refused, or that nobody knows what became of
// it. Should it turn up later, it is one more epoch in the log.
func (c *Claimer) Failed() {
	if c.phase == appending {
		c.phase = locating
	}
}

// Saw takes an epoch of the lane as read from the partition, in log order:
// another's claim or output, or with own set, a claim of this Claimer.
func (c *Claimer) Saw(epoch int64, own bool) {
	switch {
	case c.phase == appending && own && epoch == c.claimed:
		if c.newest >= epoch { // another of the same or a newer epoch stands before it
			c.phase = locating
		} else {
			c.phase = owning
		}
	case c.phase == owning && epoch > c.claimed:
		c.phase = lost
	}
	c.newest = max(c.newest, epoch)
}
