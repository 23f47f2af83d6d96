package engine

import "github.com/penstock-io/penstock/internal/event"

// Stats is what the engine tells of itself.
type Stats struct {
	Owned    int                  // LPs that are claimed
	Assigned int                  // LPs that are assigned
	InFlight int                  // calls
	Waiting  [event.LaneCount]int // requests taken in and not started
	Paused   int                  // LPs whose window is full
	Cancels  int                  // remembered
	// CancelsForgotten counts those that were forgotten for want of room.
	CancelsForgotten uint64
	// Bounds are all that a Config sets, with how far the fullest has come.
	Bounds []Bound
}

// Bound is one bound of a Config, and how much of it is used: where there are
// many of a kind, by the one that uses the most.
type Bound struct {
	Name        string
	Used, Limit int // Limit 0 is none
}

// Stats returns the present figures.
func (e *Engine) Stats() Stats {
	s := Stats{Assigned: len(e.lanes), InFlight: e.inFlight, CancelsForgotten: e.forgotten}
	var cancels, tenant, window, bytes, span int
	for _, c := range e.controls {
		s.Cancels += len(c.cancels.values)
		cancels = max(cancels, len(c.cancels.values))
	}
	for _, l := range e.sorted {
		if l.claimer.Owns() {
			s.Owned++
		}
		if l.paused {
			s.Paused++
		}
		s.Waiting[l.Lane] += len(l.entries) - l.started + len(l.backlog)
		window, bytes, span = max(window, len(l.entries)), max(bytes, l.bytes), max(span, int(l.tracker.Span()))
	}
	for _, t := range e.share.tenants {
		tenant = max(tenant, t.calls)
	}
	s.Bounds = []Bound{
		{"in_flight", e.inFlight, e.cfg.MaxInFlight},
		{"tenant", tenant, e.cfg.MaxPerTenant},
		{"window", window, e.cfg.MaxWindow},
		{"window_bytes", bytes, e.cfg.MaxWindowBytes},
		{"span", span, int(e.cfg.MaxSpan)},
		{"endings", e.ending, e.cfg.MaxEndings},
		{"cancels", cancels, e.cfg.MaxCancels},
	}
	for _, lane := range event.Lanes() {
		reserved := e.cfg.Reserved[lane]
		s.Bounds = append(s.Bounds, Bound{"reserved_" + lane.String(), min(e.share.calls[lane], reserved), reserved})
	}
	return s
}
