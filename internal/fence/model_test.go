package fence_test

import (
	"fmt"
	"hash/maphash"
	"strings"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
)

// rule names one rule of the protocol, so that it can be taken out.
type rule string

const (
	ruleFence      rule = "fence"      // readers drop events of an older epoch
	ruleReadback   rule = "readback"   // a terminal event counts once it was read back
	ruleRefact     rule = "refact"     // a job that has ended in the log gets its fact again
	ruleLease      rule = "lease"      // a job is started under a lease alone
	ruleWait       rule = "wait"       // the leases of those before are waited out
	ruleClaimLease rule = "claimlease" // a claim is made under a lease alone
	ruleVerify     rule = "verify"     // a claim behind another of its epoch is void
	ruleHold       rule = "hold"       // nothing is written between a second claim and its read-back
	ruleCover      rule = "cover"      // a wait covers the epochs known when it began; a newer one begins it anew
	ruleStale      rule = "stale"      // a claim of one's own that lands late does not take the epoch back
)

const (
	maxLog    = 22
	maxOwners = 3
	maxJobs   = 2
	lane      = event.Interactive
)

// model is what is explored, and how far.
type model struct {
	owners, jobs int
	last         int64 // seq 0 is the start, last the terminal event
	lapses       int8  // of a member's lease, which comes back
	fails        int8  // appends of unknown outcome
	release      bool  // owners may let go, which spares the next one the wait; one just has
	rejoin       bool  // a process may lose the partition and be given it again
	fine         bool  // every step of a claim on its own, read record by record
	room         int8  // of the log, where a rule is out and claims have no end; default maxLog
	off          rule

	seed maphash.Seed
	seen map[uint64]struct{}
	path []step
	bad  string
	full bool // the log had no room for what might follow
}

type step struct {
	owner int
	what  string
}

// rec is one record of the token topic: a claim where job is -1.
type rec struct {
	epoch    int64
	seq      int64
	job, who int8
}

// meta is what a commit says.
type meta struct {
	next, bound int8
	epoch       int64
}

// state is a value: two states are the same if they compare as equal.
type state struct {
	log      [maxLog]rec
	n        int8
	facts    uint8 // bit by job
	made     int8
	created  [maxJobs]int8 // end of the log when the job was made
	commit   meta
	pulsed   int64 // newest epoch in a pulse
	released bool  // the owner of that epoch has let go
	ghosts   [2]rec
	lapses   int8
	fails    int8
	owners   [maxOwners]owner
	assigned int8
}

// owner is one life of a lane in a process, as engine's lane.
type owner struct {
	alive, lease, lapsed bool
	name                 int8 // of the process
	since                int8 // how many had been assigned when the wait began
	covered              int64
	waived               int64
	claimer              fence.Claimer
	filter               fence.Filter
	sent                 int8 // 1: a claim is on its way; 2: it is in the log
	epoch                int64
	held, out            bool // writes are held; one that was sent before is on its way
	pos                  int8
	bound                meta
	next                 int8
	past                 [maxJobs]job.Progress
	resume               [maxJobs]bool
	first                [maxJobs]meta // bound and epoch of a job to resume: where its output begins
	running, readBack    bool
	from                 meta
	seq                  int64
	dirty                bool
}

func view(r rec, last int64) event.View {
	v := event.View{Lane: lane, Epoch: r.epoch, Type: event.LaneClaimed}
	if r.job >= 0 {
		v.Seq, v.Attempt = r.seq, 1
		switch r.seq {
		case 0:
			v.Type = event.OutputStarted
		case last:
			v.Type = event.OutputCompleted
		default:
			v.Type = event.OutputDelta
		}
	}
	return v
}

// admit feeds a reader's filter.
func (m *model) admit(f *fence.Filter, v *event.View) bool {
	return f.Admit(v) || m.off == ruleFence && v.Type.Output()
}

// counted tells what a reader counts of a job that begins at start with no history.
func (m *model) counted(s *state, j, start int8) (seqs [maxLog]int64, n int, p job.Progress) {
	var f fence.Filter
	for _, r := range s.log[start:s.n] {
		v := view(r, m.last)
		if m.admit(&f, &v) && r.job == j {
			seqs[n] = r.seq
			n++
			p.Apply(&v)
		}
	}
	return seqs, n, p
}

// check says which promise a state breaks.
func (m *model) check(s *state) string {
	for j := range s.made {
		seqs, n, p := m.counted(s, j, 0)
		for i := range n {
			if seqs[i] != int64(i) {
				return fmt.Sprintf("job %d: a reader from the start sees seqs %v", j, seqs[:n])
			}
		}
		late, k, _ := m.counted(s, j, s.created[j])
		if k != n || late != seqs {
			return fmt.Sprintf("job %d: a reader from its creation at %d sees seqs %v, one from the start %v", j, s.created[j], late[:k], seqs[:n])
		}
		fact := s.facts&(1<<j) != 0
		if fact && p.End == "" {
			return fmt.Sprintf("job %d: a fact without a terminal event", j)
		}
		if s.commit.next > j && (p.End == "" || !fact) {
			return fmt.Sprintf("job %d: committed without its terminal event or its fact", j)
		}
	}
	return ""
}

// run searches all states that can be reached, and returns what is wrong with
// one of them and how it came about.
func (m *model) run() string {
	m.seed, m.seen = maphash.MakeSeed(), map[uint64]struct{}{}
	if m.room == 0 {
		m.room = maxLog
	}
	start := state{}
	if m.release {
		start.append(rec{epoch: 1, job: -1, who: -1})
		start.pulsed, start.released = 1, true
	}
	m.visit(&start, step{}, true)
	return m.bad
}

// visit goes on from a state that was reached by a step. news tells whether
// anything changed that check looks at.
func (m *model) visit(s *state, how step, news bool) {
	h := maphash.Comparable(m.seed, *s)
	if _, ok := m.seen[h]; ok || m.bad != "" {
		return
	}
	m.seen[h] = struct{}{}
	if s.n >= m.room {
		m.full = true
		return
	}
	m.path = append(m.path, how)
	bad, after := "", 0
	if news {
		bad = m.check(s)
	}
	if bad == "" {
		m.steps(s, func(next *state, how step) {
			after++
			news := next.n != s.n || next.made != s.made || next.facts != s.facts || next.commit != s.commit
			m.visit(next, how, news)
		})
		if after == 0 && m.bad == "" && s.facts != 1<<m.jobs-1 {
			bad = "nobody goes on, and a job has no end"
		}
	}
	if bad != "" && m.bad == "" {
		m.bad = bad + "\n" + m.story(s)
	}
	m.path = m.path[:len(m.path)-1]
}

func (m *model) story(s *state) string {
	var b strings.Builder
	for _, p := range m.path[1:] {
		fmt.Fprintf(&b, "  %d %s\n", p.owner, p.what)
	}
	b.WriteString("log:")
	for _, r := range s.log[:s.n] {
		if r.job < 0 {
			fmt.Fprintf(&b, " claim(%d by %d)", r.epoch, r.who)
		} else {
			fmt.Fprintf(&b, " %d:job%d/%d", r.epoch, r.job, r.seq)
		}
	}
	fmt.Fprintf(&b, "\nfacts %b, committed %+v, created at %v", s.facts, s.commit, s.created[:s.made])
	return b.String()
}

func (s *state) append(r rec) {
	s.log[s.n] = r
	s.n++
}

// ghost lets a record land at any later time, or never.
func (s *state) ghost(r rec) {
	for i := range s.ghosts {
		if s.ghosts[i] == (rec{}) {
			s.ghosts[i] = r
			if s.ghosts[0].epoch > 0 && s.ghosts[1].epoch > 0 && s.ghosts[1].epoch < s.ghosts[0].epoch {
				s.ghosts[0], s.ghosts[1] = s.ghosts[1], s.ghosts[0]
			}
			return
		}
	}
	panic("more ghosts than the model has room for")
}

func (s *state) haunted() bool { return s.ghosts[0].epoch > 0 && s.ghosts[1].epoch > 0 }
