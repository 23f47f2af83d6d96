package gateway

import "time"

const (
	// framesASecond is how many frames a client may send for long.
	framesASecond = 500
	// framesAhead is how many it may send at once: all that it may subscribe to, and
	// as many more.
	framesAhead = 2 * maxSubscriptions
)

// pacer bounds the frames that are read of a client. One who sends more is read more
// slowly, and loses nothing: the system takes no more from it meanwhile.
type pacer struct{ paid int64 } // Unix nanoseconds up to which frames have been paid for

// take counts a frame, and tells how long to wait before the next is read.
func (p *pacer) take(now time.Time) time.Duration {
	const each = int64(time.Second / framesASecond)
	p.paid = max(p.paid, now.UnixNano()) + each
	return time.Duration(max(0, p.paid-now.UnixNano()-framesAhead*each))
}
