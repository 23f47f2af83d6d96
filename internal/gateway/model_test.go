package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// TestEveryStreamIsAFoldOfTheLog has owners write jobs, lose their partitions, and
// write on as zombies, while Kafka fails and watchers subscribe, give credit, and
// are cut off. In the end each of the watchers' streams has to be what a fold of
// the log gives: every event that the fence lets through once, in order, and
// snapshots of the text up to there.
//
// PENSTOCK_MODEL_RUNS says how many seeds are tried (make model), each then at
// length, and PENSTOCK_MODEL_SEED where they begin. A seed fixes what is done, but not what
// meets what: a failure may need several runs to come again.
func TestEveryStreamIsAFoldOfTheLog(t *testing.T) {
	t.Parallel()
	first, runs, steps := uint64(1), uint64(3), 120
	if n, err := strconv.ParseUint(os.Getenv("PENSTOCK_MODEL_RUNS"), 10, 64); err == nil {
		runs, steps = n, 400
	}
	if n, err := strconv.ParseUint(os.Getenv("PENSTOCK_MODEL_SEED"), 10, 64); err == nil {
		first = n
	}
	for seed := first; seed < first+runs; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, seed)
			for range steps {
				m.step()
			}
			m.finish()
		})
	}
}

// modelPartition is where everything happens.
const modelPartition = 1

// model is a partition, those who write to it, and those who watch it. All that is
// done is done by the test's goroutine.
type model struct {
	*ground
	rnd     *rand.Rand
	flaky   *flaky
	failing atomic.Int32 // of a hundred reads from Kafka

	conversation string
	epoch        int64
	jobs         int
	running      []*author

	watchers []*modelWatcher
	subs     []*modelSub // of all watchers, from the first on
	calm     bool        // new subscriptions need no credit
}

func newModel(t *testing.T, seed uint64) *model {
	t.Helper()
	m := &model{rnd: rand.New(rand.NewPCG(seed, 1)), conversation: conversationIn(modelPartition), epoch: 1}
	m.ground, m.flaky = shaken(t, Config{
		BudgetBytes:  oneOf(m, 1, 3000, 20000, 1<<20),
		CatchUpBytes: oneOf[int32](m, 1, 1000, 256<<10),
		Linger:       20 * time.Millisecond,
	})
	m.flaky.set(func(int64) error {
		if rand.Int32N(100) < m.failing.Load() {
			return errAway
		}
		return nil
	})
	m.claim(modelPartition, event.Standard, m.epoch)
	for range 3 {
		w := &modelWatcher{m: m, conn: m.dial(), subs: map[string]*modelSub{}}
		m.watchers = append(m.watchers, w)
		w.add(m.ofPartition())
		w.add(m.ofConversation())
		w.listen()
	}
	return m
}

func oneOf[T any](m *model, of ...T) T { return of[m.rnd.IntN(len(of))] }

func (m *model) coin() bool { return m.rnd.IntN(2) == 0 }

// What can be subscribed to, as it stands in a subscribe frame.

func (*model) ofPartition() string {
	return fmt.Sprintf(`"topic":"tokens","partition":%d`, modelPartition)
}

func (m *model) ofConversation() string { return `"conversation":"` + m.conversation + `"` }

func (*model) ofJob(id string) string {
	return fmt.Sprintf(`"partition":%d,"job":"%s"`, modelPartition, id)
}

// step does one thing.
func (m *model) step() {
	switch n := m.rnd.IntN(30); {
	case n < 3:
		m.begin()
	case n < 15:
		m.say()
	case n < 17:
		m.end()
	case n < 18:
		m.takeOver()
	case n < 19:
		select {
		case m.flaky.faults <- kafka.Chunk{Partition: modelPartition, Err: oneOf(m, kafka.ErrTruncated, nil, errors.New("test"))}:
		default: // enough of them wait
		}
	case n < 20:
		m.failing.Store(oneOf[int32](m, 0, 0, 0, 20))
	case n < 21:
		oneOf(m, m.watchers...).rejoin()
	case n < 26:
		oneOf(m, m.watchers...).giveCredit()
	default:
		oneOf(m, m.watchers...).listen()
	}
}

// begin starts a job, in the conversation where that has none that runs. Where it
// has, some are cancelled before their turn comes.
func (m *model) begin() {
	conversation := ""
	if m.coin() {
		conversation = m.conversation
	}
	if conversation != "" && m.talking() {
		for range m.rnd.IntN(maxTracked) {
			m.job(conversation).write(event.OutputCancelled, event.Stopped{})
		}
		return
	}
	a := m.job(conversation)
	for _, w := range m.watchers {
		if m.coin() {
			w.add(m.ofJob(a.head.Job))
		}
	}
	a.request(event.Standard)
	m.running = append(m.running, a)
	a.started()
}

// job is one more, of a conversation or of none.
func (m *model) job(conversation string) *author {
	a := m.authorOf(fmt.Sprint("j", m.jobs), modelPartition)
	m.jobs++
	a.head.Epoch, a.head.Conversation = m.epoch, conversation
	return a
}

// talking tells whether a job of the conversation runs.
func (m *model) talking() bool {
	return slices.ContainsFunc(m.running, func(a *author) bool { return a.head.Conversation == m.conversation })
}

// say writes a batch of a job's deltas.
func (m *model) say() {
	if len(m.running) == 0 {
		return
	}
	a := oneOf(m, m.running...)
	var recs []event.Record
	for range 1 + m.rnd.IntN(8) {
		text := strings.Repeat(string(rune('a'+m.rnd.IntN(26))), m.rnd.IntN(300))
		recs = append(recs, a.next(event.OutputDelta, event.Delta{Content: text}))
	}
	m.append(recs...)
	if m.rnd.IntN(8) == 0 { // its producer could not tell, and wrote them again
		m.append(recs...)
	}
}

func (m *model) end() {
	if len(m.running) == 0 {
		return
	}
	i := m.rnd.IntN(len(m.running))
	m.running[i].complete()
	m.running = append(m.running[:i], m.running[i+1:]...)
}

// takeOver gives the partition to another owner, who goes on with the jobs or
// begins them anew. The old one may not know yet.
func (m *model) takeOver() {
	m.epoch++
	m.claim(modelPartition, event.Standard, m.epoch)
	for _, a := range m.running {
		zombie := *a
		if m.coin() {
			zombie.say("zombie")
		}
		a.head.Epoch = m.epoch
		if m.coin() {
			a.write(event.OutputSuperseded, event.Superseded{Reason: "test"})
			a.head.Attempt++
		}
		if m.coin() {
			zombie.say("zombie")
		}
	}
}

// finish lets everything end well, and holds the streams to the log.
func (m *model) finish() {
	for _, a := range m.running {
		a.complete()
	}
	m.calm = true
	m.failing.Store(0)
	want := m.fold()
	for _, w := range m.watchers {
		w.await(want)
	}
	for _, s := range m.subs {
		want.check(m, s)
	}
}
