package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/schemas"
)

// wsPatience bounds a client's wait for a frame.
const wsPatience = time.Minute

// frameSchemas are those of a client's and of the server's frames.
var frameSchemas = sync.OnceValues(func() (client, server *jsonschema.Schema) {
	client, cerr := schemas.Compile("ws/client.json")
	server, serr := schemas.Compile("ws/server.json")
	if err := errors.Join(cerr, serr); err != nil {
		panic(err)
	}
	return client, server
})

// gotFrame is a server's frame as a client got it.
type gotFrame struct {
	raw          string
	Op           string         `json:"op"`
	Ref          string         `json:"ref"`
	Sub          string         `json:"sub"`
	Cursor       string         `json:"cursor"`
	Status       string         `json:"status"`
	ID           string         `json:"id"`
	Job          jsontext.Value `json:"job"`
	Code         fault.Code     `json:"code"`
	Message      string         `json:"message"`
	Param        string         `json:"param"`
	RetryAfterMS int64          `json:"retry_after_ms"`
	ReconnectMS  int64          `json:"reconnect_ms"`
	Version      int            `json:"version"`
	PingMS       int64          `json:"ping_ms"`
	Connection   string         `json:"connection"`
	Limits       struct {
		Subscriptions int `json:"subscriptions"`
		FrameBytes    int `json:"frame_bytes"`
	} `json:"limits"`
	Events []jsontext.Value `json:"events"`
}

// wsClient is a WebSocket client. Every frame that it gets is held to its schema.
type wsClient struct {
	g    *ground
	conn *websocket.Conn
}

// dial connects and takes the welcome.
func (g *ground) dial() *wsClient {
	g.Helper()
	c := g.dialRaw()
	if f := c.next(); f.Op != "welcome" {
		g.Fatalf("the first frame is %s", f.raw)
	}
	return c
}

func (g *ground) dialRaw(headers ...string) *wsClient {
	g.Helper()
	c, no := g.tryDial(headers...)
	if c == nil {
		g.Fatalf("dial: %d, %s", no.status, no.body)
	}
	return c
}

// refusal is how a handshake was answered that came to nothing.
type refusal struct {
	status     int
	body       string
	retryAfter string
}

// tryDial connects, or is refused.
func (g *ground) tryDial(headers ...string) (*wsClient, refusal) {
	g.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Add(headers[i], headers[i+1])
	}
	d := websocket.Dialer{HandshakeTimeout: wsPatience, Subprotocols: []string{"penstock.v1"}}
	conn, resp, err := d.Dial("ws"+strings.TrimPrefix(g.url, "http")+"/v1/ws", h)
	if resp == nil {
		g.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err != nil {
		body, err := io.ReadAll(resp.Body)
		g.no(err)
		return nil, refusal{resp.StatusCode, string(body), resp.Header.Get("Retry-After")}
	}
	c := &wsClient{g, conn}
	g.Cleanup(c.close)
	return c, refusal{}
}

func (c *wsClient) close() { _ = c.conn.Close() }

// raw sends a text frame as it stands.
func (c *wsClient) raw(text string) {
	c.g.Helper()
	c.g.no(c.conn.WriteMessage(websocket.TextMessage, []byte(text)))
}

// say sends a frame that is as its schema wants it.
func (c *wsClient) say(text string) {
	c.g.Helper()
	client, _ := frameSchemas()
	doc, err := schemas.Parse([]byte(text))
	c.g.no(err)
	if err := client.Validate(doc); err != nil {
		c.g.Errorf("%s: %v", text, err)
	}
	c.raw(text)
}

func (c *wsClient) try() (gotFrame, error) {
	var f gotFrame
	if err := c.conn.SetReadDeadline(time.Now().Add(wsPatience)); err != nil {
		return f, err
	}
	kind, raw, err := c.conn.ReadMessage()
	if err != nil {
		return f, err
	}
	if kind != websocket.TextMessage {
		return f, errors.New("a frame that is not text")
	}
	f.raw = string(raw)
	_, server := frameSchemas()
	doc, err := schemas.Parse(raw)
	if err != nil {
		return f, err
	}
	if err := server.Validate(doc); err != nil {
		return f, err
	}
	return f, json.Unmarshal(raw, &f)
}

// next is the next frame, whatever it is.
func (c *wsClient) next() gotFrame {
	c.g.Helper()
	f, err := c.try()
	c.g.no(err)
	return f
}

// want is the next frame, which has to be of this op.
func (c *wsClient) want(op string) gotFrame {
	c.g.Helper()
	f := c.next()
	if f.Op != op {
		c.g.Fatalf("got %.300s, want %s", f.raw, op)
	}
	return f
}

// refused wants an error of a code, for a ref.
func (c *wsClient) refused(code fault.Code, ref, param string) gotFrame {
	c.g.Helper()
	f := c.want("error")
	if f.Code != code || f.Ref != ref || f.Param != param {
		c.g.Fatalf("got %s, want %s of %q for %q", f.raw, code, param, ref)
	}
	return f
}

// list reads the events of a frame.
func (f gotFrame) list(tb testing.TB) []got {
	tb.Helper()
	all := make([]got, len(f.Events))
	for i, raw := range f.Events {
		all[i].data = string(raw)
		if err := json.Unmarshal(raw, &all[i]); err != nil {
			tb.Fatal(err)
		}
	}
	return all
}

// atLeast gathers events of a subscription until there are n.
func (c *wsClient) atLeast(n int) (all []got, cursor string) {
	c.g.Helper()
	for len(all) < n {
		f := c.want("events")
		all, cursor = append(all, f.list(c.g)...), f.Cursor
	}
	return all, cursor
}

// untilEnd gathers the events of the one subscription up to its end.
func (c *wsClient) untilEnd() (all []got, status string) {
	c.g.Helper()
	for {
		f := c.next()
		switch f.Op {
		case "events":
			all = append(all, f.list(c.g)...)
		case "end":
			return all, f.Status
		default:
			c.g.Fatalf("got %s", f.raw)
		}
	}
}

// closed reads until the connection ends and gives the close code.
func (c *wsClient) closed() int {
	c.g.Helper()
	for {
		_, err := c.try()
		if err == nil {
			continue
		}
		if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
			return ce.Code
		}
		c.g.Fatalf("the connection ended with %v", err)
	}
}

func subscribeJob(sub string, a *author, more ...string) string {
	return `{"op":"subscribe","ref":"r-` + sub + `","sub":"` + sub + `","job":"` + a.head.Job + `"` + strings.Join(more, "") + `}`
}

// jobsIn takes jobs in by writing their requests, by hand.
type jobsIn struct {
	Intake // cancels nothing

	g    *ground
	mu   sync.Mutex
	keys map[string]*job.Resource
	hold chan struct{} // not nil: Submit waits for it
	err  error
}

func (*jobsIn) Decode(body []byte) (job.Request, error) {
	if strings.Contains(string(body), "bad") {
		return job.Request{}, fault.Param("body.model", "it is bad")
	}
	return job.Request{Body: jsontext.Value(`{"model":"sim"}`)}, nil
}

func (i *jobsIn) Submit(_ context.Context, tenant string, _ job.Request, opts job.SubmitOptions) (*job.Resource, error) {
	if i.hold != nil {
		<-i.hold
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return nil, i.err
	}
	if res := i.keys[opts.IdempotencyKey]; res != nil && opts.IdempotencyKey != "" {
		again := *res
		again.Replayed = true
		return &again, nil
	}
	a := i.g.author()
	a.head.Tenant = tenant
	a.request(event.Standard) //nolint:contextcheck // it has the test's own
	res := &job.Resource{Object: "job", ID: a.head.Job, Status: job.Queued, CreatedAt: job.Time{Time: time.Now()}, Links: job.LinksOf(a.head.Job)}
	i.keys[opts.IdempotencyKey] = res
	return res, nil
}

// restart ends the gateway and starts another with what change makes of its
// configuration.
func (g *ground) restart(change func(*Config)) {
	g.Helper()
	g.stop()
	cfg := g.gateway.cfg
	change(&cfg)
	g.gateway = New(cfg)
	g.run()
}

// rawConn is a TCP connection that did the handshake and no more.
func (g *ground) rawConn() net.Conn {
	g.Helper()
	return g.dial().conn.UnderlyingConn()
}
