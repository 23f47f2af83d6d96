package engine

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

// A simulation of a cluster in memory: logs, a group's coordinator, clocks, and
// two or three Engines whose effects are carried out late, in the orders that
// the world allows, and sometimes not at all. One reader that sees everything
// checks what must hold (simcheck_test.go).

// chooser makes every choice of a run, 0 to k-1.
type chooser interface{ n(k int) int }

type seeded struct{ *rand.Rand }

func (s seeded) n(k int) int { return s.IntN(k) }

// drawn lets rapid choose, so that a failing run shrinks.
type drawn struct{ t *rapid.T }

func (d drawn) n(k int) int { return rapid.IntRange(0, k-1).Draw(d.t, "choice") }

// rules says which rule is broken: each must be found out.
type rules struct {
	noFence       bool // readers count what a fenced owner wrote
	noReadBack    bool // a fact follows its terminal event unread
	noLease       bool // heartbeats are answered to those who were removed
	noWait        bool // a new owner does not wait for the leases before it
	noHold        bool // outputs of the old epoch may stand behind a new claim
	highBound     bool // a commit's bound is the end of the log
	noRecallFence bool // who continues a job reads it without a fence
	noControl     bool // a new owner reads the cancels from after its claim alone
	noPulseLease  bool // the first owner starts requests though its pulses do not come back
	noOrder       bool // requests of a key run side by side
	noSpan        bool // a stuck request holds as many as there are
	noTenant      bool // a tenant has as many calls as there are
	noReserve     bool // the calls that are a lane's are others' as well
	starve        bool // a lane is never the neediest
}

// scenario is the shape of a run.
type scenario struct {
	rules
	steps     int
	requests  int // at most
	faults    int // of 100 world events
	retention bool
	zombies   bool // owners that are removed, do not learn of it, and go on
}

// world is the cluster.
type world struct {
	chooser
	scenario
	now        time.Time
	lps        []LP
	procs      []*proc // dead ones too
	names      int
	random     *rand.Rand // of ids
	tokens     map[int32][]tokRec
	tokFrom    map[int32]int64 // log start
	reqs       map[LP][]*reqRec
	reqFrom    map[LP]int64
	control    map[int32][]Cancel
	commits    map[LP]Commit
	owner      map[LP]*proc // as the coordinator has it
	moving     map[LP]*proc // a revocation is under way, to whom
	pulses     []PulseSeen
	limbo      [][]func() // writes whose outcome nobody knows: of each, some of the first land
	made       int
	perTenant  int // calls at most; 0: no bound
	at         int // step
	hot        LP  // where most requests go
	lastZombie int
	seq        []*jobState // in order of creation

	filters map[int32]*fence.Filter
	jobs    map[string]*jobState
	dead    map[LP]map[int64]bool
	wrong   error
	seen    tally
}

type tokRec struct {
	view  event.View
	owner string
	time  time.Time
}

type reqRec struct {
	Request
	job *jobState // nil for what is no job
}

// tally counts what came about in a run, or in many.
type tally struct {
	runs, steps, crashes, drains, evicted, lost  int // lost is the metadata of commits
	started, cancelled, stopped, retried, claims int
}

func (t *tally) add(o tally) {
	t.runs++
	t.steps += o.steps
	t.crashes += o.crashes
	t.drains += o.drains
	t.evicted += o.evicted
	t.lost += o.lost
	t.started += o.started
	t.cancelled += o.cancelled
	t.stopped += o.stopped
	t.retried += o.retried
	t.claims += o.claims
}

func (t *tally) String() string {
	return fmt.Sprintf("%d runs, %d steps: %d claims, %d calls, %d tried again, %d broken off; %d processes killed, %d ended in order, %d evicted; %d commits lost their metadata",
		t.runs, t.steps, t.claims, t.started, t.retried, t.stopped, t.crashes, t.drains, t.evicted, t.lost)
}

// jobState is what the reader who sees everything knows of a job.
type jobState struct {
	key, conv string
	LP
	created   int64   // end of the token log when its first request was written
	first     int64   // offset of its first request
	offsets   []int64 // of its events that count
	cancels   []int64 // where its cancels stand on the control log
	ended     bool
	endAt     int64
	factDone  bool
	again     bool // requested more than once
	twice     bool // and without repeat: it may run again
	trimmed   bool // retention took some of it
	data      event.Request
	head      event.Head
	endedType event.Type
}

func (w *world) fail(format string, args ...any) {
	if w.wrong == nil {
		w.wrong = fmt.Errorf(format, args...)
	}
}

func newWorld(c chooser, s scenario) *world {
	w := &world{
		chooser: c, scenario: s, now: time.UnixMilli(1_700_000_000_000), random: rand.New(rand.NewPCG(1, 2)),
		tokens: map[int32][]tokRec{}, tokFrom: map[int32]int64{}, reqs: map[LP][]*reqRec{}, reqFrom: map[LP]int64{},
		control: map[int32][]Cancel{}, commits: map[LP]Commit{}, owner: map[LP]*proc{}, moving: map[LP]*proc{},
		filters: map[int32]*fence.Filter{}, jobs: map[string]*jobState{}, dead: map[LP]map[int64]bool{},
		hot: LP{event.Interactive, 0},
		lps: []LP{{event.Interactive, 0}, {event.Standard, 0}, {event.Interactive, 1}, {event.Batch, 1}},
	}
	for p := range int32(2) {
		w.filters[p] = &fence.Filter{}
	}
	for _, lp := range w.lps {
		w.dead[lp] = map[int64]bool{}
	}
	w.perTenant = 2 * w.n(2)
	w.spawn()
	w.spawn()
	return w
}

// run is one simulation: chaos, then calm, in which all must end.
func (w *world) run() error {
	pace := []int{12, 2, 4, 30}[w.n(4)] // milliseconds that a step takes at most
	for w.at = range w.steps {
		w.now = w.now.Add(time.Duration(w.n(pace)) * time.Millisecond)
		if w.n(8) == 7 {
			w.disturb()
		} else {
			w.procs[w.n(len(w.procs))].act()
		}
		if w.wrong != nil {
			return w.wrong
		}
	}
	w.calm()
	if w.wrong == nil {
		w.finalCheck()
	}
	return w.wrong
}

func metadata(c Commit) offsets.Metadata {
	m, err := offsets.DecodeMetadata(c.Metadata, c.Next)
	if err != nil {
		return offsets.Metadata{}
	}
	return m
}

var errNoEnd = errors.New("not all jobs ended")

func simulate(c chooser, s scenario) error { return newWorld(c, s).run() }

func TestSimulationKeepsEveryPromise(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := scenario{steps: rapid.IntRange(50, 1500).Draw(rt, "steps"), requests: 25, faults: 30}
		if err := simulate(drawn{rt}, s); err != nil {
			rt.Fatal(err)
		}
	})
}

func seedRun(seed uint64, s scenario) (tally, error) {
	r := rand.New(rand.NewPCG(seed, 0))
	s.steps, s.requests, s.faults = 300+r.IntN(4000), 10+r.IntN(50), 10+r.IntN(60)
	s.zombies = seed%2 == 1
	w := newWorld(seeded{r}, s)
	err := w.run()
	return w.seen, err
}

// search runs seeds one after the other. PENSTOCK_SIM_RUNS says how many (make
// sim), and PENSTOCK_SIM_SEED runs a single one again.
func search(t *testing.T, run func(seed uint64) (tally, error), from, usual uint64) *tally {
	t.Helper()
	number := func(name string, usual uint64) uint64 {
		if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
			return n
		}
		return usual
	}
	all := &tally{}
	to := from + number("PENSTOCK_SIM_RUNS", usual)
	if one := number("PENSTOCK_SIM_SEED", math.MaxUint64); one != math.MaxUint64 {
		from, to = one, one+1
	}
	for seed := from; seed < to; seed++ {
		seen, err := run(seed)
		all.add(seen)
		if err != nil {
			t.Fatalf("seed %d (run it again: PENSTOCK_SIM_SEED=%d go test -run '^%s$' %s): %v",
				seed, seed, t.Name(), "./internal/processors/engine", err)
		}
	}
	t.Logf("seeds %d to %d: %s", from, to-1, all)
	return all
}

func TestSimulationOfManySeeds(t *testing.T) {
	t.Parallel()
	search(t, func(seed uint64) (tally, error) { return seedRun(seed, scenario{}) }, 0, 150)
}

func TestSimulationCancelsAndRetries(t *testing.T) {
	t.Parallel()
	var got tally
	for seed := range uint64(60) {
		w := newWorld(seedOf(seed), scenario{steps: 3000, requests: 40, faults: 20})
		if err := w.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got.add(w.seen)
	}
	if got.cancelled < 50 || got.stopped < 10 || got.retried < 40 || got.crashes < 20 || got.drains < 20 || got.lost < 5 {
		t.Errorf("the simulation hardly comes to it: %+v", got)
	}
}

func TestSimulationWithRetention(t *testing.T) {
	t.Parallel()
	search(t, func(seed uint64) (tally, error) { return seedRun(seed, scenario{retention: true}) }, 1e9, 150)
}

func TestSimulationFindsEveryBrokenRule(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]rules{
		"fence":       {noFence: true},
		"readback":    {noReadBack: true},
		"hold":        {noHold: true},
		"bound":       {highBound: true},
		"recallfence": {noRecallFence: true},
		"control":     {noControl: true},
		"order":       {noOrder: true},
		"span":        {noSpan: true},
		"tenant":      {noTenant: true},
		"reserve":     {noReserve: true},
		"starve":      {starve: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(5000) {
				_, err := seedRun(seed, scenario{rules: broken})
				if err != nil && !errors.Is(err, errNoEnd) {
					t.Logf("found by seed %d: %v", seed, err)
					return
				}
			}
			t.Fatal("a broken rule was not found out")
		})
	}
}

func seedOf(n uint64) chooser { return seeded{rand.New(rand.NewPCG(n, 0))} }

// zombie tells of an owner that is removed and does not learn of it: it reads no
// tokens, goes on fetching requests, and is quicker than its successor to start
// one that is made behind the successor's claim.
func zombie(seed uint64, r rules, head time.Duration) error {
	w := newWorld(seedOf(seed), scenario{rules: r, steps: 1, requests: 40})
	a, b := w.procs[0], w.procs[1]
	together := func(d time.Duration) {
		for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(5 * time.Millisecond) {
			a.everything()
			b.everything()
		}
	}
	together(3 * time.Second)
	a.muted[readsTokens] = w.now.Add(time.Minute)
	w.evict(a)
	together(head)
	for range 10 {
		w.request()
	}
	for range 20 {
		a.everything()
	}
	together(time.Second)
	w.calm()
	if w.wrong == nil {
		w.finalCheck()
	}
	return w.wrong
}

// mute tells of an owner whose pulses are lost. It is found silent, removed, and
// its lanes are claimed at once, while its heartbeats were answered until then.
func mute(seed uint64, r rules) error {
	w := newWorld(seedOf(seed), scenario{rules: r, steps: 1, requests: 60})
	a, b := w.procs[0], w.procs[1]
	w.move(w.lps[2], b) // who owns nothing has no pulse
	w.move(w.lps[3], b)
	round := func() {
		w.now = w.now.Add(5 * time.Millisecond)
		a.everything()
		b.everything()
	}
	for range 600 {
		round()
	}
	a.mute, a.muted[readsTokens] = true, w.now.Add(time.Minute)
	for w.owner[w.lps[0]] == a && w.wrong == nil {
		round()
	}
	for range 100 { // half a second, which is less than a lease
		round()
		w.request()
		a.everything()
	}
	a.mute = false
	w.calm()
	if w.wrong == nil {
		w.finalCheck()
	}
	return w.wrong
}

func TestAReaderWhoBeginsAtAJobIsNotShownAMuteOwner(t *testing.T) {
	found := 0
	for seed := range uint64(20) {
		if err := mute(seed, rules{}); err != nil {
			t.Errorf("seed %d, all rules kept: %v", seed, err)
		}
		if mute(seed, rules{noPulseLease: true}) != nil {
			found++
		}
	}
	if found < 10 {
		t.Errorf("found out in 20 stories: %d owners that start without the lease of their pulses", found)
	}
}

func TestAReaderWhoBeginsAtAJobIsNotShownAZombie(t *testing.T) {
	const soon, late = 200 * time.Millisecond, 2 * time.Second
	var unwaited, unleased int
	for seed := range uint64(20) {
		for _, head := range []time.Duration{soon, late} {
			if err := zombie(seed, rules{}, head); err != nil {
				t.Errorf("all rules kept: %v", err)
			}
		}
		if zombie(seed, rules{noWait: true}, soon) != nil {
			unwaited++
		}
		if zombie(seed, rules{noLease: true}, late) != nil {
			unleased++
		}
	}
	if unwaited < 10 || unleased < 10 {
		t.Errorf("found out in 20 stories: %d successors that do not wait, %d owners that start without a lease", unwaited, unleased)
	}
}
