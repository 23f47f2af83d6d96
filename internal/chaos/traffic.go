package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// traffic is what comes in: so many jobs at a time, each by one way in, each
// followed by a client or two until its end, and then by the next.
type traffic struct {
	seed       uint64
	prefix     string // of ids and keys
	partitions int32
	names      topics.Names
	gateways   []string
	model      *modelServer
	out        *kafka.Producer
	http       *http.Client
	expect     func(model string, body []byte) string

	wg      sync.WaitGroup
	mu      sync.Mutex
	n       uint64
	jobs    []*Job
	readers []*Reader
}

// wish is one job before it is submitted. All of it follows from the seed and
// its number.
type wish struct {
	key    string
	prompt string
	lane   event.Lane
	model  string
	body   []byte // of the model's request
	want   string
	stream bool // its tokens are written as they come, and not its end alone
	random *rand.Rand
}

func (t *traffic) wish(n uint64) *wish {
	random := rand.New(rand.NewPCG(t.seed, n)) //nolint:gosec // to be drawn again from its seed is what it is for
	w := &wish{
		key: fmt.Sprintf("%s-%d", t.prefix, n), lane: event.Lanes()[random.IntN(len(event.Lanes()))], random: random,
	}
	w.prompt = "tell me of " + w.key
	s := shape{tokens: 20 + random.IntN(60), ttft: time.Duration(random.IntN(300)) * time.Millisecond, gap: time.Duration(20+random.IntN(60)) * time.Millisecond}
	if random.IntN(5) == 0 { // silent for long, then all at once: a zombie's favourite
		s = shape{tokens: 2 + random.IntN(6), ttft: time.Duration(1000+random.IntN(4000)) * time.Millisecond}
	}
	w.stream = random.IntN(6) > 0
	counted := random.IntN(5) < 2
	if counted {
		w.model = modelName(s)
	} else {
		w.model = fmt.Sprintf("sim:tokens=%d,ttft=%s,gap=%s", s.tokens, s.ttft, s.gap)
	}
	w.body = fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":%q}]}`, w.model, w.prompt)
	if counted {
		w.want = says(w.prompt, s)
	} else {
		w.want = t.expect(w.model, w.body)
	}
	return w
}

// run keeps so many jobs under way until stopping ends; those that are under way
// then go on until ctx ends.
func (t *traffic) run(ctx, stopping context.Context, atOnce int) {
	for range atOnce {
		t.wg.Go(func() {
			for stopping.Err() == nil {
				t.mu.Lock()
				t.n++
				n := t.n
				t.mu.Unlock()
				t.one(ctx, t.wish(n))
			}
		})
	}
}

// one submits a job and has it followed to its end.
func (t *traffic) one(ctx context.Context, w *wish) {
	j := &Job{Want: w.want, MayCancel: w.random.IntN(12) == 0}
	var partition int32
	cursor := ""
	switch w.random.IntN(4) {
	case 0:
		partition = t.produce(ctx, w, j)
	case 1:
		partition, cursor = t.submit(ctx, w, j, bySocket)
	default:
		partition, cursor = t.submit(ctx, w, j, t.byPost)
	}
	t.mu.Lock()
	if j.ID != "" {
		t.jobs = append(t.jobs, j)
	}
	t.mu.Unlock()
	if !j.Accepted {
		return
	}
	t.model.isOf(w.prompt, j.ID)
	if j.MayCancel {
		after := time.Duration(w.random.IntN(3000)) * time.Millisecond
		t.wg.Go(func() { t.cancel(ctx, j.ID, partition, after) })
	}
	var watching sync.WaitGroup
	for i := range 1 + w.random.IntN(2) {
		c := &client{
			Reader: &Reader{Job: j.ID}, http: t.http, gateways: t.gateways, partition: partition, cursor: cursor,
			random: rand.New(rand.NewPCG(w.random.Uint64(), 0)), cutting: w.random.IntN(2) == 0, //nolint:gosec // as above
		}
		read := c.bySSE
		if c.Who = "a client over SSE"; w.random.IntN(2) == 0 {
			c.Who, read = "a client over WebSocket", c.bySocket
		}
		if i > 0 { // this one begins at the beginning, whatever the receipt said
			c.cursor = ""
		}
		t.add(c.Reader)
		watching.Go(func() { c.follow(ctx, read) })
	}
	watching.Wait()
	if w.random.IntN(8) == 0 { // and the same again, as it stands in the log
		c := &client{Reader: &Reader{Job: j.ID, Who: "a client that came later"}, http: t.http, gateways: t.gateways, partition: partition, random: w.random}
		t.add(c.Reader)
		c.follow(ctx, c.bySSE)
	}
}

func (t *traffic) add(r *Reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readers = append(t.readers, r)
}

// cancel asks for a job's end, some time into it. One that is not heard is none.
func (t *traffic) cancel(ctx context.Context, id string, partition int32, after time.Duration) {
	pause(ctx, after)
	url := fmt.Sprintf("%s/v1/jobs/%s/cancel?partition=%d", t.gateways[0], id, partition)
	_, _, _ = t.ask(ctx, url, "", nil)
}
