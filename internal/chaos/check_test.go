package chaos

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// story is a hand-made history of one job, in one lane of one partition.
type story struct {
	History
	reader *Reader
	id     string
	seq    int64
	tries  int
	epoch  int64
	clock  time.Time
}

// newStory is of a job that was accepted, and of which nothing is known yet.
func newStory() *story {
	s := &story{
		id: "job_1", tries: 1, epoch: 1, clock: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC),
		reader: &Reader{Who: "a client", Job: "job_1"},
	}
	s.History = History{
		Jobs: []*Job{{ID: s.id, Accepted: true, Want: "ab"}}, Readers: []*Reader{s.reader},
		Live: NewLog(), Log: NewLog(), Facts: NewFacts(), Rows: map[string]Row{},
	}
	s.claim("first")
	return s
}

// record appends a record to the log, which the live reader sees as well.
func (s *story) record(h event.Head, payload any) {
	h.V, h.Time, h.Lane = event.Version, s.clock, event.Standard
	value := event.Append(nil, &h, event.Encode(payload))
	s.Log.Take(0, value)
	s.Live.Take(0, value)
	s.clock = s.clock.Add(time.Millisecond)
}

func (s *story) claim(owner string) {
	s.record(event.Head{Type: event.LaneClaimed, Epoch: s.epoch}, event.Claim{Owner: owner})
}

// write appends an event of the job to the log, of a seq and an epoch.
func (s *story) write(t event.Type, seq, epoch int64, payload any) {
	s.record(event.Head{Type: t, Job: s.id, Attempt: s.tries, Seq: seq, Epoch: epoch}, payload)
}

// show has the client get an event of the job.
func (s *story) show(t event.Type, seq int64, payload any) {
	h := event.Head{Type: t, V: event.Version, Time: s.clock, Job: s.id, Attempt: s.tries, Seq: seq, Lane: event.Standard, Epoch: s.epoch}
	v, err := event.ScanHead(event.Append(nil, &h, event.Encode(payload)))
	if err != nil {
		panic(err)
	}
	s.reader.Take(&v, s.clock)
}

// tell has the log and the client get the job's next event.
func (s *story) tell(t event.Type, payload any) {
	s.show(t, s.seq, payload)
	s.write(t, s.seq, s.epoch, payload)
	s.seq++
}

func (s *story) say(text string) { s.tell(event.OutputDelta, event.Delta{Content: text}) }

// end ends the job, and writes its fact and its row.
func (s *story) end(t event.Type, payload any) {
	at := s.clock
	s.tell(t, payload)
	s.settle(s.Log.jobs[s.id].text.String(), t, at)
}

// facts are the terminal facts of ends.
func factOf(t event.Type) event.Type {
	return map[event.Type]event.Type{
		event.OutputCompleted: event.JobCompleted, event.OutputFailed: event.JobFailed, event.OutputCancelled: event.JobCancelled,
	}[t]
}

func (s *story) settle(text string, t event.Type, at time.Time) {
	h := event.Head{Type: factOf(t), V: event.Version, Time: at, Job: s.id, Attempt: s.tries, Lane: event.Standard}
	data := event.Fact{Output: []event.OutputChoice{{Message: event.Message{Content: text}}}}
	if t == event.OutputFailed {
		data, text = event.Fact{}, ""
	}
	s.Facts.Take(event.Append(nil, &h, event.Encode(data)))
	s.Rows[s.id] = Row{Status: job.StatusOf(t), Attempt: s.tries, EndedAt: at, Text: text}
}

// whole is a job that went well.
func whole() *story {
	s := newStory()
	s.tell(event.OutputStarted, event.Started{Model: "m"})
	s.say("a")
	s.say("b")
	s.end(event.OutputCompleted, event.Completed{})
	return s
}

func TestGoodHistoriesArePassed(t *testing.T) {
	resumed := newStory()
	resumed.tell(event.OutputStarted, event.Started{})
	resumed.say("a")
	resumed.epoch++
	resumed.claim("second")
	resumed.write(event.OutputDelta, 2, 1, event.Delta{Content: "zombie"}) // fenced, and shown to nobody
	resumed.say("b")
	resumed.end(event.OutputCompleted, event.Completed{})

	superseded := newStory()
	superseded.tell(event.OutputStarted, event.Started{})
	superseded.say("a")
	superseded.epoch++
	superseded.claim("second")
	superseded.tell(event.OutputSuperseded, event.Superseded{})
	superseded.tries++
	superseded.tell(event.OutputStarted, event.Started{})
	superseded.say("ab")
	superseded.end(event.OutputCompleted, event.Completed{})

	cancelled := newStory()
	cancelled.Jobs[0].MayCancel = true
	cancelled.tell(event.OutputStarted, event.Started{})
	cancelled.say("a")
	cancelled.end(event.OutputCancelled, struct{}{})

	unwatched := newStory()
	unwatched.end(event.OutputCompleted, event.Completed{Deltas: []event.Delta{{Content: "a"}, {Content: "b"}}})

	unclear := newStory()
	unclear.Jobs[0].Accepted, unclear.Readers = false, nil

	for name, c := range map[string]struct {
		*story
		superseded, resumed, fenced, completed int
	}{
		"whole": {whole(), 0, 0, 0, 1}, "resumed": {resumed, 0, 1, 1, 1}, "superseded": {superseded, 1, 0, 0, 1},
		"cancelled": {cancelled, 0, 0, 0, 0}, "unwatched": {unwatched, 0, 0, 0, 1}, "nobody knows of it": {unclear, 0, 0, 0, 0},
	} {
		v := Check(&c.History)
		if v.Lost+v.Repeated != 0 || v.Superseded != c.superseded || v.Resumed != c.resumed || v.Fenced != c.fenced || v.Completed != c.completed {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestEveryBrokenPromiseIsFound(t *testing.T) {
	begun := func() *story {
		s := newStory()
		s.tell(event.OutputStarted, event.Started{})
		s.say("a")
		return s
	}
	finish := func(s *story) {
		s.say("b")
		s.end(event.OutputCompleted, event.Completed{})
	}
	for name, c := range map[string]struct {
		kind Kind
		what string // that the violation says
		make func() *story
	}{
		"accepted, and nothing of it": {Lost, "the log holds nothing", func() *story { s := newStory(); s.Readers = nil; return s }},
		"no end":                      {Lost, "no end in the log", begun},
		"no fact": {Lost, "no fact says so", func() *story {
			s := whole()
			s.Facts = NewFacts()
			return s
		}},
		"no row":      {Lost, "no row", func() *story { s := whole(); s.Rows = nil; return s }},
		"another row": {Repeated, "its row is not", func() *story { s := whole(); s.Rows[s.id] = Row{Status: job.Running}; return s }},
		"another text": {Lost, "the log's text differs", func() *story {
			s := whole()
			s.Jobs[0].Want = "abc"
			return s
		}},
		"an end alone that says less": {Lost, "the log's text differs", func() *story {
			s := newStory()
			s.end(event.OutputCompleted, event.Completed{Deltas: []event.Delta{{Content: "a"}}})
			return s
		}},
		"a failure": {Lost, "it failed: provider_error", func() *story {
			s := begun()
			s.end(event.OutputFailed, event.Failed{Code: "provider_error"})
			return s
		}},
		"a cancel of nobody's": {Lost, "nobody asked", func() *story { s := begun(); s.end(event.OutputCancelled, struct{}{}); return s }},
		"a cancelled one that says something else": {Lost, "before the cancel", func() *story {
			s := begun()
			s.Jobs[0].MayCancel, s.Jobs[0].Want = true, "xy"
			s.end(event.OutputCancelled, struct{}{})
			return s
		}},
		"a hole in the log": {Lost, "in the log, unfenced, output.delta", func() *story {
			s := begun()
			s.seq++
			finish(s)
			return s
		}},
		"an event twice in the log": {Repeated, "in the log, unfenced", func() *story {
			s := begun()
			s.write(event.OutputDelta, 1, 1, event.Delta{Content: "a"})
			finish(s)
			return s
		}},
		"a second end": {Repeated, "after the end", func() *story {
			s := whole()
			s.write(event.OutputCompleted, 4, 1, event.Completed{})
			return s
		}},
		"a fact of a zombie's": {Repeated, "a fact is not what the log says", func() *story {
			s := whole()
			row := s.Rows[s.id]
			s.settle("ab", event.OutputCompleted, s.clock.Add(time.Second))
			s.Rows[s.id] = row
			return s
		}},
		"an attempt that nothing superseded": {Repeated, "nothing had superseded", func() *story {
			s := begun()
			s.tries++
			finish(s)
			return s
		}},
		"a client that gets an event twice": {Repeated, "a client: output.delta", func() *story {
			s := begun()
			s.show(event.OutputDelta, 1, event.Delta{Content: "a"})
			finish(s)
			return s
		}},
		"a client that misses an event": {Lost, "a client: output.completed (attempt 1, seq 3) came, where seq 2", func() *story {
			s := begun()
			s.write(event.OutputDelta, 2, 1, event.Delta{Content: "b"})
			s.seq++
			s.end(event.OutputCompleted, event.Completed{})
			return s
		}},
		"a client that gets a zombie's text": {Lost, "a client's text differs", func() *story {
			s := begun()
			s.show(event.OutputDelta, 2, event.Delta{Content: "x"})
			s.write(event.OutputDelta, 2, 1, event.Delta{Content: "b"})
			s.seq++
			s.end(event.OutputCompleted, event.Completed{})
			return s
		}},
		"a client that sees no end": {Lost, "did not see its end", func() *story {
			s := whole()
			s.Readers = []*Reader{{Who: "a client", Job: s.id}}
			return s
		}},
		"a client that sees another end": {Lost, "saw it end as", func() *story {
			s := begun()
			s.Readers = []*Reader{{Who: "another", Job: s.id}}
			finish(s)
			s.reader, s.seq, s.tries = s.Readers[0], 0, 1
			s.show(event.OutputCancelled, 0, struct{}{})
			return s
		}},
		"a client that gets another's event": {Lost, "was shown an event of job", func() *story {
			s := whole()
			s.reader.Job = "job_2"
			s.show(event.OutputDelta, 0, event.Delta{})
			return s
		}},
		"a model that is called after the end": {Repeated, "its model was called", func() *story {
			s := whole()
			s.Calls = []Call{{Job: s.id, At: s.clock.Add(time.Second), Caller: "P1"}}
			s.Freezes = []Freeze{{Process: "P2", From: s.clock.Add(-time.Second), To: s.clock.Add(time.Millisecond)}}
			return s
		}},
		"a log that lost what was read": {Lost, "not what a reader saw grow", func() *story {
			s := whole()
			s.Live.Outputs++
			return s
		}},
		"what is no event": {Lost, "what is no event", func() *story {
			s := whole()
			s.Log.Take(0, []byte("{"))
			return s
		}},
		"what is no fact": {Lost, "what is no event", func() *story {
			s := whole()
			s.Facts.Take([]byte("{"))
			return s
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.make()
			v := Check(&s.History)
			count := map[Kind]int{Lost: v.Lost, Repeated: v.Repeated}
			if count[c.kind] == 0 || !strings.Contains(fmt.Sprint(v.Violations), c.what) {
				t.Errorf("%d lost, %d repeated: %v", v.Lost, v.Repeated, v.Violations)
			}
		})
	}
}

func TestACallThatAFreezeHeldUpIsCountedApart(t *testing.T) {
	s := whole()
	s.Calls = []Call{
		{Job: s.id, At: s.clock.Add(-time.Second), Caller: "P1"},
		{Job: s.id, At: s.clock.Add(10 * time.Second), Caller: "P1"},
	}
	s.Freezes = []Freeze{{Process: "P1", From: s.clock.Add(-time.Second), To: s.clock.Add(9 * time.Second)}}
	if v := Check(&s.History); v.ZombieCalls != 1 || v.Repeated != 0 {
		t.Errorf("%+v", v)
	}
}
