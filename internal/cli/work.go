package cli

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// WorkFlags bound the processors' work.
type WorkFlags struct {
	MaxInFlight    int                `setting:"" default:"1024" help:"Calls of models at once."`
	Reserved       map[event.Lane]int `setting:"" placeholder:"LANE=N" help:"Calls of those that a lane finds free whatever the others do; by default a 64th for interactive, a 128th for each other."`
	MaxPerTenant   int                `setting:"" default:"0" help:"Calls of models at once of one tenant; 0 is no bound."`
	MaxWindow      int                `setting:"" default:"2000" help:"Requests taken in and not done, in each lane of a partition; then it is paused."`
	MaxWindowBytes int                `setting:"" default:"16777216" help:"Bytes of those requests."`
	MaxSpan        int64              `setting:"" default:"20000" help:"Offsets from the oldest request that is not done to the newest that was taken in, in each lane of a partition."`
	MaxEndings     int                `setting:"" default:"256" help:"Cancelled jobs that are ended at once, beside the calls."`
	MaxCancels     int                `setting:"" default:"32768" help:"Cancels remembered, in each partition."`
	EvictAfter     time.Duration      `setting:"" default:"1.8s" help:"How long a peer may be silent until it is removed from the group; 0 leaves that to the session timeout."`
	SessionTimeout time.Duration      `setting:"" default:"6s" help:"When the group takes a silent processor for dead by itself."`
}

// work are the bounds of the engine, where a zero is the default.
func (f *WorkFlags) work() (engine.Config, error) {
	var errs []error
	for _, v := range []struct {
		name string
		n    int
	}{
		{"max-in-flight", f.MaxInFlight},
		{"max-window", f.MaxWindow},
		{"max-window-bytes", f.MaxWindowBytes},
		{"max-span", int(f.MaxSpan)},
		{"max-endings", f.MaxEndings},
		{"max-cancels", f.MaxCancels},
	} {
		if v.n == 0 {
			errs = append(errs, fmt.Errorf("%s: 0: it must be 1 or more", v.name))
		}
	}
	if f.EvictAfter < 0 {
		errs = append(errs, fmt.Errorf("evict-after: %s: it must be above 0, or 0 for never", f.EvictAfter))
	}
	if f.SessionTimeout <= 0 {
		errs = append(errs, fmt.Errorf("session-timeout: %s: it must be above 0, such as 6s", f.SessionTimeout))
	}
	c := engine.Config{
		MaxInFlight: f.MaxInFlight, MaxPerTenant: f.MaxPerTenant, MaxWindow: f.MaxWindow, MaxWindowBytes: f.MaxWindowBytes,
		MaxSpan: f.MaxSpan, MaxEndings: f.MaxEndings, MaxCancels: f.MaxCancels,
		EvictAfter: cmp.Or(f.EvictAfter, -1),
	}
	for _, lane := range event.Lanes() {
		n, given := f.Reserved[lane]
		if n < 0 {
			errs = append(errs, fmt.Errorf("reserved: %d for %s: it must be 0 or more", n, lane))
		}
		if given {
			c.Reserved[lane] = cmp.Or(n, -1)
		}
	}
	return c, errors.Join(append(errs, c.Validate())...)
}
