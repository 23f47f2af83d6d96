//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// watch keeps of each job who wrote last, and when somebody else went on with it.
type watch struct {
	d *deployment

	mu    sync.Mutex
	slots map[string]string // by owner
	jobs  map[string]*watched
}

type watched struct {
	slot   string    // of the newest output
	at     time.Time // of the newest output
	gap    time.Duration
	resume time.Time // the first output that is another's than the one that was hurt
	ended  bool
}

func (w *watch) heard(v *event.View, owner string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	slot, ok := w.slots[owner]
	if !ok {
		slot = w.d.slotOf(owner)
		w.slots[owner] = slot
	}
	j := w.jobs[string(v.Job)]
	if j == nil {
		j = &watched{at: now}
		w.jobs[string(v.Job)] = j
	}
	if j.slot != "" && slot != j.slot && j.resume.IsZero() && (v.Type == event.OutputDelta || v.Type == event.OutputStarted) {
		j.resume = now
	}
	j.gap = max(j.gap, now.Sub(j.at))
	j.slot, j.at, j.ended = slot, now, v.Type.Terminal()
}

// each calls f with every job, under the watch's lock.
func (w *watch) each(f func(j *watched)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.jobs {
		f(j)
	}
}

// await waits until so many jobs are so.
func (w *watch) await(t *testing.T, what string, n int, so func(j *watched) bool) {
	t.Helper()
	count, last, since := 0, -1, time.Now()
	for count < n {
		count = 0
		w.each(func(j *watched) {
			if so(j) {
				count++
			}
		})
		if count > last {
			last, since = count, time.Now()
		}
		if time.Since(since) > 2*patience {
			t.Fatalf("of %d jobs %d %s, and no more come", n, count, what)
		}
		pause(t.Context(), 100*time.Millisecond)
	}
}

// scene is so many jobs in flight, and what is done to them.
type scene struct {
	model string // of the jobs: "sim" or "counted"
	env   []string
	do    func(ctx context.Context, d *deployment, w *watch) error
}

// played is what came of a scene.
type played struct {
	*Verdict
	cut  int // calls whose caller went away
	gaps []time.Duration
}

// play lets the jobs in, does it once all are under way, and waits for their ends.
func play(t *testing.T, s scene) played {
	t.Helper()
	jobs := setting(t, "CHAOS_JOBS", 1000, strconv.Atoi)
	cfg := config(t, build(t))
	cfg.Env, cfg.Partitions = append(cfg.Env, s.env...), 12
	cfg.Seed = seed(t)
	d, err := deploy(t.Context(), cfg.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watch{d: d, slots: map[string]string{}, jobs: map[string]*watched{}}
	l, err := startLive(d.cluster, d.names.Tokens(), d.cfg.Partitions, w.heard)
	if err != nil {
		t.Fatal(err)
	}
	var reading waiting
	reading.Go(func() { l.run(ctx) })
	defer func() { cancel(); reading.Wait() }()
	tr, err := d.traffic()
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	for n := range jobs {
		tr.wg.Go(func() { tr.steady(ctx, s.model, uint64(n)) })
	}
	tr.wg.Wait()
	w.await(t, "are under way", jobs, func(j *watched) bool { return j.slot != "" })
	if err := s.do(ctx, d, w); err != nil {
		t.Fatal(err)
	}
	w.await(t, "have ended", jobs, func(j *watched) bool { return j.ended })
	h, ends, err := d.history(ctx, tr, l)
	if err != nil {
		t.Fatal(err)
	}
	p := played{Verdict: Check(h), cut: d.model.cut}
	w.each(func(j *watched) { p.gaps = append(p.gaps, j.gap) })
	slices.Sort(p.gaps)
	if p.Lost+p.Repeated > 0 {
		r := &Report{Seed: cfg.Seed, Verdict: p.Verdict, Evidence: d.evidence(ctx, ends, p.Verdict)}
		_ = r.Write(t.Output())
		t.Errorf("%d lost, %d repeated", p.Lost, p.Repeated)
	}
	return p
}

// steady submits one job that says a word every half second for long enough.
func (t *traffic) steady(ctx context.Context, model string, n uint64) {
	s := shape{tokens: 100, ttft: 50 * time.Millisecond, gap: 500 * time.Millisecond}
	w := &wish{key: fmt.Sprintf("%s-%d", t.prefix, n), lane: event.Lanes()[n%3], stream: true, random: rand.New(rand.NewPCG(t.seed, n))}
	w.prompt = "tell me of " + w.key
	w.model = modelName(s)
	if model == "sim" {
		w.model = "sim:" + strings.TrimPrefix(w.model, "counted/")
	}
	w.body = fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":%q}]}`, w.model, w.prompt)
	if model == "sim" {
		w.want = t.expect(w.model, w.body)
	} else {
		w.want = says(w.prompt, s)
	}
	j := &Job{Want: w.want}
	t.produce(ctx, w, j)
	t.model.isOf(w.prompt, j.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.jobs = append(t.jobs, j)
}

// spread says how times lie.
func spread(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	slices.Sort(times)
	at := func(p float64) time.Duration {
		return times[int(float64(len(times)-1)*p)].Round(time.Millisecond)
	}
	return fmt.Sprintf("%d: median %s, p99 %s, worst %s", len(times), at(0.5), at(0.99), at(1))
}

// TestTakeoverOfAKilledProcessor: how soon its jobs say their next word, as it
// comes, and where only the session's end tells of a death.
func TestTakeoverOfAKilledProcessor(t *testing.T) {
	for _, env := range [][]string{{"PENSTOCK_EVICT_AFTER="}, {"PENSTOCK_EVICT_AFTER=0s"}} { // empty is the default
		t.Run(strings.Join(env, ""), func(t *testing.T) {
			var times []time.Duration
			p := play(t, scene{model: "sim", env: env, do: func(ctx context.Context, d *deployment, w *watch) error {
				mine, at := 0, time.Time{}
				w.mu.Lock() // whoever writes last before the kill is its owner
				for _, j := range w.jobs {
					if j.slot == "P1" && !j.ended {
						mine++
						j.resume = time.Time{}
					} else {
						j.resume = time.Unix(0, 0) // not of those
					}
				}
				err := d.slots[0].kill()
				at = time.Now()
				w.mu.Unlock()
				if err != nil || mine == 0 {
					return fmt.Errorf("P1 had %d jobs: %w", mine, err)
				}
				after := func(j *watched) bool { return j.resume.After(at) }
				w.await(t, "were taken over", mine, after) //nolint:contextcheck // it has the test's
				w.each(func(j *watched) {
					if after(j) {
						times = append(times, j.resume.Sub(at))
					}
				})
				t.Logf("killed, with %v: from the kill to the next word of its jobs, %s", env, spread(times))
				return d.slots[0].start(ctx)
			}})
			t.Logf("%d jobs, %d resumed, %d superseded; the longest silence of a job, %s", p.Accepted, p.Resumed, p.Superseded, spread(p.gaps))
		})
	}
}

// The model that counts its calls cannot go on from a prefix: whatever is
// cancelled in mid-answer costs a second call, and a superseded attempt.

func TestAPeerStoppedFor1500ms(t *testing.T) {
	p := play(t, scene{model: "counted", do: func(ctx context.Context, d *deployment, _ *watch) error {
		return d.slots[0].freeze(ctx, 1500*time.Millisecond)
	}})
	p.tell(t, "a peer stopped for 1.5 s")
}

func TestTheBrokerOfThePulseStoppedFor5s(t *testing.T) {
	p := play(t, scene{model: "counted", do: func(ctx context.Context, d *deployment, _ *watch) error {
		leader, err := d.cluster.Leader(ctx, kafka.TopicPartition{Topic: d.names.Pulse()})
		if err != nil {
			return err
		}
		return stopped(ctx, d.kafka.Nodes()[leader-1], 5*time.Second)
	}})
	p.tell(t, "the broker that leads the pulse stopped for 5 s")
}

func TestARollingRestartOfBrokersCancelsNoCall(t *testing.T) {
	p := play(t, scene{model: "counted", do: func(ctx context.Context, d *deployment, _ *watch) error {
		return d.rollBrokers(ctx)
	}})
	p.tell(t, "a rolling restart of the brokers")
	if p.Superseded+p.cut > 0 {
		t.Errorf("calls were cancelled: %d answers cut off, %d superseded", p.cut, p.Superseded)
	}
}

func (p *played) tell(t *testing.T, what string) {
	t.Helper()
	t.Logf("%s: %d jobs, %d calls, %d cut off, %d superseded; the longest silence of a job, %s",
		what, p.Accepted, p.Calls, p.cut, p.Superseded, spread(p.gaps))
}
