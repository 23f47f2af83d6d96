package gateway

import (
	"bytes"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/kafka"
)

// noted is a listener that counts.
type noted struct{ rings int }

func (n *noted) ring() { n.rings++ }

// log writes records to a partition of a gateway without a Kafka.
type madeLog struct {
	gw   *Gateway
	next int64
	seqs map[string]int64
}

func newMadeLog(cfg Config) *madeLog {
	cfg.Partitions = 1
	gw := newGateway(cfg, still{}, func(kafka.TailConfig) (Tail, error) { return still{}, nil })
	return &madeLog{gw: gw, seqs: map[string]int64{}}
}

// add has the tail bring a delta of each job named, in one segment.
func (l *madeLog) add(t *testing.T, epoch int64, jobs ...string) {
	t.Helper()
	c := kafka.Chunk{From: l.next}
	for _, id := range jobs {
		tenant := "default"
		if id == "theirs" {
			id, tenant = "shared", "other"
		}
		h := event.Head{
			Type: event.OutputDelta, V: 1, Time: time.Unix(1000, 0), Tenant: tenant, Job: id, Attempt: 1,
			Seq: l.seqs[tenant+id], Lane: event.Standard, Epoch: epoch,
		}
		l.seqs[tenant+id]++
		c.Records = append(c.Records, event.Record{Offset: l.next, LeaderEpoch: 3, Value: event.Append(nil, &h, []byte(`{"index":0,"content":" `+tenant+`"}`))})
		l.next++
	}
	c.Next = l.next
	l.gw.hub.take(t.Context(), l.gw.hub.tail, &c)
}

// watch begins a subscription's feed.
func (l *madeLog) watch(t *testing.T, tenant, id, name string) (*jobFeed, *envelope) {
	t.Helper()
	out := &envelope{buffers: &l.gw.sockets.buffers, now: time.Now, sub: []byte(name), gaps: l.gw.metrics.gaps.WithLabelValues(gapUnreadable), credit: -1}
	f := &jobFeed{out: out}
	f.tenant, f.id = tenant, id
	if err := f.open(t.Context(), l.gw, nil, ""); err != nil {
		t.Fatal(err)
	}
	f.reader.near = true
	return f, out
}

func poll(t *testing.T, f *jobFeed) {
	t.Helper()
	if wait, err := f.poll(t.Context()); err != nil || wait == nil {
		t.Fatalf("%v, %v: want a wait", wait, err)
	}
}

func TestAWatcherIsLeftAsleepByOthersRecords(t *testing.T) {
	l := newMadeLog(Config{BudgetBytes: 4000})
	f, out := l.watch(t, "default", "mine", `"a"`)
	rung := &noted{}
	f.reader.answer(rung)
	poll(t, f)
	l.add(t, 5, "mine", "other")
	if rung.rings != 1 {
		t.Fatalf("rung %d times for its first event", rung.rings)
	}
	poll(t, f) // it has seen its job, and waits for that alone from here on
	out.finish()
	out.reset()
	for range 50 { // far more than the budget holds
		l.add(t, 6, "other", "third")
	}
	if rung.rings != 1 {
		t.Errorf("rung %d times, of others' events", rung.rings)
	}
	l.add(t, 6, "other", "mine", "mine")
	l.add(t, 6, "mine")
	if rung.rings != 2 {
		t.Errorf("rung %d times, want once more: it has not looked since", rung.rings)
	}
	poll(t, f) // with near, so an error would say that what it passed was asked for
	if out.finish(); out.records != 3 || f.reader.next != l.next {
		t.Errorf("%d records, at %d of %d", out.records, f.reader.next, l.next)
	}
	if want := (fence.Epochs{event.Standard: 6}); f.reader.filter.Epochs != want || f.reader.leaderEpoch != 3 {
		t.Errorf("it knows %v and leader epoch %d, want %v", f.reader.filter.Epochs, f.reader.leaderEpoch, want)
	}
	f.end()
	l.add(t, 6, "mine")
	if p := l.gw.hub.parts[0]; rung.rings != 2 || len(p.bells) != 0 {
		t.Errorf("%d rings and %d bells of a watcher that left", rung.rings, len(p.bells))
	}
}

func TestWhatIsMadeForSeveralWatchersCountsAgainstTheBudget(t *testing.T) {
	l := newMadeLog(Config{})
	var made [2]*jobFeed
	for i := range made {
		made[i], _ = l.watch(t, "default", "mine", `"a"`)
		defer made[i].end()
		poll(t, made[i])
	}
	before := 0
	for range 2 { // they have seen their job, and then wait for it together
		before = l.gw.hub.bytes
		l.add(t, 5, "mine", "mine")
		for _, f := range made {
			poll(t, f)
		}
	}
	held := l.gw.hub.parts[0].segments[1]
	lent := held.runs[subject{ofJob, "mine"}].shared[formatSocket].Load()
	if lent == nil {
		t.Fatal("nothing was made for both")
	}
	entries, bytes := held.entries, 0
	for i := range entries {
		bytes += len(entries[i].raw) + int(unsafe.Sizeof(entries[i]))
	}
	if bytes += formats * len(lent.bytes); held.bytes < bytes || l.gw.hub.bytes != before+held.bytes {
		t.Errorf("%d bytes are counted, of at least %d", held.bytes, bytes)
	}
}

func TestAnOlderEpochWithinASegmentIsFencedByIndexToo(t *testing.T) {
	l := newMadeLog(Config{})
	f, out := l.watch(t, "default", "mine", `"a"`)
	poll(t, f)
	l.add(t, 7, "other")
	l.add(t, 6, "mine") // of an owner that was fenced by the record before
	poll(t, f)
	if out.records != 0 || f.seen {
		t.Errorf("%d records came through", out.records)
	}
}

func TestOneFrameServesAllWatchersOfAJobOfOneTenant(t *testing.T) {
	l := newMadeLog(Config{})
	type watching struct {
		feed *jobFeed
		out  *envelope
	}
	var all []watching
	for _, w := range [][2]string{{"default", `"a"`}, {"default", `"a"`}, {"default", `"b"`}, {"other", `"a"`}, {"other", `"a"`}} {
		f, out := l.watch(t, w[0], "shared", w[1])
		poll(t, f)
		l.seqs[w[0]+"shared"] = 0
		all = append(all, watching{f, out})
	}
	for round, jobs := range [][]string{{"shared", "theirs", "shared"}, {"shared", "other", "shared"}, {"theirs", "theirs"}} {
		l.add(t, 1, jobs...)
		for i, w := range all {
			poll(t, w.feed)
			w.out.finish()
			got, records := w.out.box.bytes(), [][2]int{{2, 1}, {2, 0}, {0, 2}}[round][i/3]
			if lent := w.out.box.lent != nil; lent != (round == 1 && i == 1 || round == 2 && i == 4) { // one that two tenants have is made for each
				t.Errorf("round %d: whether watcher %d was lent its frame: %v", round, i, lent)
			}
			name := []byte(`"sub":"a"`)
			if i == 2 {
				name = []byte(`"sub":"b"`)
			}
			if n := bytes.Count(got, []byte(" "+w.feed.tenant)); n != records || w.out.records != records || records > 0 && !bytes.Contains(got, name) {
				t.Errorf("round %d: watcher %d got %d of %d records: %s", round, i, n, records, got)
			}
			if w.out.reset(); round == 2 {
				w.feed.end()
			}
		}
	}
}

func TestAFramesHeadHasTheShortestLength(t *testing.T) {
	for _, size := range []int{1, 125, 126, 65535, 65536, 100_000} {
		payload := bytes.Repeat([]byte("x"), size)
		b := appendFrame([]byte("before"), payload)[len("before"):]
		head := map[bool]int{true: 2}[size <= 125]
		switch {
		case size > 65535:
			head = 10
		case size > 125:
			head = 4
		}
		if len(b) != head+size || b[0] != frameText || !bytes.HasSuffix(b, payload) {
			t.Errorf("a frame of %d has %d bytes and begins %x", size, len(b), b[:min(len(b), 10)])
		}
	}
}

func TestAnOutboxGivesAllThatWasPut(t *testing.T) {
	l := newMadeLog(Config{})
	pool := &l.gw.sockets.buffers
	var a, b outbox
	a.lend(pool, []byte("one "))
	b.lend(pool, []byte("two "))
	b.add(pool, []byte("three "))
	a.join(pool, &b)
	a.lend(pool, []byte("four"))
	a.skip(2)
	if got := string(a.bytes()); got != "e two three four" || !b.empty() {
		t.Errorf("%q, and %q is left", got, b.bytes())
	}
	b.join(pool, &a)
	a.lend(pool, []byte("lent"))
	a.skip(1)
	if got := fmt.Sprintf("%s %s", b.bytes(), a.bytes()); got != "e two three four ent" {
		t.Errorf("%q", got)
	}
	if a.reset(pool); !a.empty() {
		t.Error("a reset box holds something")
	}
}

func TestAPumpRunsOneRoundAtATimeAndRestsAfterwards(t *testing.T) {
	c := &crew{limit: 2}
	var rounds []string
	answers := []onward{apart, again, idle, over}
	p := &pump{crew: c}
	p.round = func(alone bool) onward {
		next := answers[0]
		answers = answers[1:]
		rounds = append(rounds, fmt.Sprint(next, alone))
		return next
	}
	p.ring()
	p.work.Wait()
	p.ring()
	p.work.Wait()
	p.ring() // behind its end
	p.work.Wait()
	c.all.Wait()
	if got := fmt.Sprint(rounds); got != fmt.Sprint([]string{"2 false", "1 true", "0 false", "3 false"}) || c.hands != 0 {
		t.Errorf("rounds %v, %d goroutines left", got, c.hands)
	}
}
