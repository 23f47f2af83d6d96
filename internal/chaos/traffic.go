package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
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
	if w.random.IntN(4) == 0 {
		partition = t.produce(ctx, w, j)
	} else {
		partition, cursor = t.post(ctx, w, j)
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

// submitPatience is how long one try to submit a job may take: more than Kafka
// gets to take it.
const submitPatience = 15 * time.Second

// post submits a job over HTTP until some gateway has accepted it: with one key,
// so that it is one job however often it is tried.
func (t *traffic) post(ctx context.Context, w *wish, j *Job) (partition int32, cursor string) {
	body := fmt.Appendf(nil, `{"lane":%q,"body":%s}`, w.lane, w.body)
	for ctx.Err() == nil {
		status, answer, err := t.ask(ctx, t.gateways[w.random.IntN(len(t.gateways))]+"/v1/jobs", w.key, body)
		var r job.Resource
		switch {
		case err == nil && status == http.StatusAccepted && json.Unmarshal(answer, &r) == nil && r.Request != nil:
			j.ID, j.Accepted = r.ID, true
			return r.Request.Partition, r.Cursor
		case status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusConflict:
			j.ID = w.key
			t.fail(w.key, fmt.Sprintf("a good job was answered %d: %s", status, answer))
			return 0, ""
		}
		pause(ctx, time.Duration(100+w.random.IntN(400))*time.Millisecond)
	}
	return 0, ""
}

// fail tells of a job that no reader will follow.
func (t *traffic) fail(id, what string) {
	r := &Reader{Who: "a client", Job: id}
	r.Fail(Lost, what)
	t.add(r)
}

func (t *traffic) ask(ctx context.Context, url, key string, body []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, submitPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err //nolint:wrapcheck // it is told nobody
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := t.http.Do(req)
	if err != nil {
		return 0, nil, err //nolint:wrapcheck // as above
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err //nolint:wrapcheck // as above
}

// produce writes a job's request to Kafka, once, as an outside producer that
// chooses the partition as it likes. What was not acknowledged may run, or not.
func (t *traffic) produce(ctx context.Context, w *wish, j *Job) int32 {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	j.ID = w.key
	partition := w.random.Int32N(t.partitions)
	_, err := t.out.Append(ctx, event.Record{
		Topic: t.names.Requests(w.lane), Partition: partition, Key: []byte(w.key),
		Value: fmt.Appendf(nil, `{"job":%q,"data":{"body":%s}}`, w.key, w.body),
	})
	j.Accepted = err == nil
	if errors.Is(err, kafka.ErrRefused) {
		j.ID = ""
	}
	return partition
}

// cancel asks for a job's end, some time into it. One that is not heard is none.
func (t *traffic) cancel(ctx context.Context, id string, partition int32, after time.Duration) {
	pause(ctx, after)
	url := fmt.Sprintf("%s/v1/jobs/%s/cancel?partition=%d", t.gateways[0], id, partition)
	_, _, _ = t.ask(ctx, url, "", nil)
}
