package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// StreamsOptions say what is streamed, and to whom.
type StreamsOptions struct {
	Streams  int           // jobs that run at once
	Watchers int           // of each job, every one with a WebSocket of its own
	Rate     int           // tokens a second of each job
	Warm     time.Duration // of streaming before anything is counted; the jobs begin within half of it
	Measure  time.Duration // of streaming that is counted
}

// Streams is what came of it. Times are from what a record says of when it was
// appended, in milliseconds, to when its frame had been read: server and client
// must have one clock.
type Streams struct {
	Events  int64         // that came to watchers while it was counted
	Frames  int64         // in which they came
	Tokens  int64         // of all jobs, as their ends tell, times their watchers
	All     int64         // events of all the time, deltas alone
	Elapsed time.Duration // while it was counted
	delays  delays
}

// TokensPerSecond is how many tokens were delivered a second.
func (s *Streams) TokensPerSecond() float64 {
	if s.All == 0 || s.Elapsed == 0 {
		return 0
	}
	perEvent := float64(s.Tokens) / float64(s.All) // what lagged came as fewer, larger events
	return float64(s.Events) * perEvent / s.Elapsed.Seconds()
}

// Percentile is the time from append to receipt below which p (0 to 1) of the
// events stayed.
func (s *Streams) Percentile(p float64) time.Duration { return s.delays.percentile(p) }

// delays counts delays by half milliseconds.
type delays struct {
	counts [20_000]atomic.Int64
	total  atomic.Int64
}

const delayStep = 500 * time.Microsecond

func (d *delays) add(t time.Duration) {
	i := min(max(int(t/delayStep), 0), len(d.counts)-1)
	d.counts[i].Add(1)
	d.total.Add(1)
}

func (d *delays) percentile(p float64) time.Duration {
	want, seen := int64(float64(d.total.Load()-1)*p), int64(0)
	for i := range d.counts {
		if seen += d.counts[i].Load(); seen > want {
			return time.Duration(i+1) * delayStep
		}
	}
	return 0
}

// streaming is one run.
type streaming struct {
	server  *Server
	opt     StreamsOptions
	counted atomic.Bool
	events  atomic.Int64
	frames  atomic.Int64
	tokens  atomic.Int64
	all     atomic.Int64
	delays  delays
	taps    *taps

	mu   sync.Mutex
	jobs []string // submitted, and not seen to their end by anyone
}

// MeasureStreams has jobs of a simulated model stream to WebSockets. It ends with
// an error unless every watcher gets its job's whole answer, each seq once; then,
// and where ctx ends, the jobs that go on are cancelled.
func (s *Server) MeasureStreams(ctx context.Context, opt StreamsOptions) (*Streams, error) {
	run := &streaming{server: s, opt: opt}
	sockets := make([]*websocket.Conn, opt.Streams*opt.Watchers)
	defer func() {
		for _, c := range sockets {
			if c != nil {
				_ = c.Close() // the run is over
			}
		}
	}()
	dialing, dctx := errgroup.WithContext(ctx)
	dialing.SetLimit(32)
	for i := range sockets {
		dialing.Go(func() (err error) {
			sockets[i], err = s.dialSocket(dctx)
			return err
		})
	}
	if err := dialing.Wait(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer run.cancel(context.WithoutCancel(ctx))
	result, err := run.measure(ctx, sockets)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return result, nil
}

// measure streams to the sockets, and counts what comes.
func (r *streaming) measure(ctx context.Context, sockets []*websocket.Conn) (*Streams, error) {
	work, ctx := errgroup.WithContext(ctx)
	var err error
	if r.taps, err = newTaps(ctx, work, len(sockets)); err != nil {
		return nil, err
	}
	began := time.Now()
	for i := range r.opt.Streams {
		work.Go(func() error {
			if err := pause(ctx, time.Until(began.Add(r.opt.Warm/2*time.Duration(i)/time.Duration(r.opt.Streams)))); err != nil {
				return err
			}
			return r.stream(ctx, sockets[i*r.opt.Watchers:(i+1)*r.opt.Watchers])
		})
	}
	result := &Streams{}
	work.Go(func() error {
		if err := pause(ctx, r.opt.Warm); err != nil {
			return err
		}
		from := time.Now()
		r.counted.Store(true)
		err := pause(ctx, r.opt.Measure)
		r.counted.Store(false)
		result.Elapsed = time.Since(from)
		return err
	})
	if err := work.Wait(); err != nil {
		return nil, err //nolint:wrapcheck // the caller says whose it is
	}
	result.Events, result.Frames = r.events.Load(), r.frames.Load()
	result.Tokens, result.All = r.tokens.Load(), r.all.Load()
	for i := range r.delays.counts {
		result.delays.counts[i].Store(r.delays.counts[i].Load())
	}
	result.delays.total.Store(r.delays.total.Load())
	return result, nil
}

// stream submits one job and has its watchers watch it.
func (r *streaming) stream(ctx context.Context, sockets []*websocket.Conn) error {
	// Longer than the run by the first half of the warm-up: none ends before the
	// last was counted.
	tokens := int((r.opt.Warm + r.opt.Measure).Seconds() * float64(r.opt.Rate))
	body := fmt.Appendf(nil, `{"lane":"standard","body":{"model":"sim:tokens=%d,ttft=0s,gap=%s","messages":[{"role":"user","content":"go on"}]}}`,
		tokens, time.Second/time.Duration(r.opt.Rate))
	resp, err := r.server.do(ctx, http.MethodPost, "/v1/jobs", body)
	if err != nil {
		return err
	}
	var receipt struct {
		ID string `json:"id"`
	}
	err = json.UnmarshalRead(resp.Body, &receipt)
	_ = resp.Body.Close()
	if err != nil {
		return fmt.Errorf("the receipt of a job: %w", err)
	}
	r.mu.Lock()
	r.jobs = append(r.jobs, receipt.ID)
	r.mu.Unlock()
	subscribe := fmt.Appendf(nil, `{"op":"subscribe","sub":"a","job":%q}`, receipt.ID)
	for _, conn := range sockets {
		if err := conn.WriteMessage(websocket.TextMessage, subscribe); err != nil {
			return fmt.Errorf("subscribe to job %s: %w", receipt.ID, err)
		}
		if err := r.taps.add(&watcher{run: r, conn: conn.NetConn(), job: receipt.ID}); err != nil {
			return fmt.Errorf("watch job %s: %w", receipt.ID, err)
		}
	}
	return nil
}

// ended notes that a job needs no cancel.
func (r *streaming) ended(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs = slices.DeleteFunc(r.jobs, func(j string) bool { return j == id })
}

// cancelPatience bounds the cancelling of what goes on.
const cancelPatience = 30 * time.Second

// cancel ends the jobs that go on: nobody watches them any more.
func (r *streaming) cancel(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cancelPatience)
	defer cancel()
	var asked errgroup.Group
	asked.SetLimit(32)
	for _, id := range r.jobs {
		asked.Go(func() error {
			if resp, err := r.server.do(ctx, http.MethodPost, "/v1/jobs/"+id+"/cancel", nil); err == nil {
				_ = resp.Body.Close()
			}
			return nil // a job that cannot be cancelled comes to its end by itself
		})
	}
	_ = asked.Wait()
}

// frame takes a message of a watcher's. It tells whether it was the last.
func (r *streaming) frame(w *watcher, b []byte) (last bool, err error) {
	switch {
	case bytes.HasPrefix(b, []byte(`{"op":"events"`)):
		w.seq, err = r.take(b, w.seq)
		return false, err
	case bytes.HasPrefix(b, []byte(`{"op":"end"`)):
		r.ended(w.job)
		if !bytes.Contains(b, []byte(`"completed"`)) {
			return false, fmt.Errorf("it has ended otherwise than it should: %s", b)
		}
		return true, nil
	case bytes.HasPrefix(b, []byte(`{"op":"error"`)):
		return false, fmt.Errorf("the server says %s", b)
	default:
		return false, nil
	}
}

// What of a frame's text is looked for, without decoding it.
const (
	timeField = `"v":1,"time":"`
	seqField  = `"seq":`
	usedField = `"completion_tokens":`
)

// take counts the events of a frame. seq is the next that there has to be.
func (r *streaming) take(frame []byte, seq int64) (int64, error) {
	now, counted := time.Now(), r.counted.Load()
	if counted {
		r.frames.Add(1)
	}
	for {
		i := bytes.Index(frame, []byte(timeField))
		if i < 0 {
			return seq, nil
		}
		delta := bytes.HasSuffix(frame[:i], []byte(`{"type":"output.delta",`))
		completed := bytes.HasSuffix(frame[:i], []byte(`{"type":"output.completed",`))
		frame = frame[i+len(timeField):]
		const layout = "2006-01-02T15:04:05.000Z"
		if len(frame) < len(layout) {
			return seq, errors.New("an event without a time")
		}
		got := number(frame, seqField)
		if got != seq {
			return seq, fmt.Errorf("seq %d, where %d should be", got, seq)
		}
		seq++
		if completed {
			r.tokens.Add(number(frame, usedField))
		}
		if !delta {
			continue
		}
		r.all.Add(1)
		if !counted {
			continue
		}
		at, err := time.Parse(layout, string(frame[:len(layout)]))
		if err != nil {
			return seq, fmt.Errorf("the time of an event: %w", err)
		}
		r.events.Add(1)
		r.delays.add(now.Sub(at))
	}
}

// number is that behind a field's name, of this event or a later one; -1 where
// there is none.
func number(text []byte, field string) int64 {
	_, text, ok := bytes.Cut(text, []byte(field))
	if !ok {
		return -1
	}
	n := int64(0)
	for _, c := range text {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
