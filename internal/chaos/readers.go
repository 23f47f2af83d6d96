package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
)

// client follows one job to its end, by whatever gateway answers, from where it
// was cut off.
type client struct {
	*Reader
	http      *http.Client
	random    *rand.Rand
	gateways  []string // URLs
	partition int32    // of the job
	cursor    string
	cutting   bool // cut off at random places, by itself
}

// silence is how long a stream may say nothing: a gateway's heartbeat is due
// after 15 s.
const silence = 25 * time.Second

// errCut is why a client left that was to leave.
var errCut = errors.New("cut off")

// follow reads to the job's end, or until ctx ends, by read, which is bySSE or
// bySocket.
func (c *client) follow(ctx context.Context, read func(ctx context.Context, gateway string) error) {
	for ctx.Err() == nil && !c.Ended() {
		gateway := c.gateways[c.random.IntN(len(c.gateways))]
		bounded, cancel := context.WithCancelCause(ctx)
		err := read(bounded, gateway)
		cancel(nil)
		if c.Ended() || ctx.Err() != nil {
			return
		}
		if !errors.Is(err, errCut) {
			pause(ctx, time.Duration(100+c.random.IntN(300))*time.Millisecond)
		}
	}
}

// cutAt is after how many events a client leaves; it may be never.
func (c *client) cutAt() int {
	if !c.cutting {
		return -1
	}
	return 1 + c.random.IntN(40)
}

// bySSE reads a stream of server-sent events until it ends.
func (c *client) bySSE(ctx context.Context, gateway string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silent := time.AfterFunc(silence, cancel)
	defer silent.Stop()
	url := fmt.Sprintf("%s/v1/jobs/%s/events?partition=%d", gateway, c.Job, c.partition)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err //nolint:wrapcheck // it is told nobody
	}
	if c.cursor != "" {
		req.Header.Set("Last-Event-ID", c.cursor)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		c.refused(gateway, resp.StatusCode, string(text))
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	at, id := c.cutAt(), ""
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err //nolint:wrapcheck // as above
		}
		silent.Reset(silence)
		line = strings.TrimSuffix(line, "\n")
		if after, ok := strings.CutPrefix(line, "id: "); ok {
			id = after
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		c.got([]byte(data), id)
		if at--; at == 0 {
			return errCut
		}
	}
}

// refused takes an answer that is no stream. One that says that the job is not
// there, or that nothing follows though its end was not seen, breaks a promise.
func (c *client) refused(gateway string, status int, body string) {
	switch status {
	case http.StatusNotFound, http.StatusBadRequest:
		c.Fail(Lost, fmt.Sprintf("of an accepted job %s answers %d: %s", gateway, status, body))
	case http.StatusNoContent:
		c.Fail(Lost, fmt.Sprintf("%s says that nothing follows, and the end was not seen: it stood at seq %d (%s)", gateway, c.Next()-1, c.cursor))
	default: // it has no time, and says so
	}
}

// got takes one event of a stream, and the place behind it.
func (c *client) got(data []byte, cursor string) {
	v, err := event.ScanHead(data)
	switch {
	case err == nil && v.Type.Output():
		c.Take(&v, time.Now())
	case strings.HasPrefix(string(data), `{"type":"stream.gap"`):
		c.Fail(Lost, "the gateway tells of a gap: "+string(data))
	default:
		c.Fail(Lost, fmt.Sprintf("got what is no event of a job (%v): %s", err, data))
	}
	if cursor != "" {
		c.cursor = cursor
	}
}

// frame is a WebSocket frame of the server's.
type frame struct {
	Op      string           `json:"op"`
	Cursor  string           `json:"cursor"`
	Events  []jsontext.Value `json:"events"`
	Code    string           `json:"code"`
	Message string           `json:"message"`
	Job     job.Resource     `json:"job"`
}

// bySocket reads a subscription of a WebSocket until it ends.
func (c *client) bySocket(ctx context.Context, gateway string) error {
	conn, hangUp, err := connect(ctx, gateway)
	if err != nil {
		return err
	}
	defer hangUp()
	ask := map[string]any{"op": "subscribe", "ref": "1", "sub": "a", "job": c.Job, "partition": c.partition}
	if c.cursor != "" {
		ask["cursor"] = c.cursor
	}
	if err := conn.WriteJSON(ask); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	alive := func(string) error { return conn.SetReadDeadline(time.Now().Add(2 * silence)) }
	pong := conn.PingHandler()
	conn.SetPingHandler(func(text string) error { return errors.Join(alive(text), pong(text)) })
	for at := c.cutAt(); ; {
		_ = alive("") // a read says what is wrong with the connection
		_, raw, err := conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		var f frame
		if err := json.Unmarshal(raw, &f); err != nil {
			c.Fail(Lost, fmt.Sprintf("got a frame that is none: %v: %s", err, raw))
			return errCut
		}
		switch f.Op {
		case "events":
			for _, e := range f.Events {
				c.got(e, "")
			}
			c.cursor = f.Cursor
			if at -= len(f.Events); at == 0 || at < 0 && c.cutting {
				return errCut
			}
		case "error":
			if f.Code == "not_found" || f.Code == "invalid_request" {
				c.refused(gateway, http.StatusNotFound, string(raw))
			}
			return fmt.Errorf("%s: %s", f.Code, f.Message)
		case "end":
			if !c.Ended() {
				c.refused(gateway, http.StatusNoContent, "")
			}
			return errCut
		case "goaway":
			return errCut
		default: // welcome, subscribed
		}
		if c.Ended() {
			return nil
		}
	}
}
