package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

// Config bounds the engine. Zero fields take their defaults.
type Config struct {
	Owner          string        // unique to this process's incarnation; stands in its claims
	MaxInFlight    int           // calls at once; default 1,024
	MaxPerTenant   int           // of those, a tenant's; default 0: as many as there are
	MaxWindow      int           // requests taken in and not done, a LP; default 2,000
	MaxWindowBytes int           // of those requests, a LP; default 16 MiB
	MaxSpan        int64         // from a LP's watermark to its newest request; default and at most offsets.MaxSpan
	Lease          time.Duration // default 750 ms
	PulseEvery     time.Duration // default 250 ms
	CommitEvery    time.Duration // default 100 ms
	Recent         int           // ended jobs remembered a LP; default 4,096
	MaxCancels     int           // cancels remembered a partition; default 32,768
	MaxEndings     int           // cancelled jobs that are being ended without a model, at once; default 256
	// CancelAhead is how long after a cancel the request may be written that it
	// is of; a later one with the same id is another job. Ids that were minted
	// are of one job alone, and need no such bound. Default 10 minutes.
	CancelAhead time.Duration
	// Weights share the calls between lanes that have work; default 8, 4, 1.
	Weights [event.LaneCount]int
	// Reserved are calls of MaxInFlight that a lane finds free whatever the
	// others do, as long as a LP of it is assigned; below 0 is none. The default
	// is a 64th of MaxInFlight for interactive and a 128th for each other, so
	// that any lane alone may have 1,000 of 1,024; and where there are few, one
	// each for as many lanes as leave one call to all, the most urgent first.
	Reserved [event.LaneCount]int
	// Ageing is how long a lane waits for a call until its claim counts twice,
	// three times at twice that, and so on; default 5 s.
	Ageing time.Duration
	// PulseLease is how long a lane may start requests since its newest pulse was
	// sent that has come back, or it was claimed; then it has to be claimed again.
	// Default four times PulseEvery.
	PulseLease time.Duration
	// EvictAfter is how long a peer may be silent until it is removed from the
	// group; default 1.8 s: a peer that stood still for 1.5 s, and would have had
	// its next pulse then, is not. Below 0 nobody is removed.
	EvictAfter time.Duration
}

func (c Config) withDefaults() Config {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.MaxInFlight, 1024)
	set(&c.MaxWindow, 2000)
	set(&c.MaxWindowBytes, 16<<20)
	set(&c.Recent, 4096)
	set(&c.MaxCancels, 32_768)
	set(&c.MaxEndings, 256)
	set(&c.Weights[event.Interactive], 8)
	set(&c.Weights[event.Standard], 4)
	set(&c.Weights[event.Batch], 1)
	if c.MaxSpan == 0 {
		c.MaxSpan = offsets.MaxSpan
	}
	for i, lane := range event.Lanes() {
		switch part := []int{64, 128, 128}[i]; {
		case c.Reserved[lane] < 0:
			c.Reserved[lane] = 0
		case c.Reserved[lane] == 0 && c.MaxInFlight > i+1:
			c.Reserved[lane] = max(1, c.MaxInFlight/part)
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	wait(&c.Lease, 750*time.Millisecond)
	wait(&c.PulseEvery, 250*time.Millisecond)
	wait(&c.CommitEvery, 100*time.Millisecond)
	wait(&c.CancelAhead, 10*time.Minute)
	wait(&c.Ageing, 5*time.Second)
	wait(&c.PulseLease, 4*c.PulseEvery)
	wait(&c.EvictAfter, 1800*time.Millisecond)
	return c
}

// Validate says what cannot be, of bounds that people set, by the names of the
// settings.
func (c Config) Validate() error {
	var errs []error
	atLeastOne := func(name string, v int) {
		if v < 0 {
			errs = append(errs, fmt.Errorf("%s: %d: it must be 1 or more", name, v))
		}
	}
	atLeastOne("max-in-flight", c.MaxInFlight)
	atLeastOne("max-window", c.MaxWindow)
	atLeastOne("max-window-bytes", c.MaxWindowBytes)
	atLeastOne("max-cancels", c.MaxCancels)
	atLeastOne("max-endings", c.MaxEndings)
	if c.MaxPerTenant < 0 {
		errs = append(errs, fmt.Errorf("max-per-tenant: %d: it must be 1 or more, or 0 for no bound", c.MaxPerTenant))
	}
	if c.MaxSpan < 0 || c.MaxSpan > offsets.MaxSpan {
		errs = append(errs, fmt.Errorf("max-span: %d: it must be 1 to %d, which is what a commit's metadata can hold", c.MaxSpan, offsets.MaxSpan))
	}
	full := c.withDefaults()
	if least := silentRounds * full.PulseEvery / 2; full.EvictAfter > 0 && full.EvictAfter < least {
		errs = append(errs, fmt.Errorf("evict-after: %s: it must be %s or more, or 0 for never", c.EvictAfter, least))
	}
	reserved := 0
	for _, n := range full.Reserved {
		reserved += n
	}
	if c.MaxInFlight >= 0 && reserved > full.MaxInFlight {
		errs = append(errs, fmt.Errorf("reserved: %d calls for all lanes together, of %d in all: reserve fewer, or raise max-in-flight", reserved, full.MaxInFlight))
	}
	return errors.Join(errs...)
}
