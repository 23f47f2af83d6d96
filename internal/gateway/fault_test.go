package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// flaky is a Kafka that a test makes fail.
type flaky struct {
	Log

	mu     sync.Mutex
	fetch  func(from int64) error // nil, or a nil error: as it is
	faults chan kafka.Chunk       // what the tail says next
}

func (f *flaky) Fetch(ctx context.Context, tp kafka.TopicPartition, from int64, n int32, wait time.Duration) (kafka.Fetched, error) {
	f.mu.Lock()
	fail := f.fetch
	f.mu.Unlock()
	if fail != nil {
		if err := fail(from); err != nil {
			return kafka.Fetched{}, err
		}
	}
	return f.Log.Fetch(ctx, tp, from, n, wait)
}

func (f *flaky) set(fetch func(int64) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetch = fetch
}

// flakyTail is a tail that says what a test wants, too.
type flakyTail struct {
	Tail
	f *flaky
}

func (t *flakyTail) Poll(ctx context.Context) ([]kafka.Chunk, error) {
	pctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type polled struct {
		chunks []kafka.Chunk
		err    error
	}
	done := make(chan polled, 1)
	go func() {
		chunks, err := t.Tail.Poll(pctx)
		done <- polled{chunks, err}
	}()
	select {
	case c := <-t.f.faults:
		cancel()
		rest := <-done
		if c.Err == nil {
			return rest.chunks, errAway
		}
		return append(rest.chunks, c), nil
	case p := <-done:
		return p.chunks, p.err
	}
}

// shaken is a ground whose gateway reads a flaky Kafka.
func shaken(t *testing.T, cfg Config) (*ground, *flaky) {
	t.Helper()
	g := onOne(t, cfg)
	g.stop()
	f := &flaky{Log: g.cluster, faults: make(chan kafka.Chunk, 4)}
	g.gateway = newGateway(g.gateway.cfg, f, func(tc kafka.TailConfig) (Tail, error) {
		tail, err := g.cluster.NewTail(tc)
		return &flakyTail{tail, f}, err
	})
	g.run()
	return g, f
}

func TestATailThatStopsIsFollowedAnewAndNothingIsLost(t *testing.T) {
	for name, fault := range map[string]error{
		"truncated": kafka.ErrTruncated, "unknown topic": kafka.ErrUnknownTopic, "the poll fails": nil,
	} {
		t.Run(name, func(t *testing.T) {
			g, f := shaken(t, Config{})
			a := g.author()
			a.started()
			c := g.open(events(a))
			c.must()
			for i := range 5 {
				f.faults <- kafka.Chunk{Partition: a.part, Err: fault}
				a.say(strconv.Itoa(i))
				if e := c.must(); e.Seq != int64(i+1) {
					t.Fatalf("seq %d came, want %d", e.Seq, i+1)
				}
			}
			a.complete()
			if rest := c.rest(); len(rest) != 1 {
				t.Errorf("got %v, want the end", rest)
			}
		})
	}
}

func TestATruncationIsToldInTheStream(t *testing.T) {
	for name, fail := range map[string]error{"the record is gone": kafka.ErrTruncated, "retention took it": &kafka.OutOfRangeError{Earliest: 0}} {
		t.Run(name, func(t *testing.T) {
			g, f := shaken(t, Config{})
			a := g.author()
			a.started()
			a.say("one")
			c := g.open(events(a))
			c.must()
			c.must()
			part := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part))
			part.must()
			part.must()
			truncated := fail == kafka.ErrTruncated //nolint:errorlint // the very value
			f.set(func(int64) error { return fail })
			f.faults <- kafka.Chunk{Partition: a.part, Err: kafka.ErrTruncated}
			for _, c := range []*client{c, part} {
				if !truncated {
					break
				}
				if e := c.must(); e.Data.Reason != gapTruncated {
					t.Errorf("got %s, want a gap for a truncation", e.data)
				}
			}
			f.set(nil)
			a.say("two")
			for _, c := range []*client{c, part} {
				if e := c.must(); e.Seq != 2 {
					t.Errorf("got %s, want seq 2", e.data)
				}
			}
		})
	}
}

// TestATruncationThatTheTailHasNotSeenIsWaitedFor has watchers behind what is in
// memory, who meet it first.
func TestATruncationThatTheTailHasNotSeenIsWaitedFor(t *testing.T) {
	g, f := shaken(t, Config{BudgetBytes: 1})
	a := g.author()
	a.started()
	a.say("one")
	g.open(events(a)).must() // from here on the partition is followed
	var asked atomic.Int32
	f.set(func(int64) error { asked.Add(1); return kafka.ErrTruncated })
	part := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part))
	eventually(t, func() bool { return asked.Load() >= 2 })
	f.set(nil)
	a.say("two")
	a.complete()
	for seq := range 4 {
		if e := part.must(); e.Type == streamGap || e.Seq != int64(seq) {
			t.Fatalf("got %s, want seq %d: nothing is known to be missing", e.data, seq)
		}
	}
}

func TestAStreamThatADefectEndsLeavesNothingBehind(t *testing.T) {
	g, f := shaken(t, Config{BudgetBytes: 1, CatchUpBytes: 100})
	a := g.author()
	a.started()
	for range 6 { // a batch each
		a.say("x")
	}
	a.complete()
	g.open(events(a)).rest() // from here on the partition is followed
	for _, path := range []string{
		fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part), events(a), events(a) + "?snapshot=1",
	} {
		for _, good := range []int{0, 3} { // reads before the one that is its end
			reads := 0
			f.set(func(int64) error {
				if reads++; reads > good {
					panic("a defect")
				}
				return nil
			})
			_, _ = io.Copy(io.Discard, g.open(path).resp.Body) // it breaks off, or is a 500
			f.set(nil)
			eventually(t, func() bool { return g.gateway.door.count() == 0 })
			g.noneLeft()
			if n := len(g.gateway.folding); n != 0 {
				t.Fatalf("%s: %d transcripts are held", path, n)
			}
		}
	}
}

func TestAStreamOutlastsAKafkaThatIsAwayForAWhile(t *testing.T) { //nolint:tparallel // on one broker after the other
	t.Parallel()
	for name, err := range map[string]error{"away": errAway, "breaks off": fmt.Errorf("read from the broker: %w", io.EOF)} {
		t.Run(name, func(t *testing.T) { outlasts(t, err) })
	}
}

func outlasts(t *testing.T, away error) {
	t.Helper()
	g, f := shaken(t, Config{BudgetBytes: 1, CatchUpBytes: 100})
	a := g.author()
	a.started()
	for range 4 {
		a.say("x")
	}
	a.complete()
	var failed atomic.Int32
	f.set(func(from int64) error {
		if from > 0 && failed.Add(1) <= 2 { // the second piece
			return away
		}
		return nil
	})
	c := g.open(events(a))
	seqs(t, c.rest(), 0)

	f.set(func(int64) error { return away })
	g.open(events(a)).status(http.StatusServiceUnavailable) // and not 204, which would say that it is over
	f.set(nil)
	seqs(t, g.open(events(a)).rest(), 0)
}

func TestAJobThatWasMintedByAClockAheadOfOursIsFound(t *testing.T) {
	g := onOne(t, Config{})
	first := g.author()
	first.whole(1)
	g.open(events(first)).rest() // the partition is followed from here on
	id, err := job.Mint(time.Now().Add(time.Minute), conversationIn(first.part), testPartitions, zeros{})
	g.no(err)
	m, _ := job.ParseID(id)
	a := g.authorOf(id, m.Partition)
	ahead := time.Now().Add(time.Minute)
	a.requestAt(event.Standard, ahead)
	var recs []event.Record
	for range 3 {
		recs = append(recs, a.next(event.OutputDelta, event.Delta{Content: "x"}))
	}
	recs = append(recs, a.next(event.OutputCompleted, event.Completed{}))
	for i := range recs {
		recs[i].Time = ahead
	}
	g.append(recs...)
	probe := g.authorOf("probe", a.part)
	sub := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events?offset=latest", a.part))
	probe.started()
	sub.must() // so what was written before is in memory, and the window has moved on
	all := g.open(events(a)).rest()
	seqs(t, all, 0)
	if len(all) != 4 {
		t.Errorf("%d events, want 4", len(all))
	}
	res, err := g.gateway.Lookup().Job(t.Context(), "default", id, nil)
	if err != nil || res.Status != job.Completed {
		t.Errorf("looked up: %v, %v", res, err)
	}
	// Behind the job's end, at a cursor that is not its own.
	e := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events?offset=%d", a.part, endOf(g, a.part)-1)).must()
	g.open(events(a) + "?cursor=" + e.id).status(http.StatusNoContent)
	if e := g.open(events(a) + "?snapshot=1&cursor=" + e.id).must(); e.Type != streamSnapshot && e.Seq != 0 {
		t.Errorf("got %s", e.data)
	}
}

func endOf(g *ground, part int32) int64 {
	g.Helper()
	end, err := g.cluster.Offset(g.Context(), kafka.TopicPartition{Topic: g.names.Tokens(), Partition: part}, kafka.End())
	g.no(err)
	return end
}

// conversationIn finds a conversation of a partition.
func conversationIn(part int32) string {
	for i := 0; ; i++ {
		if c := fmt.Sprint("c", i); job.Partition(c, testPartitions) == part {
			return c
		}
	}
}

func TestDataIsSplitWhereverALineEnds(t *testing.T) {
	for in, want := range map[string]string{
		"a":          "id: 1\ndata: a\n\n",
		"a\nb":       "id: 1\ndata: a\ndata: b\n\n",
		"a\r\nb\rc":  "id: 1\ndata: a\ndata: b\ndata: c\n\n",
		"\n\r\r\n":   "id: 1\ndata: \ndata: \ndata: \ndata: \n\n",
		"":           "id: 1\ndata: \n\n",
		"trailing\r": "id: 1\ndata: trailing\ndata: \n\n",
	} {
		var f frames
		f.event("1", []byte(in))
		if string(f.buf) != want {
			t.Errorf("%q is %q, want %q", in, f.buf, want)
		}
	}
	var f frames
	f.event("", []byte("x"))
	if string(f.buf) != "data: x\n\n" {
		t.Errorf("without an id: %q", f.buf)
	}
}

func TestARecordOfManyLinesArrivesWhole(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	rec := a.next(event.OutputDelta, event.Delta{Content: "x"})
	rec.Value = []byte(strings.ReplaceAll(string(rec.Value), `,"seq"`, ",\r\n\t\"seq\""))
	g.append(rec)
	a.complete()
	all := g.open(events(a)).rest()
	if len(all) != 2 || all[0].data != strings.ReplaceAll(string(rec.Value), "\r", "") {
		t.Errorf("got %v", all)
	}
}

func TestMetricsCountWhatIsStreamed(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := onOne(t, Config{Registry: reg})
	a := g.author()
	a.whole(3)
	g.open(events(a)).rest()
	sum := func(name string) (total float64) {
		all, err := reg.Gather()
		g.no(err)
		for _, f := range all {
			for _, m := range f.GetMetric() {
				if f.GetName() == name {
					total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
		return total
	}
	eventually(t, func() bool { return sum("streaming_completions_total") == 1 })
	for name, want := range map[string]float64{
		"streaming_chunks_total": 5, "streaming_active_connections": 0, "streaming_first_byte_latency_ms": 1,
		"penstock_gateway_followed_partitions": 1,
	} {
		eventually(t, func() bool { return sum(name) == want }) // one is counted after the other
	}
	newMetrics(reg, g.gateway.cfg.Logger) // a second time is a warning, and no more
}

func TestPartitionStreamsEndWithTheirTopic(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.started()
	c := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part))
	c.must()
	g.no(g.cluster.DeleteTopics(t.Context(), g.names.Tokens()))
	g.create()
	if rest := c.rest(); len(rest) != 1 || rest[0].Data.Reason != gapRecreated {
		t.Errorf("got %v, want a gap for the recreated topic", rest)
	}
}

func TestAnEvictedWindowCoversLess(t *testing.T) {
	at := time.Unix(1000, 0)
	p := &partition{}
	if _, ok := p.covers(at); ok {
		t.Error("a partition that is not followed covers something")
	}
	p.open(10, at)
	segs := []*segment{
		{before: spot{next: 10}, behind: spot{next: 12}, taken: at.Add(1 * time.Second)},
		{before: spot{next: 12}, behind: spot{next: 15}, taken: at.Add(2 * time.Second)},
	}
	for _, s := range segs {
		if !p.add(s) {
			t.Fatal("a segment was not taken")
		}
	}
	if p.add(&segment{before: spot{next: 99}, behind: spot{next: 100}}) {
		t.Error("a segment behind a hole was taken")
	}
	for _, c := range []struct {
		after time.Duration
		want  int64
		ok    bool
	}{
		{-1, 0, false}, {0, 10, true}, {time.Second, 12, true}, {1500 * time.Millisecond, 12, true}, {3 * time.Second, 15, true},
	} {
		if got, ok := p.covers(at.Add(c.after)); got != c.want || ok != c.ok {
			t.Errorf("%v after: %d, %v; want %d, %v", c.after, got, ok, c.want, c.ok)
		}
	}
	if !p.evict(segs[0]) || p.evict(segs[0]) {
		t.Error("a segment is evicted once")
	}
	if _, ok := p.covers(at); ok {
		t.Error("what was evicted is still covered")
	}
	if v := p.at(11); !v.older {
		t.Error("what was evicted is still there")
	}
}

func TestReaderErrorsSayWhatTheyAre(t *testing.T) {
	r := &reader{hub: &hub{}, part: &partition{}, next: 5}
	if err := r.judge(errAway); !errors.Is(err, errAway) {
		t.Errorf("%v", err)
	}
	if err := r.judge(&kafka.OutOfRangeError{Earliest: 9}); err.Error() != "records are missing: retention" || r.next != 9 {
		t.Errorf("%v, at %d", err, r.next)
	}
}
