package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
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
}

// scenario is the shape of a run.
type scenario struct {
	rules
	steps     int
	requests  int // at most
	faults    int // of 100 world events
	retention bool
}

// world is the cluster.
type world struct {
	chooser
	scenario
	now     time.Time
	lps     []LP
	procs   []*proc // dead ones too
	names   int
	random  *rand.Rand // of ids
	tokens  map[int32][]tokRec
	tokFrom map[int32]int64 // log start
	reqs    map[LP][]*reqRec
	reqFrom map[LP]int64
	commits map[LP]Commit
	owner   map[LP]*proc // as the coordinator has it
	moving  map[LP]*proc // a revocation is under way, to whom
	pulses  []PulseSeen
	limbo   [][]func() // writes whose outcome nobody knows: of each, some of the first land
	made    int
	at      int         // step
	seq     []*jobState // in order of creation

	filters map[int32]*fence.Filter
	jobs    map[string]*jobState
	dead    map[LP]map[int64]bool
	wrong   error
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

// jobState is what the reader who sees everything knows of a job.
type jobState struct {
	key, conv string
	LP
	created   int64   // end of the token log when its first request was written
	first     int64   // offset of its first request
	offsets   []int64 // of its events that count
	ended     bool
	endAt     int64
	factDone  bool
	twice     bool // written again without repeat: it may run again
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

func (w *world) chance(percent int) bool { return w.n(100) >= 100-percent }

func newWorld(c chooser, s scenario) *world {
	w := &world{
		chooser: c, scenario: s, now: time.UnixMilli(1_700_000_000_000), random: rand.New(rand.NewPCG(1, 2)),
		tokens: map[int32][]tokRec{}, tokFrom: map[int32]int64{}, reqs: map[LP][]*reqRec{}, reqFrom: map[LP]int64{},
		commits: map[LP]Commit{}, owner: map[LP]*proc{}, moving: map[LP]*proc{},
		filters: map[int32]*fence.Filter{}, jobs: map[string]*jobState{}, dead: map[LP]map[int64]bool{},
		lps: []LP{{event.Interactive, 0}, {event.Standard, 0}, {event.Interactive, 1}},
	}
	for p := range int32(2) {
		w.filters[p] = &fence.Filter{}
	}
	for _, lp := range w.lps {
		w.dead[lp] = map[int64]bool{}
	}
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

// disturb is an event from outside the processes.
func (w *world) disturb() {
	if w.n(100) >= w.faults {
		w.request()
		return
	}
	p := w.procs[w.n(len(w.procs))]
	switch w.n(12) {
	case 0, 1:
		w.move(w.lps[w.n(len(w.lps))], w.anyMember(nil))
	case 2:
		if w.n(2) == 0 { // a zombie: it does not read what would tell it, and goes on
			p.muted[readsTokens] = w.now.Add(time.Duration(w.n(9000)) * time.Millisecond)
		}
		w.evict(p)
	case 3:
		p.notice()
	case 4:
		if w.n(3) == 0 {
			p.crash()
		}
	case 5:
		if len(w.living()) < 3 {
			w.spawn()
		}
	case 7: // a part of it is slow
		p.muted[w.n(actions)] = w.now.Add(time.Duration(w.n(2500)) * time.Millisecond)
	case 6:
		p.stalled = w.now.Add(time.Duration(w.n(2500)) * time.Millisecond)
	case 8:
		p.loseWrites(int32(w.n(2)))
	case 9:
		w.late()
	case 10:
		w.now = w.now.Add(time.Duration(w.n(900)) * time.Millisecond)
	case 11:
		for lp, to := range w.moving { // the rebalance does not wait any longer
			delete(w.moving, lp)
			w.assign(lp, to)
			break
		}
		if w.retention && w.n(4) == 0 {
			w.expire()
		}
	}
}

// late lands a write that nobody knows of, or drops it and all behind it.
func (w *world) late() {
	if len(w.limbo) == 0 {
		return
	}
	i := w.n(len(w.limbo))
	q := w.limbo[i]
	if w.n(4) > 0 {
		q[0]()
		q = q[1:]
	} else {
		q = nil
	}
	w.limbo[i] = q
	if len(q) == 0 {
		w.limbo = append(w.limbo[:i:i], w.limbo[i+1:]...)
	}
}

// request writes a request: a new job, or one of the kinds that are trouble.
func (w *world) request() {
	if w.made*w.steps >= w.requests*(w.at+40) {
		return // they are spread over the run
	}
	w.made++
	lp := w.lps[w.n(len(w.lps))]
	r := &reqRec{Request: Request{Time: w.now, Bytes: 10 + w.n(40)}}
	kind := w.n(16)
	var again *jobState
	if kind >= 10 && kind <= 13 && len(w.seq) > 0 {
		again = w.seq[len(w.seq)-1-w.n(min(len(w.seq), 6))]
	}
	switch {
	case kind == 15:
		r.Poison = "it cannot be run"
	case kind == 14:
		r.Skip = true
	case again != nil && kind >= 12: // plainly twice
		again.twice = true
		lp, r.job, r.Head, r.Data = again.LP, again, again.head, again.data
	case again != nil: // ingest did not know whether it took
		lp, r.job, r.Head, r.Data = again.LP, again, again.head, again.data
		r.Data.Repeat = true
	default:
		id, err := job.Mint(w.now, "", 1, randomBytes{w.random})
		if err != nil {
			panic(err)
		}
		j := &jobState{
			LP: lp, created: int64(len(w.tokens[lp.Partition])), first: int64(len(w.reqs[lp])),
			head: event.Head{Type: event.JobRequested, V: 1, Tenant: "t", Job: id},
		}
		if kind >= 7 {
			j.conv = "c" + strconv.Itoa(w.n(2))
			j.head.Conversation = j.conv
		}
		j.key = jobKey("t", id)
		w.jobs[j.key] = j
		w.seq = append(w.seq, j)
		r.job, r.Head = j, j.head
	}
	r.Offset = int64(len(w.reqs[lp]))
	w.reqs[lp] = append(w.reqs[lp], r)
}

type randomBytes struct{ r *rand.Rand }

func (b randomBytes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b.r.Uint32())
	}
	return len(p), nil
}

// expire is retention: tokens and requests lose their oldest records.
func (w *world) expire() {
	p := int32(w.n(2))
	if n := int64(len(w.tokens[p])) - w.tokFrom[p]; n > 4 {
		w.trim(p, w.tokFrom[p]+int64(w.n(int(n/2)+1)))
		for _, j := range w.jobs {
			if j.Partition == p && j.created < w.tokFrom[p] {
				j.trimmed = true
			}
		}
	}
	lp := w.lps[w.n(len(w.lps))]
	if n := int64(len(w.reqs[lp])) - w.reqFrom[lp]; n > 4 {
		w.reqFrom[lp] += int64(w.n(int(n/2) + 1))
		for _, r := range w.reqs[lp][:w.reqFrom[lp]] {
			if r.job != nil {
				r.job.trimmed = true
			}
		}
	}
}

// trim moves the start of a token log, short of a claim that is known from
// nowhere else: the kept days are many, and commits are made every few seconds.
func (w *world) trim(p int32, to int64) {
	for o := w.tokFrom[p]; o < to; o++ {
		v := &w.tokens[p][o].view
		if v.Type == event.LaneClaimed && v.Epoch > metadata(w.commits[LP{v.Lane, p}]).Epoch {
			return
		}
		w.tokFrom[p] = o + 1
	}
}

// The group's coordinator.

func (w *world) living() (out []*proc) {
	for _, p := range w.procs {
		if p.alive {
			out = append(out, p)
		}
	}
	return out
}

func (w *world) anyMember(but *proc) *proc {
	var out []*proc
	for _, p := range w.procs {
		if p.alive && p.member && p != but {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out[w.n(len(out))]
}

func (w *world) spawn() *proc {
	p := newProc(w, "owner-"+strconv.Itoa(w.names))
	w.names++
	w.procs = append(w.procs, p)
	for i, old := range w.procs {
		if !old.alive && len(w.procs) > 4 && !old.member {
			w.procs = append(w.procs[:i:i], w.procs[i+1:]...)
			break
		}
	}
	for _, lp := range w.lps {
		if o := w.owner[lp]; o == nil {
			w.assign(lp, p)
		}
	}
	return p
}

func (w *world) assign(lp LP, to *proc) {
	if to == nil || !to.alive || !to.member {
		to = w.anyMember(nil)
	}
	w.owner[lp] = to
	if to == nil {
		return
	}
	c := w.commits[lp]
	to.groupQ = append(to.groupQ, &groupEvent{kind: assignedEvent, lp: lp, next: c.Next, metadata: c.Metadata})
}

// move hands a LP over in order: its owner is asked first.
func (w *world) move(lp LP, to *proc) {
	from := w.owner[lp]
	if _, busy := w.moving[lp]; busy || to == nil || from == to {
		return
	}
	if from == nil || !from.member {
		w.assign(lp, to)
		return
	}
	if from.undeliver(lp) {
		w.assign(lp, to)
		return
	}
	w.moving[lp] = to
	from.stopFetch(lp)
	from.groupQ = append(from.groupQ, &groupEvent{kind: revokedEvent, lp: lp})
}

// released ends a hand-over.
func (w *world) released(p *proc, lp LP) {
	if to, ok := w.moving[lp]; ok && w.owner[lp] == p {
		delete(w.moving, lp)
		w.assign(lp, to)
	}
}

// evict removes a member: its LPs are others' at once, and it does not know.
func (w *world) evict(p *proc) {
	if !p.member {
		return
	}
	to := w.anyMember(p)
	if to == nil {
		return
	}
	p.member = false
	for _, lp := range w.lps {
		if w.owner[lp] == p {
			delete(w.moving, lp)
			w.assign(lp, w.anyMember(p))
		}
	}
}

// calm ends all faults, and waits for everything to end.
func (w *world) calm() {
	for _, p := range w.procs {
		if !p.alive {
			w.evict(p)
		}
		p.stalled, p.muted = time.Time{}, [actions]time.Time{}
	}
	if len(w.living()) == 0 {
		w.spawn()
	}
	for _, p := range w.procs {
		p.notice()
		if !p.alive {
			w.evict(p)
		}
	}
	for lp, to := range w.moving {
		delete(w.moving, lp)
		w.assign(lp, to)
	}
	for _, lp := range w.lps {
		if o := w.owner[lp]; o == nil || !o.alive {
			w.assign(lp, nil)
		}
	}
	w.faults = 0
	const rounds = 6000
	for range rounds {
		w.now = w.now.Add(5 * time.Millisecond)
		for _, p := range w.living() {
			p.everything()
		}
		if w.wrong != nil || w.allDone() {
			return
		}
	}
	w.fail("%w: %s%s", errNoEnd, w.undone(), w.story(w.lps[0]))
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

func seedRun(seed uint64, s scenario) error {
	r := rand.New(rand.NewPCG(seed, 0))
	s.steps, s.requests, s.faults = 300+r.IntN(4000), 10+r.IntN(50), 10+r.IntN(60)
	return simulate(seeded{r}, s)
}

// runs is how many seeds are tried: PENSTOCK_SIM_RUNS makes it a long search.
func runs(t *testing.T, usual int) uint64 {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv("PENSTOCK_SIM_RUNS")); err == nil {
		return uint64(n)
	}
	return uint64(usual)
}

func TestSimulationOfManySeeds(t *testing.T) {
	t.Parallel()
	for seed := range runs(t, 150) {
		if err := seedRun(seed, scenario{}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestSimulationWithRetention(t *testing.T) {
	t.Parallel()
	for seed := range runs(t, 150) {
		if err := seedRun(seed+1e9, scenario{retention: true}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestSimulationFindsEveryBrokenRule(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]rules{
		"fence":       {noFence: true},
		"readback":    {noReadBack: true},
		"lease":       {noLease: true},
		"wait":        {noWait: true},
		"hold":        {noHold: true},
		"bound":       {highBound: true},
		"recallfence": {noRecallFence: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20_000) {
				err := seedRun(seed, scenario{rules: broken})
				if err != nil && !errors.Is(err, errNoEnd) {
					t.Logf("found by seed %d: %v", seed, err)
					return
				}
			}
			t.Fatal("a broken rule was not found out")
		})
	}
}
