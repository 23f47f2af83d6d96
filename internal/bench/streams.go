package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/bench/tally"
)

// StreamsOptions say what is streamed, and to whom.
type StreamsOptions struct {
	Streams  int           // jobs that run at once
	Watchers int           // of each job, every one with a WebSocket of its own
	Rate     int           // tokens a second of each job
	Warm     time.Duration // of streaming before anything is counted; the jobs begin within half of it
	Measure  time.Duration // of streaming that is counted
}

// Streams is what came of it.
type Streams struct {
	*tally.Tally
	Elapsed time.Duration // while it was counted
}

// TokensPerSecond is how many tokens were delivered a second.
func (s *Streams) TokensPerSecond() float64 {
	if s.Elapsed == 0 {
		return 0
	}
	return float64(s.Tokens.Load()) / s.Elapsed.Seconds()
}

// streaming is one run.
type streaming struct {
	tally.Tally

	server *Server
	opt    StreamsOptions
	taps   *taps

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
	result := &Streams{Tally: &r.Tally}
	work.Go(func() error {
		if err := pause(ctx, r.opt.Warm); err != nil {
			return err
		}
		from := time.Now()
		r.Counted.Store(true)
		err := pause(ctx, r.opt.Measure)
		r.Counted.Store(false)
		result.Elapsed = time.Since(from)
		return err
	})
	if err := work.Wait(); err != nil {
		return nil, err //nolint:wrapcheck // the caller says whose it is
	}
	return result, nil
}

// stream submits one job and has its watchers watch it.
func (r *streaming) stream(ctx context.Context, sockets []*websocket.Conn) error {
	// Longer than the run by the first half of the warm-up: none ends before the
	// last was counted.
	gap := time.Second / time.Duration(r.opt.Rate)
	tokens := int((r.opt.Warm + r.opt.Measure).Seconds() * float64(r.opt.Rate))
	body := fmt.Appendf(nil, `{"lane":"standard","body":{"model":"sim:tokens=%d,ttft=0s,gap=%s","messages":[{"role":"user","content":"go on"}]}}`,
		tokens, gap)
	resp, err := r.server.submit(ctx, body)
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
		if err := r.taps.add(&watcher{run: r, conn: conn.NetConn(), job: receipt.ID, stream: tally.Stream{Gap: gap}}); err != nil {
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
		_, err = r.Take(b, &w.stream)
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
