package chaos

import (
	"context"
	"log/slog"
	"time"
)

// waiting is work that ends by itself, if all is well.
type waiting struct{ done chan struct{} }

// Go starts the work.
func (w *waiting) Go(work func()) {
	w.done = make(chan struct{})
	go func() {
		defer close(w.done)
		work()
	}()
}

// Wait waits for its end.
func (w *waiting) Wait() { <-w.done }

// settle waits for its end for as long as there is progress, and tells whether it
// came.
func (w *waiting) settle(ctx context.Context, progress func() (done, of int64), log *slog.Logger) bool {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	last, since := int64(-1), time.Now()
	for {
		select {
		case <-w.done:
			return true
		case <-ctx.Done():
			return false
		case now := <-tick.C:
			done, of := progress()
			if done != last {
				last, since = done, now
			}
			log.InfoContext(ctx, "settling", "events", done, "open", of)
			if now.Sub(since) > patience {
				return false
			}
		}
	}
}

// progress is how many events the readers have, and how many readers still wait
// for their job's end.
func (t *traffic) progress() (events, open int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.readers {
		events += r.Next()
		if !r.Ended() {
			open++
		}
	}
	return events, open
}

// close waits for what the traffic started, and lets its connections go.
func (t *traffic) close() {
	t.wg.Wait()
	t.out.Close()
	t.http.CloseIdleConnections()
}
