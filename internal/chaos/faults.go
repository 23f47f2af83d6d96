package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/testenv"
)

// The faults, by the names under which they are counted.
const (
	killProcessor   = "processor killed"
	freezeProcessor = "processor frozen" // for less than its session
	zombieProcessor = "processor frozen beyond its session"
	termProcessor   = "processor restarted"
	killGateway     = "gateway killed"
	freezeGateway   = "gateway frozen"
	termGateway     = "gateway restarted"
	killProjections = "projections killed"
	killBroker      = "broker killed"
	freezeBroker    = "broker frozen"
	rollBrokers     = "brokers restarted in turn"
	cutLink         = "link to a broker silent"
	resetLink       = "link to a broker reset"
	slowLink        = "link to a broker slow"
	thinLink        = "link to a broker thin"
	isolate         = "process cut off from Kafka"
	cutBrokers      = "link between brokers silent"
	slowBrokers     = "link between brokers slow"
)

// deck is how often each fault comes, of all of them.
func deck() []string {
	return []string{
		killProcessor, killProcessor, killProcessor, freezeProcessor, freezeProcessor, zombieProcessor, zombieProcessor,
		termProcessor, killGateway, killGateway, freezeGateway, termGateway, killProjections,
		killBroker, freezeBroker, rollBrokers, cutLink, cutLink, resetLink, slowLink, thinLink, isolate, cutBrokers, slowBrokers,
	}
}

// villain does faults to a deployment, drawn from a seed. At most two are done at
// a time, and at most one to the brokers, which are let catch up before the next:
// with two of three away nobody promises to go on.
type villain struct {
	d      *deployment
	random *rand.Rand
	log    *slog.Logger
	busy   sync.Mutex // of the brokers
	over   func() bool

	wg     sync.WaitGroup
	mu     sync.Mutex
	counts map[string]int
	errs   []error
}

func newVillain(d *deployment, seed uint64, log *slog.Logger) *villain {
	return &villain{d: d, random: rand.New(rand.NewPCG(seed, 0)), log: log, counts: map[string]int{}} //nolint:gosec // to be drawn again from its seed is what it is for
}

// run does faults until ctx ends, and returns when all are over.
func (v *villain) run(ctx context.Context, only []string) {
	const atOnce = 2
	v.over = func() bool { return ctx.Err() != nil }
	slots := make(chan struct{}, atOnce)
	for {
		cards := only
		if len(cards) == 0 {
			cards = deck()
		}
		v.random.Shuffle(len(cards), func(i, j int) { cards[i], cards[j] = cards[j], cards[i] })
		for _, card := range cards {
			do := v.fault(card) // draws all that is random of it, in order
			if end, ok := ctx.Deadline(); ok && card == rollBrokers && time.Until(end) < rolling {
				continue
			}
			gap := v.between(300*time.Millisecond, 2500*time.Millisecond)
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				v.wg.Wait()
				return
			}
			v.wg.Go(func() {
				defer func() { <-slots }()
				v.do(ctx, card, do)
			})
			pause(ctx, gap)
		}
	}
}

// rolling is about how long it takes to restart all brokers in turn: a run that
// has less time left does not begin with it.
const rolling = time.Minute

// errLate is why a fault was not done: the run ended while it waited its turn.
var errLate = errors.New("the run has ended")

// do does one fault, and counts it.
func (v *villain) do(ctx context.Context, what string, do func(ctx context.Context) (string, error)) {
	if ctx.Err() != nil {
		return
	}
	began := time.Now()
	// A fault that was begun is brought to its end, whatever ends meanwhile.
	whom, err := do(context.WithoutCancel(ctx))
	if errors.Is(err, errLate) {
		return
	}
	v.log.InfoContext(ctx, "fault", "what", what, "whom", whom, "took", time.Since(began).Round(time.Millisecond), "error", err)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.counts[what]++
	if err != nil {
		v.errs = append(v.errs, fmt.Errorf("%s, %s: %w", what, whom, err))
	}
}

func (v *villain) between(least, most time.Duration) time.Duration {
	return least + time.Duration(v.random.Int64N(int64(most-least)))
}

// one draws a slot that has a role.
func (v *villain) one(role string) *slot {
	var those []*slot
	for _, s := range v.d.slots {
		if strings.Contains(s.roles, role) {
			those = append(those, s)
		}
	}
	return those[v.random.IntN(len(those))]
}

// session is how long a processor may be silent before its partitions are
// others'.
const session = 6 * time.Second

// fault draws a fault's particulars, and returns what does it: it says to whom.
func (v *villain) fault(card string) func(ctx context.Context) (string, error) {
	short, long := v.between(500*time.Millisecond, 4*time.Second), v.between(session+time.Second, session+5*time.Second)
	processor, gateway, projections := v.one("processors"), v.one("gateway"), v.one("projections")
	away := v.between(0, 3*time.Second)
	switch card {
	case killProcessor:
		return killed(processor, away)
	case killGateway:
		return killed(gateway, away)
	case killProjections:
		return killed(projections, away)
	case freezeProcessor:
		return frozen(processor, short)
	case zombieProcessor:
		return frozen(processor, long)
	case freezeGateway:
		return frozen(gateway, cmp.Or(short*time.Duration(v.random.IntN(2)), long))
	case termProcessor:
		return restarted(processor)
	case termGateway:
		return restarted(gateway)
	default:
		return v.brokerFault(card, short)
	}
}

func (v *villain) brokerFault(card string, short time.Duration) func(ctx context.Context) (string, error) {
	node := v.random.IntN(len(v.d.kafka.Nodes()))
	s := v.d.slots[v.random.IntN(len(v.d.slots))]
	d := v.between(time.Second, 10*time.Second)
	switch card {
	case killBroker:
		return v.brokers(func(ctx context.Context) (string, error) {
			k := v.d.kafka.Nodes()[node]
			if err := k.Kill(); err != nil {
				return k.Addr(), err //nolint:wrapcheck // do says what it was
			}
			pause(ctx, short)
			return fmt.Sprintf("broker %d for %s", node, short), k.Restart(ctx) //nolint:wrapcheck // as above
		})
	case freezeBroker:
		return v.brokers(func(ctx context.Context) (string, error) {
			return fmt.Sprintf("broker %d for %s", node, d), stopped(ctx, v.d.kafka.Nodes()[node], d)
		})
	case rollBrokers:
		return v.brokers(func(ctx context.Context) (string, error) { return "all", v.d.rollBrokers(ctx) })
	case cutBrokers:
		return v.brokers(v.harmed(betweenBrokers, node, silent, d))
	case slowBrokers:
		return v.brokers(v.harmed(betweenBrokers, node, slow, d))
	case isolate:
		return v.isolated(s, d)
	case resetLink:
		return v.harmed(s.name, node, reset, d)
	case slowLink:
		return v.harmed(s.name, node, slow, d)
	case thinLink:
		return v.harmed(s.name, node, thin, d)
	default:
		return v.harmed(s.name, node, silent, d)
	}
}

// killed kills a process as kill -9 does, and starts it again a while later.
func killed(s *slot, away time.Duration) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		s.fault.Lock()
		defer s.fault.Unlock()
		if err := s.kill(); err != nil {
			return s.name, err
		}
		pause(ctx, away)
		return s.name, s.start(ctx)
	}
}

func frozen(s *slot, d time.Duration) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		s.fault.Lock()
		defer s.fault.Unlock()
		return fmt.Sprintf("%s for %s", s.name, d), s.freeze(ctx, d)
	}
}

// restarted ends a process as an orchestrator does, and starts it again. Only one
// that has come up is ended so: else it is its start that is tried.
func restarted(s *slot) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		s.fault.Lock()
		defer s.fault.Unlock()
		if err := s.ready(ctx); err != nil {
			return s.name, err
		}
		if err := s.stop(ctx); err != nil {
			return s.name, err
		}
		return s.name, s.start(ctx)
	}
}

// stopped freezes a broker.
func stopped(ctx context.Context, k *testenv.KafkaServer, d time.Duration) error {
	if err := k.Pause(); err != nil {
		return err //nolint:wrapcheck // do says what it was
	}
	pause(ctx, d)
	return k.Resume() //nolint:wrapcheck // as above
}

// brokers does a fault to the brokers, once they are well, and waits until they
// are again.
func (v *villain) brokers(do func(ctx context.Context) (string, error)) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		v.busy.Lock()
		defer v.busy.Unlock()
		if v.over() {
			return "", errLate
		}
		whom, err := do(ctx)
		if err == nil {
			err = v.d.healthy(ctx)
		}
		return whom, err
	}
}

func (v *villain) harmed(name string, node int, harm string, d time.Duration) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		whom := fmt.Sprintf("%s to broker %d for %s", name, node, d)
		unlock := v.d.holdWay(name)
		defer unlock()
		heal, err := v.d.net.harm(name, node, harm)
		if err != nil {
			return whom, err
		}
		pause(ctx, d)
		return whom, heal(ctx)
	}
}

// isolated cuts a process off from all brokers.
func (v *villain) isolated(s *slot, d time.Duration) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		whom := fmt.Sprintf("%s for %s", s.name, d)
		s.fault.Lock()
		defer s.fault.Unlock()
		for node := range v.d.kafka.Nodes() {
			heal, err := v.d.net.harm(s.name, node, silent)
			if err != nil {
				return whom, err
			}
			defer func() { _ = heal(ctx) }() // one that was not healed is found out by who waits for it
		}
		pause(ctx, d)
		return whom, nil
	}
}

// healthy waits until every partition has all its copies.
func (d *deployment) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for {
		unwell, err := d.cluster.Unwell(ctx, d.topics...)
		if err == nil && len(unwell) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the brokers do not recover: %d partitions are unwell: %w", len(unwell), err)
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// rollBrokers restarts all brokers in order, one after the other.
func (d *deployment) rollBrokers(ctx context.Context) error {
	for _, k := range d.kafka.Nodes() {
		if err := k.Restart(ctx); err != nil {
			return err //nolint:wrapcheck // it says what it could not do
		}
		if err := d.healthy(ctx); err != nil {
			return err
		}
	}
	return nil
}
