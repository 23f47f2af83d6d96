package gateway

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// desk takes jobs in for a test, which then writes their output by hand.
type desk struct {
	Intake // cancels nothing

	g     *ground
	begin func(a *author) // called with each new job, before it is answered for; nil: nothing
	err   error

	mu   sync.Mutex
	keys map[string]*job.Resource
	in   []job.Request
	opts []job.SubmitOptions
	jobs chan *author
}

// Submit implements Intake.
func (d *desk) Submit(_ context.Context, tenant string, in job.Request, opts job.SubmitOptions) (*job.Resource, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.in, d.opts = append(d.in, in), append(d.opts, opts)
	if d.err != nil {
		return nil, d.err
	}
	if res := d.keys[opts.IdempotencyKey]; res != nil {
		again := *res
		again.Replayed = true
		return &again, nil
	}
	a := d.g.author()
	a.head.Tenant, a.head.Lane = tenant, in.Lane
	id, _ := job.ParseID(a.head.Job)
	res := &job.Resource{Object: "job", ID: a.head.Job, CreatedAt: job.Time{Time: id.Time}}
	if opts.IdempotencyKey != "" {
		d.keys[opts.IdempotencyKey] = res
	}
	if d.begin != nil {
		d.begin(a)
	}
	d.jobs <- a
	return res, nil
}

// models are those of a test.
type models struct{}

func (models) Models() []string { return []string{"fast", "gone", "sim"} }

func (models) Provider(model string) (string, error) {
	switch model {
	case "sim", "fast", "openai/gpt", "a b/c%2F":
		return "of " + model, nil
	default:
		return "", fault.New(fault.ModelNotFound, "model %q is not known", model)
	}
}

// chatGround is a ground with a desk.
func chatGround(tb testing.TB, g *ground, d *desk) *desk {
	tb.Helper()
	d.g = g
	return d
}

func newDesk() *desk { return &desk{keys: map[string]*job.Resource{}, jobs: make(chan *author, 16)} }

// onDesk is onOne with a desk.
func onDesk(t *testing.T, cfg Config) (*ground, *desk) {
	t.Helper()
	d := newDesk()
	cfg.Intake, cfg.Models = d, models{}
	return chatGround(t, onOne(t, cfg), d).g, d
}

const hello = `"messages":[{"role":"user","content":"hi"}]`

// post asks, and gives the answer's head; headers are pairs.
func (g *ground) post(ctx context.Context, path, body string, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer anything") // SDKs always send one
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return http.DefaultClient.Do(req)
}

// reply is an answer to be had.
type reply struct {
	g    *ground
	done chan struct{}
	resp *http.Response
	err  error
	stop func()
}

// ask posts in the background.
func (g *ground) ask(path, body string, headers ...string) *reply {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.Context()), time.Minute)
	r := &reply{g: g, done: make(chan struct{}), stop: cancel}
	go func() {
		defer close(r.done)
		r.resp, r.err = g.post(ctx, path, body, headers...) //nolint:bodyclose // the cleanup does
	}()
	g.Cleanup(func() {
		cancel()
		<-r.done
		if r.resp != nil {
			_ = r.resp.Body.Close()
		}
	})
	return r
}

func (g *ground) chat(rest string, headers ...string) *reply {
	return g.ask(chatEndpoint, `{"model":"sim",`+hello+rest+`}`, headers...)
}

// head waits for the answer's head.
func (r *reply) head(status int) http.Header {
	r.g.Helper()
	<-r.done
	r.g.no(r.err)
	if r.resp.StatusCode != status {
		b, _ := io.ReadAll(r.resp.Body)
		r.g.Fatalf("status is %d, want %d: %s", r.resp.StatusCode, status, b)
	}
	return r.resp.Header
}

// text waits for the whole answer.
func (r *reply) text(status int) string {
	r.g.Helper()
	r.head(status)
	b, err := io.ReadAll(r.resp.Body)
	r.g.no(err)
	return string(b)
}

// said is a stream's text, taken out of its chunks.
func said(stream string) string {
	var b strings.Builder
	for line := range strings.Lines(stream) {
		if _, rest, ok := strings.Cut(line, `"content":"`); ok {
			text, _, _ := strings.Cut(rest, `"`)
			b.WriteString(text)
		}
	}
	return b.String()
}

// lines reads a stream's lines until one holds the text, and gives what it read.
func (r *reply) lines(until string) string {
	r.g.Helper()
	var b strings.Builder
	lines := bufio.NewReaderSize(r.resp.Body, 16) // whatever it holds back is less than a line
	for !strings.Contains(b.String(), until) {
		c, err := lines.ReadByte()
		r.g.no(err)
		b.WriteByte(c)
	}
	return b.String()
}

// watched waits until the gateway has read all of a job's events so far.
func (a *author) watched() {
	a.g.Helper()
	c := a.g.open(events(a))
	for {
		if e := c.must(); e.Seq == a.head.Seq-1 {
			break
		}
	}
	c.close()
}

func (a *author) fail(code fault.Code) {
	a.g.Helper()
	a.write(event.OutputFailed, event.Failed{Code: string(code), Message: "it went wrong"})
}
