package processors

import (
	"context"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/kafka"
)

// said is one event of a job that counts, as the log has it.
type said struct {
	at    time.Time // when its writer made it
	owner string    // who had claimed its epoch
	seq   int64
	event.Type
}

// listener reads the token topic while a test does other things.
type listener struct {
	w    *world
	stop context.CancelFunc
	done chan struct{}
	jobs map[string][]said // readable once it has ended
}

func (w *world) listen() *listener {
	w.t.Helper()
	tail, err := w.cluster.NewTail(kafka.TailConfig{Topic: w.names.Tokens()})
	if err != nil {
		w.t.Fatal(err)
	}
	for p := range w.partitions {
		tail.Follow(p, 0)
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &listener{w: w, stop: stop, done: make(chan struct{}), jobs: map[string][]said{}}
	go func() {
		defer close(l.done)
		defer tail.Close()
		filters := make([]fence.Filter, w.partitions)
		owners := map[[3]int64]string{}
		for {
			chunks, err := tail.Poll(ctx)
			if err != nil {
				return
			}
			for _, c := range chunks {
				for i := range c.Records {
					v, err := event.ScanHead(c.Records[i].Value)
					if err != nil {
						continue
					}
					key := [3]int64{int64(c.Partition), int64(v.Lane), v.Epoch}
					counts := filters[c.Partition].Admit(&v)
					if v.Type == event.LaneClaimed {
						var claim event.Claim
						if event.DecodeData(v.Data, &claim) == nil && owners[key] == "" {
							owners[key] = claim.Owner
						}
						continue
					}
					if counts {
						id := string(v.Job)
						l.jobs[id] = append(l.jobs[id], said{c.Records[i].Time, owners[key], v.Seq, v.Type})
					}
				}
			}
		}
	}()
	w.t.Cleanup(l.end)
	return l
}

func (l *listener) end() {
	l.stop()
	<-l.done
}

// resumed tells of the jobs that were the dead owner's when it died how long each
// was silent from then on, and fails the test for what is lost or repeated.
func (l *listener) resumed(dead string, died time.Time) (gaps []time.Duration) {
	for id, all := range l.jobs {
		mine := false
		first := time.Time{}
		for i, s := range all {
			if s.seq != int64(i) {
				l.w.t.Errorf("job %s: event %d has seq %d", id, i, s.seq)
				break
			}
			if s.at.Before(died) {
				mine = s.owner == dead && !s.Terminal()
			} else if first.IsZero() && s.owner != dead {
				first = s.at
			}
		}
		if mine && !first.IsZero() {
			gaps = append(gaps, first.Sub(died))
		}
	}
	slices.Sort(gaps)
	return gaps
}

// setting is a number of the environment that makes a test a long one.
func setting(name string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return usual
}

const pace = 100 * time.Millisecond // from word to word

// endless requests jobs that say a word at each pace, for five minutes.
func (w *world) endless(jobs int) []string {
	w.t.Helper()
	ids := make([]string, jobs)
	for i := range ids {
		ids[i] = w.request(event.Lanes()[i%3], "sim:tokens=3000,ttft=0s,gap="+pace.String(), "")
	}
	return ids
}

// goOn waits until each of the endless jobs has said what it cannot have said
// before now, and ends them. They were begun no earlier than that.
func (w *world) goOn(begun time.Time, ids []string) map[string]*told {
	w.t.Helper()
	most := int64(time.Since(begun)/pace) + 5
	w.outputsUntil(func(o *told) bool { return o.NextSeq > most }, ids...)
	for _, id := range ids {
		w.cancel(id)
	}
	got := w.outputs(ids...)
	w.facts(ids...)
	return got
}

// kill starts three processors, kills one in the midst of many jobs, and returns
// how long its jobs were silent.
func kill(t *testing.T, w *world, jobs int, change func(*Config)) []time.Duration {
	t.Helper()
	l := newLink()
	t.Cleanup(l.kill)
	owners := []*running{w.behind(l).start("one", change), w.start("two", change), w.start("three", change)}
	for _, r := range owners {
		r.waitReady(t)
	}
	heard := w.listen()
	begun := time.Now()
	ids := w.endless(jobs)
	w.outputsUntil(func(o *told) bool { return o.NextSeq > 5 }, ids...)
	died := time.Now()
	l.kill()
	got := w.goOn(begun, ids)
	heard.end()
	superseded := 0
	for _, o := range got {
		if o.Attempt > 1 {
			superseded++
		}
	}
	if superseded > 0 {
		t.Errorf("%d of %d jobs began anew", superseded, jobs)
	}
	gaps := heard.resumed("one", died)
	if len(gaps) == 0 {
		t.Fatal("no job was the dead owner's")
	}
	t.Logf("%d of %d jobs were taken over: first new event after %v at the median, %v at the most", len(gaps), jobs, gaps[len(gaps)/2], gaps[len(gaps)-1])
	return gaps
}

func (r *running) waitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for r.Ready() != nil {
		if !sleep(ctx, 10*time.Millisecond) {
			t.Fatal(r.Ready())
		}
	}
}

func TestAKilledPeerIsEvictedAndItsJobsGoOn(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	gaps := kill(t, w, setting("PENSTOCK_KILL_JOBS", 30), func(c *Config) { c.SessionTimeout = 50 * time.Second })
	if worst := gaps[len(gaps)-1]; worst > 40*time.Second {
		t.Errorf("%v: that is not the eviction, but the session timeout", worst)
	}
}

func TestWithoutEvictionTheSessionTimeoutDecides(t *testing.T) {
	t.Parallel()
	w := onKafka(t)
	gaps := kill(t, w, setting("PENSTOCK_KILL_JOBS", 30), func(c *Config) { c.Engine.EvictAfter, c.SessionTimeout = -1, 12*time.Second })
	if best := gaps[0]; best < 8*time.Second { // it begins with the last heartbeat, which was sent before that
		t.Errorf("%v: before the session timeout", best)
	}
}
