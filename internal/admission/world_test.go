package admission

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The lanes of the tests, most urgent first, as they are by default.
const (
	interactive = iota
	standard
	batch
)

func budgets() []Limits {
	return []Limits{{15 * time.Second, 2_000}, {time.Minute, 20_000}, {24 * time.Hour, 100_000}}
}

// world is a log, and an owner of every lane of every partition, who has so many
// calls; each lane's job takes so long.
type world struct {
	board    *Board
	view     *View
	now      time.Time
	slots    int
	took     [3]time.Duration
	dead     map[LP]bool // no owner any more: it falls silent
	lps      map[LP]*lp
	order    []LP
	accepted [3]int64
	running  int
	turn     int
	signal   bool // the ends are known and the pulses read
}

type lp struct {
	end, consumed int64
	arrived       []time.Time     // of what waits
	ends          []time.Time     // of what runs
	waits         []time.Duration // of what was begun
	refused       map[Reason]int
	last          Decision // the last refusal
}

const step = 25 * time.Millisecond

func newWorld(tb testing.TB, partitions, slots int, took time.Duration) *world {
	tb.Helper()
	return newWorldOf(partitions, slots, took)
}

func newWorldOf(partitions, slots int, took time.Duration) *world {
	w := &world{now: time.Unix(1_700_000_000, 0), slots: slots, took: [3]time.Duration{took, took, took}, dead: map[LP]bool{}, lps: map[LP]*lp{}, signal: true}
	var err error
	if w.board, err = NewBoard(Config{Lanes: budgets(), Partitions: partitions}, w.now); err != nil {
		panic(err)
	}
	for lane := range 3 {
		for p := range partitions {
			at := LP{lane, p}
			w.lps[at] = &lp{refused: map[Reason]int{}}
			w.order = append(w.order, at)
		}
	}
	w.assess()
	return w
}

// ask offers n requests.
func (w *world) ask(at LP, n int) {
	for range n {
		l := w.lps[at]
		if d := w.view.Decide(at, l.end, w.accepted[at.Lane], 0); d.Reason != Open {
			l.refused[d.Reason]++
			l.last = d
			if d.Reason == Wait || d.Reason == Outstanding {
				w.board.Crossed(at, d.Reason)
			}
			continue
		}
		l.end++
		w.accepted[at.Lane]++
		l.arrived = append(l.arrived, w.now)
	}
}

func (w *world) assess() {
	for at, l := range w.lps {
		w.board.End(w.now, at, l.end)
	}
	if w.signal {
		w.board.EndsKnown(w.now)
		w.board.PulsesRead(w.now)
	}
	for lane := range 3 {
		w.board.Accepted(w.now, lane, w.accepted[lane])
	}
	w.view = w.board.Assess(w.now)
}

// run lets time pass; each is called at every step.
func (w *world) run(d time.Duration, each func()) {
	for range d / step {
		w.now = w.now.Add(step)
		for _, at := range w.order {
			w.work(at)
		}
		w.begin()
		if each != nil {
			each()
		}
		if w.now.UnixMilli()%250 == 0 {
			w.pulse()
			w.assess()
		}
	}
}

// work ends what is done.
func (w *world) work(at LP) {
	l := w.lps[at]
	if w.dead[at] {
		return
	}
	l.consumed = l.end
	n := 0
	for n < len(l.ends) && !l.ends[n].After(w.now) {
		n++
	}
	l.ends = l.ends[n:]
	w.running -= n
}

// begin starts what waits, all partitions taking turns, by the weights of lanes.
func (w *world) begin() {
	for idle := 0; w.running < w.slots && idle < 13*len(w.order); {
		lane := [13]int{0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 0, 1, 0}[w.turn%13]
		per := len(w.order) / 3
		at := LP{lane, w.turn / 13 % per}
		w.turn++
		l := w.lps[at]
		if w.dead[at] || len(l.arrived) == 0 {
			idle++
			continue
		}
		idle = 0
		l.waits = append(l.waits, w.now.Sub(l.arrived[0]))
		l.arrived = l.arrived[1:]
		l.ends = append(l.ends, w.now.Add(w.took[lane]))
		w.running++
	}
}

// pulse says how all stand, as the engine does.
func (w *world) pulse() {
	for _, at := range w.order {
		if w.dead[at] {
			continue
		}
		l := w.lps[at]
		l.consumed = l.end
		w.board.Pulse(w.now, at, Pulse{
			Epoch: 1, Owner: "o", Consumed: l.consumed, InFlight: len(l.ends) + len(l.arrived),
			Running: len(l.ends), Waiting: len(l.arrived),
		})
	}
}

// refusals are all of a LP.
func (w *world) refusals(at LP) int {
	n := 0
	for _, k := range w.lps[at].refused {
		n += k
	}
	return n
}

// longest is the longest that a request waited that was begun, from the k-th on.
func (w *world) longest(at LP, from int) time.Duration {
	var most time.Duration
	for _, d := range w.lps[at].waits[min(from, len(w.lps[at].waits)):] {
		most = max(most, d)
	}
	return most
}
