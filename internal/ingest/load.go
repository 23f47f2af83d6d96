package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/admission"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

const (
	// loadEvery is how often the ends of the request topics are asked for. What
	// this process writes itself is known with its acknowledgement.
	loadEvery = 250 * time.Millisecond
	// loadTimeout bounds one question to Kafka.
	loadTimeout = 2 * time.Second
	// loadAgain is how long it takes to try again what failed.
	loadAgain = time.Second
	// pulsePace gathers the pulses of a process's lanes, which come together.
	pulsePace = 20 * time.Millisecond
	// pulsePartition is the only partition of the pulse topic.
	pulsePartition = 0
)

// DefaultBudgets are the lanes' budgets, for each partition. Somebody watches an
// interactive request: it may wait for a quarter of a minute, which a takeover
// from a killed owner (some 8 s) does not use up. A standard job is polled for:
// a minute. A batch has a day, as OpenAI's batches do. In number: some minutes
// of what a busy partition works off, so that a burst before the processors are
// up is taken in, and a log that nobody reads does not grow for ever.
func DefaultBudgets() map[event.Lane]admission.Limits {
	return map[event.Lane]admission.Limits{
		event.Interactive: {Wait: 15 * time.Second, Outstanding: 2_000},
		event.Standard:    {Wait: time.Minute, Outstanding: 20_000},
		event.Batch:       {Wait: 24 * time.Hour, Outstanding: 100_000},
	}
}

// Log is what is read of the log; *kafka.Cluster is one.
type Log interface {
	Offsets(ctx context.Context, topic string, at kafka.At) (map[int32]int64, error)
	Feed(ctx context.Context, cfg kafka.TailConfig, partition int32, from int64, take func(kafka.Chunk) error) error
}

// LoadConfig says what a Load works with. Log, Names and Partitions are needed.
type LoadConfig struct {
	Log        Log
	Names      topics.Names
	Partitions int32                           // of every request topic
	Budgets    map[event.Lane]admission.Limits // of each partition; a lane that is left out has DefaultBudgets'
	Now        func() time.Time                // nil is time.Now
	Logger     *slog.Logger                    // nil discards
}

// Load knows how much work there is to do and how fast it is done, by lane and
// partition, and says whether more is let in. It reads the owners' pulses, asks
// for the ends of the request topics, and is told what this process wrote. Its
// methods may be called from many goroutines; Run keeps it up to date.
type Load struct {
	cfg      LoadConfig
	limits   []admission.Limits // by lane, most urgent first
	view     atomic.Pointer[admission.View]
	ends     []atomic.Int64  // of the logs, by lane and partition: the newest known
	crossed  []atomic.Uint32 // by lane and partition: the admission.Reason of a refusal that the board was not told
	accepted []atomic.Int64  // by lane: what this process wrote

	mu        sync.Mutex // of all below
	board     *admission.Board
	pulseNext int64 // pulses below this offset were read
	pulseEnd  int64 // where they ended at the last look; -1 before the first
}

// NewLoad makes a Load that lets in what comes until Run has learned more.
func NewLoad(cfg LoadConfig) (*Load, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	budgets := DefaultBudgets()
	maps.Copy(budgets, cfg.Budgets)
	l := &Load{cfg: cfg, pulseEnd: -1}
	for _, lane := range event.Lanes() {
		l.limits = append(l.limits, budgets[lane])
	}
	now := cfg.Now()
	var err error
	if l.board, err = admission.NewBoard(admission.Config{Lanes: l.limits, Partitions: int(cfg.Partitions)}, now); err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	l.ends = make([]atomic.Int64, len(l.limits)*int(cfg.Partitions))
	l.crossed = make([]atomic.Uint32, len(l.ends))
	l.accepted = make([]atomic.Int64, len(l.limits))
	l.view.Store(l.board.Assess(now))
	return l, nil
}

// lpOf names a lane's partition as admission does, most urgent lane first.
func lpOf(lane event.Lane, partition int32) admission.LP {
	return admission.LP{Lane: int(lane) - int(event.Interactive), Partition: int(partition)}
}

func (l *Load) index(lp admission.LP) int { return lp.Lane*int(l.cfg.Partitions) + lp.Partition }

func (l *Load) end(lp admission.LP) *atomic.Int64 { return &l.ends[l.index(lp)] }

// ShedError is why a request was not let in; it is the cause of the fault.
type ShedError struct{ Reason admission.Reason }

// Error implements error.
func (s *ShedError) Error() string { return "shed: " + s.Reason.String() }

// Admit says whether a new request is let in to a lane's partition: nil, or a
// fault with a *ShedError as its cause. A zero deadline is none.
func (l *Load) Admit(lane event.Lane, partition int32, deadline time.Time) error {
	lp := lpOf(lane, partition)
	var left time.Duration
	if !deadline.IsZero() {
		left = max(deadline.Sub(l.cfg.Now()), 1)
	}
	v := l.view.Load()
	d := v.Decide(lp, l.end(lp).Load(), l.accepted[lp.Lane].Load(), left)
	if d.Reason == admission.Open {
		return nil
	}
	if d.Reason == admission.Wait || d.Reason == admission.Outstanding {
		l.crossed[l.index(lp)].Store(uint32(d.Reason))
	}
	return refusal(lane, v.Status(lp), l.limits[lp.Lane], d)
}

// Accepted tells that a request was written at an offset.
func (l *Load) Accepted(lane event.Lane, partition int32, offset int64) {
	lp := lpOf(lane, partition)
	l.accepted[lp.Lane].Add(1)
	raise(l.end(lp), offset+1)
}

// raise sets a number that only grows.
func raise(n *atomic.Int64, to int64) {
	for {
		was := n.Load()
		if to <= was || n.CompareAndSwap(was, to) {
			return
		}
	}
}

// refusal says it to a person.
func refusal(lane event.Lane, s admission.Status, limits admission.Limits, d admission.Decision) *fault.Error {
	f := fault.Wrap(&ShedError{d.Reason}, fault.Overloaded, "")
	f.RetryAfter = d.RetryAfter
	idle := ""
	if s.Owner != admission.Alive {
		idle = ", and no processor works on it at present"
	}
	wait := d.Wait.Round(100 * time.Millisecond)
	back := fmt.Sprintf("come back in %s", d.RetryAfter.Round(time.Second))
	switch d.Reason {
	case admission.Deadline:
		f.Param, f.Final = "deadline", true
		f.Message = fmt.Sprintf("the deadline cannot be met: a request in the lane %s waits about %s at present: leave more time", lane, wait)
	case admission.Outstanding:
		f.Message = fmt.Sprintf("the lane %s is full: as many requests as may be outstanding, %d of a partition, are%s: %s",
			lane, limits.Outstanding, idle, back)
	case admission.Yielding:
		f.Message = fmt.Sprintf("the lane %s makes room for a more urgent one: %s", lane, back)
	case admission.Stale:
		f.Message = fmt.Sprintf("how much work there is cannot be seen at present, so the lane %s takes little or nothing: %s", lane, back)
	case admission.Open, admission.Wait:
		f.Message = fmt.Sprintf("the lane %s is full: a new request would wait about %s, and %s is its budget%s: %s",
			lane, wait, limits.Wait, idle, back)
	}
	return f
}

// Run keeps the load up to date until ctx ends. Kafka may be away: it is asked
// again, and meanwhile the signal is stale.
func (l *Load) Run(ctx context.Context) error {
	var loops errgroup.Group
	loops.Go(func() error { l.tick(ctx); return nil })
	loops.Go(func() error { l.repeat(ctx, "where requests end", l.watchEnds); return nil })
	loops.Go(func() error { l.repeat(ctx, "the owners' pulses", l.watchPulses); return nil })
	return loops.Wait() //nolint:wrapcheck // none fails
}

// tick assesses anew as time goes by, whatever Kafka does.
func (l *Load) tick(ctx context.Context) {
	ticker := time.NewTicker(loadEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.update(func(time.Time) {})
		case <-ctx.Done():
			return
		}
	}
}

// repeat does something that goes on for ever, again where it fails.
func (l *Load) repeat(ctx context.Context, what string, do func(context.Context) error) {
	for {
		err := do(ctx)
		if ctx.Err() != nil {
			return
		}
		l.cfg.Logger.WarnContext(ctx, "the load cannot be seen", slog.String("missing", what), slog.Any("error", err))
		timer := time.NewTimer(loadAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// update tells the board something, and takes what it decides.
func (l *Load) update(tell func(now time.Time)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.cfg.Now()
	for i := range l.ends {
		lp := admission.LP{Lane: i / int(l.cfg.Partitions), Partition: i % int(l.cfg.Partitions)}
		l.board.End(now, lp, l.ends[i].Load())
		if why := admission.Reason(l.crossed[i].Swap(0)); why != admission.Open {
			l.board.Crossed(lp, why)
		}
	}
	tell(now)
	for lane := range l.accepted {
		l.board.Accepted(now, lane, l.accepted[lane].Load())
	}
	l.view.Store(l.board.Assess(now))
}

// watchEnds asks where the request topics end, and the pulses.
func (l *Load) watchEnds(ctx context.Context) error {
	if err := l.askStarts(ctx); err != nil {
		return err
	}
	ticker := time.NewTicker(loadEvery)
	defer ticker.Stop()
	for {
		if err := l.askEnds(ctx); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// askStarts asks where the request topics begin: what retention took is not
// outstanding, also where nobody ever worked.
func (l *Load) askStarts(ctx context.Context) error {
	for _, lane := range event.Lanes() {
		starts, err := l.offsets(ctx, l.cfg.Names.Requests(lane), kafka.Start())
		if err != nil {
			return err
		}
		l.update(func(time.Time) {
			for partition, offset := range starts {
				if partition < l.cfg.Partitions {
					l.board.Start(lpOf(lane, partition), offset)
				}
			}
		})
	}
	return nil
}

func (l *Load) askEnds(ctx context.Context) error {
	for _, lane := range event.Lanes() {
		ends, err := l.offsets(ctx, l.cfg.Names.Requests(lane), kafka.End())
		if err != nil {
			return err
		}
		for partition, offset := range ends {
			if partition < l.cfg.Partitions {
				raise(l.end(lpOf(lane, partition)), offset)
			}
		}
	}
	pulses, err := l.offsets(ctx, l.cfg.Names.Pulse(), kafka.End())
	if err != nil {
		return err
	}
	l.update(func(now time.Time) {
		l.board.EndsKnown(now)
		// Read are all pulses if those of the last look are, which was a while ago.
		if l.pulseEnd >= 0 && l.pulseNext >= l.pulseEnd {
			l.board.PulsesRead(now)
		}
		l.pulseEnd = pulses[pulsePartition]
	})
	return nil
}

func (l *Load) offsets(ctx context.Context, topic string, at kafka.At) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	return l.cfg.Log.Offsets(ctx, topic, at) //nolint:wrapcheck // logged by the one caller
}

// errNoPulses says that the pulse topic is not as it should be.
var errNoPulses = errors.New("the pulse topic has no partition " + strconv.Itoa(pulsePartition))

// watchPulses reads the pulses from the first that is there.
func (l *Load) watchPulses(ctx context.Context) error {
	starts, err := l.offsets(ctx, l.cfg.Names.Pulse(), kafka.Start())
	if err != nil {
		return err
	}
	from, ok := starts[pulsePartition]
	if !ok {
		return errNoPulses
	}
	live := int64(-1) // pulses from this offset on were written since we listen
	cfg := kafka.TailConfig{Topic: l.cfg.Names.Pulse(), Pace: pulsePace}
	return l.cfg.Log.Feed(ctx, cfg, pulsePartition, from, func(c kafka.Chunk) error { //nolint:wrapcheck // logged by the one caller
		if live < 0 {
			live = c.HighWatermark
		}
		l.update(func(now time.Time) {
			for i := range c.Records {
				lane, epoch, p, ok := event.DecodePulse(c.Records[i].Value)
				if ok {
					l.board.Pulse(now, lpOf(lane, p.Partition), pulseOf(epoch, &p, c.Records[i].Offset < live))
				}
			}
			l.pulseNext = c.Next
		})
		return nil
	})
}

func pulseOf(epoch int64, p *event.Pulse, old bool) admission.Pulse {
	return admission.Pulse{
		Epoch: epoch, Owner: p.Owner, Consumed: p.Consumed, InFlight: p.InFlight, Running: p.Running, Waiting: p.Waiting,
		Stalled: p.Breaker == "open", Released: p.Released, Old: old,
	}
}
