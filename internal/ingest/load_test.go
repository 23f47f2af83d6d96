package ingest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/admission"
	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// pulse is what an owner says, as a record's value.
func pulse(lane event.Lane, epoch int64, p event.Pulse) []byte {
	if p.Breaker == "" {
		p.Breaker = "closed"
	}
	h := event.Head{Type: event.LanePulse, V: event.Version, Time: noon, Lane: lane, Epoch: epoch}
	return event.Append(nil, &h, event.Encode(p))
}

// heardLog is a log of which the ends and the pulses are told.
type heardLog struct {
	mu     sync.Mutex
	start  int64
	ends   map[string]map[int32]int64
	err    error
	chunks chan kafka.Chunk
	feeds  int
}

func newHeardLog() *heardLog {
	l := &heardLog{ends: map[string]map[int32]int64{}, chunks: make(chan kafka.Chunk)}
	for _, lane := range event.Lanes() {
		l.ends["p.requests."+lane.String()] = map[int32]int64{0: 0, 1: 0}
	}
	l.ends["p.pulse"] = map[int32]int64{0: 0}
	return l
}

func (l *heardLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *heardLog) grow(topic string, partition int32, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[topic][partition] = end
}

func (l *heardLog) Offsets(_ context.Context, topic string, at kafka.At) (map[int32]int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := map[int32]int64{}
	for p, end := range l.ends[topic] {
		got[p] = end
		if at == kafka.Start() && topic == "p.pulse" {
			got[p] = 0
		} else if at == kafka.Start() {
			got[p] = min(l.start, end)
		}
	}
	got[7] = 99 // a partition that came later is ignored
	return got, l.err
}

func (l *heardLog) Feed(ctx context.Context, _ kafka.TailConfig, _ int32, from int64, take func(kafka.Chunk) error) error {
	l.mu.Lock()
	l.feeds++
	l.mu.Unlock()
	next := from
	for {
		select {
		case c := <-l.chunks:
			if c.Err != nil {
				return c.Err
			}
			for i := range c.Records {
				c.Records[i].Offset = next
				next++
			}
			l.grow("p.pulse", 0, next)
			c.Next, c.HighWatermark = next, next
			if err := take(c); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// say hands pulses over as one chunk.
func (l *heardLog) say(values ...[]byte) {
	var c kafka.Chunk
	for _, v := range values {
		c.Records = append(c.Records, event.Record{Value: v})
	}
	l.chunks <- c
}

// watched is a Load that runs in the bubble of a test.
func watched(t *testing.T, log Log, budgets map[event.Lane]admission.Limits) *Load {
	t.Helper()
	l, err := NewLoad(LoadConfig{Log: log, Names: topics.Names{Prefix: "p."}, Partitions: 2, Budgets: budgets})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

// pass lets time pass in a bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// reasonOf is why a request was shed; "" where it was let in.
func reasonOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	s, ok := errors.AsType[*ShedError](err)
	if f := fault.From(err); !ok || f.Code != fault.Overloaded {
		t.Errorf("not shed: %v", err)
		return ""
	}
	return s.Reason.String()
}

func TestWhatThisProcessWritesCountsAtOnceAndWhatOthersDoSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newHeardLog()
		l := watched(t, log, map[event.Lane]admission.Limits{event.Standard: {Wait: time.Minute, Outstanding: 10}})
		log.say()
		pass(time.Second)
		for offset := range int64(8) {
			if err := l.Admit(event.Standard, 1, time.Time{}); err != nil {
				t.Fatalf("at %d: %v", offset, err)
			}
			l.Accepted(event.Standard, 1, offset)
		}
		err := l.Admit(event.Standard, 1, time.Time{})
		f := fault.From(err)
		if reasonOf(t, err) != "outstanding" || f.RetryAfter < time.Second || !f.Retryable() ||
			!strings.Contains(f.Message, "10 of a partition") || !strings.Contains(f.Message, "no processor works on it") || !strings.Contains(f.Message, "come back in") {
			t.Errorf("the ninth: %v, after %s", err, f.RetryAfter)
		}
		if err := l.Admit(event.Standard, 0, time.Time{}); err != nil {
			t.Errorf("another partition: %v", err)
		}
		log.grow("p.requests.standard", 0, 9)
		pass(2 * loadEvery)
		if got := reasonOf(t, l.Admit(event.Standard, 0, time.Time{})); got != "outstanding" {
			t.Errorf("when others wrote nine: %q", got)
		}
		log.say(
			pulse(event.Standard, 1, event.Pulse{Partition: 0, Owner: "o", Consumed: 9, InFlight: 6, Running: 6}),
			pulse(event.Standard, 1, event.Pulse{Partition: 1, Owner: "o", Consumed: 8, InFlight: 4, Running: 4}),
			pulse(event.Standard, 1, event.Pulse{Partition: 7, Owner: "o", Consumed: 8}), // of a partition that is none
			[]byte("nonsense"),
		)
		pass(loadEvery)
		if got := reasonOf(t, l.Admit(event.Standard, 0, time.Time{})); got != "outstanding" {
			t.Errorf("between the watermarks a partition sheds on: %q", got)
		}
		if got := reasonOf(t, l.Admit(event.Standard, 1, time.Time{})); got != "" {
			t.Errorf("below the low one it opens: %q", got)
		}
	})
}

func TestPulsesThatWereThereBeforeSayNothingOfTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newHeardLog()
		log.start = 500_000
		log.grow("p.pulse", 0, 1)
		for p := range int32(2) {
			log.grow("p.requests.interactive", p, 900_000)
		}
		l := watched(t, log, nil)
		pass(2 * time.Second) // the ends are known, and no pulse was read
		if err := l.Admit(event.Interactive, 0, time.Time{}); err != nil {
			t.Errorf("before the pulses: %v", err)
		}
		log.say(pulse(event.Interactive, 4, event.Pulse{Partition: 0, Owner: "dead", Consumed: 900_000, InFlight: 3}))
		pass(time.Second)
		if err := l.Admit(event.Interactive, 0, time.Time{}); err != nil {
			t.Errorf("three were left by a dead owner: %v", err)
		}
		if got := reasonOf(t, l.Admit(event.Interactive, 1, time.Time{})); got != "outstanding" {
			t.Errorf("400,000 that nobody ever owned: %q", got)
		}
	})
}

func TestASignalThatIsMissingIsStaleAndComesBackByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newHeardLog()
		l := watched(t, log, nil)
		log.say()
		pass(time.Second)
		closed := func(when, want string) {
			t.Helper()
			if got := reasonOf(t, l.Admit(event.Batch, 0, time.Time{})); got != want {
				t.Errorf("%s: batch: %q, want %q", when, got, want)
			}
			if err := l.Admit(event.Interactive, 0, time.Time{}); err != nil {
				t.Errorf("%s: interactive: %v", when, err)
			}
		}
		closed("at first", "")
		log.fail(errors.New("kafka is away"))
		pass(2 * time.Second)
		closed("for two seconds", "")
		pass(2 * time.Second)
		closed("for four seconds", "stale")
		if rep := l.report(); rep.Signal != "stale" || rep.Lanes[2].State != "stale" {
			t.Errorf("%+v", rep)
		}
		log.fail(nil)
		pass(2 * loadAgain)
		closed("back", "")
		// The ends are had, and the pulses are not.
		log.grow("p.pulse", 0, 50)
		pass(5 * time.Second)
		closed("without pulses", "stale")
		log.grow("p.pulse", 0, 0)
		log.chunks <- kafka.Chunk{Err: errors.New("the topic is another one")}
		pass(2 * time.Second)
		log.say()
		pass(time.Second)
		closed("with pulses", "")
		if log.feeds != 2 {
			t.Errorf("the pulses were read %d times from the start", log.feeds)
		}
		for range 40 {
			l.Accepted(event.Interactive, 0, 0)
		}
		log.fail(errors.New("away"))
		pass(5 * time.Second)
		n := 0
		for l.Admit(event.Interactive, 0, time.Time{}) == nil && n < 1000 {
			l.Accepted(event.Interactive, 0, 0)
			n++
		}
		if n < 5 || n > 20 {
			t.Errorf("%d were let in at once, and ten a second is the least", n)
		}
	})
}

func TestWithoutAPulsePartitionNothingIsKnown(t *testing.T) {
	log := newHeardLog()
	delete(log.ends, "p.pulse")
	l, err := NewLoad(LoadConfig{Log: log, Names: topics.Names{Prefix: "p."}, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.watchPulses(t.Context()); !errors.Is(err, errNoPulses) {
		t.Error(err)
	}
	if _, err := NewLoad(LoadConfig{Partitions: 1, Budgets: map[event.Lane]admission.Limits{event.Batch: {}}}); err == nil {
		t.Error("a budget of nothing was taken")
	}
}

// busy makes partition 0 of a lane work off ten a second, with a queue before it.
func busy(log *heardLog, lane event.Lane, queue int) {
	for i := range int64(12) {
		consumed := 1000 + i*5/2
		log.grow("p.requests."+lane.String(), 0, consumed)
		log.say(pulse(lane, 1, event.Pulse{
			Partition: 0, Owner: "o", Consumed: consumed, InFlight: queue + 10, Running: 10, Waiting: queue,
		}))
		pass(loadEvery)
	}
}

func TestARefusalSaysHowLongItWouldTakeAndWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newHeardLog()
		l := watched(t, log, nil)
		log.say()
		pass(time.Second)
		busy(log, event.Interactive, 140)
		err := l.Admit(event.Interactive, 0, time.Time{})
		f := fault.From(err)
		if reasonOf(t, err) != "wait" || f.RetryAfter < 4*time.Second || f.RetryAfter > 10*time.Second || f.Final ||
			!strings.Contains(f.Message, "15s is its budget") || strings.Contains(f.Message, "no processor") {
			t.Errorf("%v, after %s", err, f.RetryAfter)
		}
		if err := l.Admit(event.Standard, 0, time.Time{}); err != nil { // nobody owns it, so nobody yields
			t.Errorf("standard: %v", err)
		}
		busy(log, event.Standard, 150)
		in := func(d time.Duration) time.Time { return time.Now().Add(d) }
		err = l.Admit(event.Standard, 0, in(5*time.Second))
		if got := reasonOf(t, err); got != "yielding" && got != "deadline" {
			t.Errorf("with five seconds left: %v", err)
		}
		busy(log, event.Interactive, 1)
		busy(log, event.Standard, 150)
		err = l.Admit(event.Standard, 0, in(5*time.Second))
		f = fault.From(err)
		if reasonOf(t, err) != "deadline" || f.Retryable() || f.RetryAfter != 0 || f.Param != "deadline" || !strings.Contains(f.Message, "cannot be met") {
			t.Errorf("with five seconds left: %v", err)
		}
		if err := l.Admit(event.Standard, 0, in(time.Minute)); err != nil {
			t.Errorf("with a minute left: %v", err)
		}
	})
}

// series are the values of the labels of a metric's series.
func series(t *testing.T, reg *prometheus.Registry, name string) (all []string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			all = append(all, strings.Join(values, " "))
		}
	}
	return all
}

func TestRefusalsAreAnsweredWithTheHeadersThatClientsHeed(t *testing.T) {
	for why, c := range map[admission.Reason]struct{ should, after string }{
		admission.Wait:        {"true", "7"},
		admission.Outstanding: {"true", "7"},
		admission.Yielding:    {"true", "7"},
		admission.Stale:       {"true", "7"},
		admission.Deadline:    {"false", ""},
	} {
		d := admission.Decision{Reason: why, Wait: 90 * time.Second, RetryAfter: 6500 * time.Millisecond}
		if why == admission.Deadline {
			d.RetryAfter = 0
		}
		refused := refusal(event.Batch, admission.Status{}, admission.Limits{Wait: time.Minute, Outstanding: 5}, d)
		reg := prometheus.NewRegistry()
		h := handler(newService(t, Config{Producer: &fakeLog{}, Registry: reg, Admission: door(func(event.Lane) error { return refused })}))
		w, a := send(t, h, hi)
		if w.Code != http.StatusTooManyRequests || a.Error.Code != fault.Overloaded || !strings.Contains(a.Error.Message, "batch") ||
			w.Header().Get("X-Should-Retry") != c.should || w.Header().Get("Retry-After") != c.after {
			t.Errorf("%s: %d %+v %v", why, w.Code, a, w.Header())
		}
		if c.after != "" && w.Header().Get("Retry-After-Ms") != "6500" {
			t.Errorf("%s: %v", why, w.Header())
		}
		if got := series(t, reg, "penstock_ingest_shed_total"); len(got) != 1 || got[0] != "standard "+why.String() {
			t.Errorf("%s: %q", why, got)
		}
	}
}

func TestLoadIsReportedByLaneAndPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newHeardLog()
		l := watched(t, log, nil)
		log.say(pulse(event.Batch, 1, event.Pulse{Partition: 1, Owner: "o", Breaker: "open"}))
		busy(log, event.Interactive, 140)
		r := api.NewRouter(api.Config{})
		l.Routes(r)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/load", nil))
		var rep loadWire
		if err := json.Unmarshal(w.Body.Bytes(), &rep, json.RejectUnknownMembers(true)); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		lane := rep.Lanes[0]
		full := lane.Partitions[0]
		if rep.Object != "load" || rep.Signal != "fresh" || len(rep.Lanes) != 3 || lane.Lane != event.Interactive || lane.State != "shedding" ||
			len(lane.Reasons) != 1 || lane.Reasons[0] != "wait" || lane.Wait != full.Wait || lane.Outstanding != 150 {
			t.Errorf("%s", w.Body)
		}
		if full.State != "shedding" || full.Reason != "wait" || full.Owner != "alive" || full.Waiting != 140 || full.Running != 10 ||
			full.Wait < 12 || full.Wait > 17 || full.Rate < 9 || full.Rate > 11 || full.RetryAfter < 4 || full.RetryAfter > 10 || full.Breaker != "closed" {
			t.Errorf("%+v", full)
		}
		if p := lane.Partitions[1]; p.State != "open" || p.Owner != "none" || p.Reason != "" || p.Breaker != "" {
			t.Errorf("%+v", p)
		}
		if p := rep.Lanes[2].Partitions[1]; p.Breaker != "open" {
			t.Errorf("%+v", p)
		}
		reg := prometheus.NewPedanticRegistry()
		if err := reg.Register(l.Metrics()); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int{
			"penstock_load_wait_seconds": 6, "penstock_load_outstanding_jobs": 6, "penstock_load_shedding": 6, "penstock_load_stale": 1,
		} {
			if got := series(t, reg, name); len(got) != want {
				t.Errorf("%s: %q", name, got)
			}
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	l, err := NewLoad(LoadConfig{Log: newHeardLog(), Names: topics.Names{Prefix: "p."}, Partitions: 12})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if l.Admit(event.Standard, 3, time.Time{}) != nil {
				b.Fatal("refused")
			}
		}
	})
	b.Run("many", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_ = l.Admit(event.Standard, 3, time.Time{})
			}
		})
	})
	b.Run("deadline", func(b *testing.B) {
		at := time.Now().Add(time.Hour)
		b.ReportAllocs()
		for b.Loop() {
			_ = l.Admit(event.Standard, 3, at)
		}
	})
	b.Run("accepted", func(b *testing.B) {
		n := int64(0)
		b.ReportAllocs()
		for b.Loop() {
			n++
			l.Accepted(event.Standard, 3, n)
		}
	})
}
