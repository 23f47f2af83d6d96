// Command watch loads a hub of streams, Penstock's gateway or another, with watchers,
// and says what that cost and how late they were: one row. `make bench-hubs` runs it
// on one server after the other.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/bench/tally"
)

// options are the flags.
type options struct {
	server, via, url, metrics string
	idle                      int
	streams, watchers, rate   int
	warm, measure             time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.server, "server", "penstock", "penstock, centrifuge or mercure")
	flag.StringVar(&o.via, "via", "ws", "ws or sse")
	flag.StringVar(&o.url, "url", "", "the server's")
	flag.StringVar(&o.metrics, "metrics", "", "where the server's /metrics and /debug/pprof are; a URL")
	flag.IntVar(&o.idle, "idle", 0, "connections to hold, each with one subscription, in place of streams")
	flag.IntVar(&o.streams, "streams", 1, "streams at once")
	flag.IntVar(&o.watchers, "watchers", 1, "watchers of each")
	flag.IntVar(&o.rate, "rate", 50, "tokens a second of each stream")
	flag.DurationVar(&o.warm, "warm", 6*time.Second, "before anything is counted")
	flag.DurationVar(&o.measure, "measure", 10*time.Second, "how long is counted")
	flag.Parse()
	row := o.stream
	if o.idle > 0 {
		row = o.hold
	}
	if err := row(context.Background()); err != nil {
		log.Fatalf("%s over %s: %v", o.server, o.via, err)
	}
}

// run is one run of streams.
type run struct {
	tally.Tally

	errs         chan error    // of each watcher and publisher
	room         chan struct{} // holds a token for each watcher that connects
	work, joined sync.WaitGroup
}

// slack is how long the streams go on beyond what is counted, so that all watchers
// may join late.
const slack = 10 * time.Second

// stream has the server stream, and watches.
func (o options) stream(ctx context.Context) error {
	r := &run{errs: make(chan error, o.streams*o.watchers+1), room: make(chan struct{}, 50)}
	begun, err := o.begin(ctx, r)
	if err != nil {
		return err
	}
	if late := time.Since(begun) - o.warm; late > slack-time.Second {
		return fmt.Errorf("the watchers had joined %v after the warm-up", late)
	}
	time.Sleep(time.Until(begun.Add(o.warm)))
	before, err := o.observe(ctx)
	if err != nil {
		return err
	}
	mine, from := ownCPU(), time.Now()
	r.Counted.Store(true)
	time.Sleep(o.measure)
	r.Counted.Store(false)
	took := time.Since(from)
	mine = ownCPU() - mine
	after, err := o.observe(ctx)
	if err != nil {
		return err
	}
	r.work.Wait()
	close(r.errs)
	failed := 0
	for e := range r.errs {
		if e != nil {
			failed, err = failed+1, e
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d watchers did not get all, such as: %w", failed, o.streams*o.watchers, err)
	}
	tokens := max(float64(r.Tokens.Load()), 1)
	late := func(p float64) float64 { return float64(r.Delays.Percentile(p)) / float64(time.Millisecond) }
	fmt.Printf("| %s | %s | %d × %d | %d | %.0f | %.1f ms | %.1f ms | %.1f µs | %.1f µs | %.0f MiB |\n", o.server, o.via, o.streams, o.watchers,
		o.streams*o.watchers*o.rate, tokens/took.Seconds(), late(.5), late(.99),
		(after.cpu-before.cpu)*1e6/tokens, mine.Seconds()*1e6/tokens, after.resident/(1<<20))
	return nil
}

// begin has the streams begin and all watchers join, and says when the first began.
// A job of Penstock's is made first: a watcher gets it from its beginning.
func (o options) begin(ctx context.Context, r *run) (time.Time, error) {
	seconds := int((o.warm + o.measure + slack).Seconds())
	stagger := o.warm / 2
	if o.server == "penstock" { // one job first: by then its lanes have owners
		id, err := o.submit(ctx, 1)
		if err == nil {
			_, err = text(ctx, o.url+"/v1/jobs/"+id+"?wait=30s")
		}
		if err != nil {
			return time.Time{}, err
		}
	}
	begun := time.Now()
	for i := range o.streams {
		channel := fmt.Sprint("s", i)
		if o.server == "penstock" {
			time.Sleep(time.Until(begun.Add(stagger * time.Duration(i) / time.Duration(o.streams))))
			var err error
			if channel, err = o.submit(ctx, seconds); err != nil {
				return begun, err
			}
		}
		for range o.watchers {
			r.join(ctx, o, channel)
		}
	}
	r.joined.Wait()
	if o.server != "penstock" {
		begun = time.Now()
		at := fmt.Sprintf("%s/publish?streams=%d&rate=%d&seconds=%d&stagger=%d", o.url, o.streams, o.rate, seconds, int(stagger.Seconds()))
		r.work.Go(func() { r.errs <- post(ctx, at, nil, nil) })
	}
	return begun, nil
}

// join has one more watcher, of whom so many connect at a time.
func (r *run) join(ctx context.Context, o options, channel string) {
	r.room <- struct{}{}
	r.joined.Add(1)
	r.work.Go(func() {
		w, err := o.dial(ctx, channel)
		r.joined.Done()
		<-r.room
		if err == nil {
			err = r.watch(w)
			_ = w.Close()
		}
		r.errs <- err
	})
}

// hold opens connections, each with one subscription to a channel of its own
// (Penstock's to the partitions by turns), of which nothing comes.
func (o options) hold(ctx context.Context) error {
	first, err := o.open(ctx, 24) // what the first few make is nobody's
	if err != nil {
		return err
	}
	closeAll(first)
	time.Sleep(3 * time.Second)
	before, err := o.observe(ctx)
	if err != nil {
		return err
	}
	held, err := o.open(ctx, o.idle)
	if err != nil {
		return err
	}
	defer closeAll(held)
	time.Sleep(8 * time.Second)
	after, err := o.observe(ctx)
	if err != nil {
		return err
	}
	n := float64(o.idle)
	fmt.Printf("| %s | %s | %d | %.1f KiB | %.1f KiB | %.1f |\n", o.server, o.via, o.idle, (after.resident-before.resident)/n/1024,
		(after.heap+after.stacks-before.heap-before.stacks)/n/1024, (after.goroutines-before.goroutines)/n)
	return nil
}

func (o options) open(ctx context.Context, n int) ([]watcher, error) {
	held := make([]watcher, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	room := make(chan struct{}, 50)
	for i := range held {
		room <- struct{}{}
		wg.Go(func() {
			held[i], errs[i] = o.dial(ctx, fmt.Sprint(idlePrefix, i))
			<-room
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		closeAll(held)
		return nil, err
	}
	return held, nil
}

func closeAll(all []watcher) {
	for _, w := range all {
		if w != nil {
			_ = w.Close()
		}
	}
}

// submit makes a job of Penstock's that streams.
func (o options) submit(ctx context.Context, seconds int) (id string, err error) {
	body := fmt.Sprintf(`{"lane":"standard","body":{"model":"sim:tokens=%d,ttft=0s,gap=%s","messages":[{"role":"user","content":"go on"}]}}`,
		o.rate*seconds, time.Second/time.Duration(o.rate))
	var receipt struct {
		ID string `json:"id"`
	}
	err = post(ctx, o.url+"/v1/jobs", strings.NewReader(body), &receipt)
	return receipt.ID, err
}

func post(ctx context.Context, at string, body io.Reader, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(text, into)
	}
	return err
}

// host is a URL's host:port.
func host(at string) string {
	u, err := url.Parse(at)
	if err != nil {
		return at
	}
	return u.Host
}
