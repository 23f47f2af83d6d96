package gateway

import (
	"fmt"
	"strings"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// modelWatcher is a WebSocket of the model, and what is subscribed to on it.
type modelWatcher struct {
	m     *model
	conn  *wsClient
	subs  map[string]*modelSub // by the name on this connection
	names int
}

// modelSub is one stream of a watcher, over all connections that it has had.
type modelSub struct {
	what   string // of a subscribe frame
	name   string
	cursor string // behind what it has got
	credit int    // that is left; -1: without a limit
	ended  bool

	from      int // the got stand behind so many of the stream's events
	got       []string
	snapshot  bool             // one was asked for, and may come
	snapshots map[int64]string // the texts by their last seq
}

// add subscribes to something for the first time.
func (w *modelWatcher) add(what string) {
	s := &modelSub{what: what}
	w.m.subs = append(w.m.subs, s)
	w.subscribe(s)
}

// subscribe subscribes where the stream stood, or with a snapshot.
func (w *modelWatcher) subscribe(s *modelSub) {
	w.names++
	s.name, s.credit, s.snapshot = fmt.Sprint("s", w.names), -1, false
	more := ""
	if !w.m.calm && w.m.coin() {
		s.credit = 1 + w.m.rnd.IntN(10)
		more = fmt.Sprintf(`,"credit":%d`, s.credit)
	}
	switch {
	case strings.Contains(s.what, `"job"`) && w.m.rnd.IntN(3) == 0:
		s.snapshot = true
		more += `,"snapshot":true`
	case s.cursor != "":
		more += `,"cursor":"` + s.cursor + `"`
	}
	w.subs[s.name] = s
	w.conn.say(`{"op":"subscribe","sub":"` + s.name + `",` + s.what + more + `}`)
}

// rejoin cuts the connection, and goes on over another.
func (w *modelWatcher) rejoin() {
	w.conn.close()
	w.conn = w.m.dial()
	old := w.subs
	w.subs = map[string]*modelSub{}
	for _, s := range old {
		if !s.ended {
			w.subscribe(s)
		}
	}
}

// giveCredit gives some of the streams that need it some more.
func (w *modelWatcher) giveCredit() {
	for _, s := range w.subs {
		if w.m.coin() {
			w.give(s, 1+w.m.rnd.IntN(20))
		}
	}
}

func (w *modelWatcher) give(s *modelSub, n int) {
	if s.credit < 0 || s.ended {
		return
	}
	s.credit += n
	w.conn.say(fmt.Sprintf(`{"op":"credit","sub":"%s","n":%d}`, s.name, n))
}

// listen takes what is ready: the answer to a ping comes behind it.
func (w *modelWatcher) listen() {
	w.conn.say(`{"op":"ping","ref":"p"}`)
	for f := w.conn.next(); f.Op != "pong"; f = w.conn.next() {
		w.take(f)
	}
}

// take takes a frame in.
func (w *modelWatcher) take(f gotFrame) {
	s := w.subs[f.Sub]
	switch {
	case f.Op == "subscribed" && s.cursor == "":
		s.cursor = f.Cursor
	case f.Op == "subscribed":
	case f.Op == "events":
		s.take(w.m, f)
	case f.Op == "end":
		s.ended = true
	case f.Op == "error" && strings.Contains(f.Message, "there is no subscription"): // credit for one that has just ended
	case f.Op == "error" && f.Code == fault.Unavailable && s != nil:
		delete(w.subs, s.name)
		w.subscribe(s)
	default:
		w.m.Fatalf("got %.300s", f.raw)
	}
}

// take takes a frame of events in.
func (s *modelSub) take(m *model, f gotFrame) {
	for _, e := range f.list(m) {
		switch {
		case e.Type == streamSnapshot && s.snapshot:
			if s.snapshots == nil {
				s.snapshots = map[int64]string{}
			}
			s.snapshots[e.Data.ThroughSeq] = e.Data.Text
			s.snapshot, s.got, s.from = false, nil, int(e.Data.ThroughSeq)+1
			if s.credit >= 0 {
				s.credit++ // it costs none
			}
		case e.Type == streamGap || e.Type == streamSnapshot:
			m.Fatalf("%s: nothing is missing, but it got %.300s", s.what, e.data)
		default:
			s.got = append(s.got, lineOf(e.Type, e.Job, e.Seq, e.Epoch))
		}
	}
	s.cursor = f.Cursor
	if s.credit < 0 {
		return
	}
	if s.credit -= len(f.Events); s.credit < 0 {
		m.Fatalf("%s: more came than there was credit for: %.300s", s.what, f.raw)
	}
}

// await listens until every stream has as much as it should.
func (w *modelWatcher) await(want *modelFold) {
	for _, s := range w.subs {
		w.give(s, 100_000)
	}
	for {
		var behind []string
		for _, s := range w.subs {
			if has, all := s.from+len(s.got), len(want.streams[s.what]); has < all {
				behind = append(behind, fmt.Sprintf("%s has %d of %d", s.what, has, all))
			}
		}
		if behind == nil {
			break
		}
		f, err := w.conn.try()
		if err != nil {
			w.m.Fatalf("%v, and %s", err, strings.Join(behind, "; "))
		}
		w.take(f)
	}
	w.listen() // what would be too much
}

// lineOf is an event in short.
func lineOf(t event.Type, id string, seq, epoch int64) string {
	return fmt.Sprint(t, " of ", id, ", seq ", seq, ", epoch ", epoch)
}

// modelFold is what the log comes to.
type modelFold struct {
	streams map[string][]string // the events by what is subscribed to
	texts   map[string][]string // of a job, by seq
}

// fold reads the log from its start, without the gateway.
func (m *model) fold() *modelFold {
	m.Helper()
	f := &modelFold{streams: map[string][]string{}, texts: map[string][]string{}}
	folds := map[string]*job.Transcript{}
	var filter fence.Filter
	add := func(what, line string) { f.streams[what] = append(f.streams[what], line) }
	tp := kafka.TopicPartition{Topic: m.names.Tokens(), Partition: modelPartition}
	for recs, err := range m.cluster.Scan(m.Context(), tp, 0, endOf(m.ground, modelPartition)) {
		m.no(err)
		for i := range recs {
			v, err := event.ScanHead(recs[i].Value)
			m.no(err)
			if !filter.Admit(&v) {
				continue
			}
			line, what := lineOf(v.Type, string(v.Job), v.Seq, v.Epoch), m.ofJob(string(v.Job))
			add(m.ofPartition(), line)
			if !v.Type.Output() || v.Seq != int64(len(f.texts[what])) {
				continue
			}
			if folds[what] == nil {
				folds[what] = &job.Transcript{}
			}
			m.no(folds[what].Apply(&v))
			f.texts[what] = append(f.texts[what], folds[what].Text())
			add(what, line)
			if string(v.Conversation) == m.conversation {
				add(m.ofConversation(), line)
			}
		}
	}
	return f
}

// check holds a stream to the fold.
func (f *modelFold) check(m *model, s *modelSub) {
	m.Helper()
	want := f.streams[s.what][s.from:]
	for i := range max(len(want), len(s.got)) {
		if i >= len(want) || i >= len(s.got) || want[i] != s.got[i] {
			m.Errorf("%s: event %d of %d differs, of %d wanted: got %q, want %q", s.what, i, len(s.got), len(want),
				s.got[min(i, len(s.got)):min(len(s.got), i+3)], want[min(i, len(want)):min(len(want), i+3)])
			break
		}
	}
	for through, text := range s.snapshots {
		if through >= 0 && text != f.texts[s.what][through] {
			m.Errorf("%s: the snapshot through seq %d has %d bytes, want %d", s.what, through, len(text), len(f.texts[s.what][through]))
		}
	}
}
