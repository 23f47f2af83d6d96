package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tmaxmax/go-sse"

	"github.com/penstock-io/penstock/internal/event"
)

const (
	// defaultSilence is three of the server's heartbeats.
	defaultSilence = 45 * time.Second
	// maxEvent bounds an event, in bytes: one record, with a wide margin.
	maxEvent = 16 << 20
)

// ErrUnfinished says that a stream is over and its job has not ended.
var ErrUnfinished = errors.New("the stream ended before the job did")

// Event is an event of a stream.
type Event struct {
	Cursor string     // behind it
	Data   []byte     // the record as it stands
	View   event.View // its head
}

// Place says from where a job is followed. The zero Place is its beginning.
type Place struct {
	Cursor string // behind it, in place of the beginning
	// Partition is where an outside producer put the job, if that is not where
	// its id's hash says; nil where that is not known.
	Partition *int32
}

// Follow yields a job's events from a place up to its end. Where the connection
// is cut it is taken up again, as long as every few tries bring something.
func (c *Client) Follow(ctx context.Context, id string, from Place) iter.Seq2[Event, error] {
	query := url.Values{}
	if from.Partition != nil {
		query.Set("partition", strconv.Itoa(int(*from.Partition)))
	}
	return func(yield func(Event, error) bool) {
		cursor := from.Cursor
		for try := 0; ; try++ {
			f := follower{c: c, yield: yield, cursor: cursor}
			over, err := f.connect(ctx, request{
				method: http.MethodGet, path: jobPath(id) + "/events", query: query, lastEvent: cursor, stream: true,
			})
			if over {
				return
			}
			cursor = f.cursor
			if f.any {
				try = 0
			}
			if err == nil {
				err = ErrUnfinished
			}
			retry := c.again(err) || errors.Is(err, ErrUnfinished)
			if ctx.Err() != nil || !retry || try >= c.cfg.Tries {
				yield(Event{}, err)
				return
			}
			if err := pause(ctx, c.delay(err, try+1)); err != nil {
				yield(Event{}, err)
				return
			}
		}
	}
}

// follower is one connection of a stream.
type follower struct {
	c      *Client
	yield  func(Event, error) bool
	cursor string
	any    bool // an event came that was further on
}

// connect reads one connection. over says that nothing is left to be yielded.
func (f *follower) connect(ctx context.Context, r request) (over bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(f.c.cfg.Silence, func() { cancel(errSilence) })
	defer silence.Stop()
	res, err := f.c.send(ctx, r)
	if err != nil {
		return false, err
	}
	defer res.Body.Close() //nolint:errcheck // it was read, or is given up
	if res.StatusCode == http.StatusNoContent {
		return true, nil // everything was had before
	}
	body := heard{res.Body, func() { silence.Reset(f.c.cfg.Silence) }}
	for e, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return false, f.c.cut(ctx, err)
		}
		if e.Data == "" {
			continue
		}
		ev := Event{Cursor: e.LastEventID, Data: []byte(e.Data)}
		if ev.View, err = event.ScanHead(ev.Data); err != nil {
			f.yield(Event{}, fmt.Errorf("the stream holds what is no event: %w", err))
			return true, nil
		}
		f.any = f.any || ev.Cursor != f.cursor // the same again brings nothing
		f.cursor = ev.Cursor
		if !f.yield(ev, nil) || ev.View.Type.Output() && ev.View.Type.Terminal() {
			return true, nil
		}
	}
	return false, nil
}

// heard tells of every read that brought something.
type heard struct {
	io.Reader
	some func()
}

// Read implements io.Reader.
func (h heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if n > 0 {
		h.some()
	}
	return n, err //nolint:wrapcheck // a reader's contract
}
