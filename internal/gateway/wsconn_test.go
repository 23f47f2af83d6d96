package gateway

import (
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

func TestAConnectionIsToldWhatIsWrongAndStays(t *testing.T) {
	g := onOne(t, Config{})
	foreign := g.author()
	foreign.head.Tenant = "somebody"
	foreign.request(event.Interactive)
	foreign.whole(1)
	c := g.dial()
	for frame, want := range map[string]struct {
		code  fault.Code
		param string
	}{
		``:                                     {fault.InvalidJSON, ""},
		`nope`:                                 {fault.InvalidJSON, ""},
		`{"op":"ping"`:                         {fault.InvalidJSON, ""},
		`[]`:                                   {fault.InvalidRequest, ""},
		`null`:                                 {fault.InvalidRequest, ""},
		`{}`:                                   {fault.InvalidRequest, "op"},
		`{"op":"dance"}`:                       {fault.InvalidRequest, "op"},
		`{"op":7}`:                             {fault.InvalidRequest, "op"},
		`{"op":"ping","x":1}`:                  {fault.InvalidRequest, "x"},
		`{"op":"subscribe","job":"j"}`:         {fault.InvalidRequest, "sub"},
		`{"op":"subscribe","sub":"a"}`:         {fault.InvalidRequest, ""},
		`{"op":"subscribe","sub":"a","x":1}`:   {fault.InvalidRequest, "x"},
		`{"op":"subscribe","sub":"a","job":1}`: {fault.InvalidRequest, "job"},
		`{"op":"subscribe","sub":"a","job":"j","batch":"b"}`:                                  {fault.InvalidRequest, ""},
		`{"op":"subscribe","sub":"a","job":"j","credit":0}`:                                   {fault.InvalidRequest, "credit"},
		`{"op":"subscribe","sub":"a","job":"j","offset":0}`:                                   {fault.InvalidRequest, "offset"},
		`{"op":"subscribe","sub":"a","job":"j","snapshot":true,"cursor":"x"}`:                 {fault.InvalidRequest, "snapshot"},
		`{"op":"subscribe","sub":"a","job":"j","partition":99}`:                               {fault.InvalidRequest, "partition"},
		`{"op":"subscribe","sub":"a","job":"-no"}`:                                            {fault.NotFound, ""},
		`{"op":"subscribe","sub":"a","job":"` + foreign.head.Job + `"}`:                       {fault.NotFound, ""},
		`{"op":"subscribe","sub":"a","job":"` + g.author().head.Job + `"}`:                    {fault.NotFound, ""},
		`{"op":"subscribe","sub":"a","job":"` + foreign.head.Job + `","cursor":"x"}`:          {fault.InvalidCursor, "cursor"},
		`{"op":"subscribe","sub":"a","batch":"batch_1"}`:                                      {fault.NotFound, "batch"},
		`{"op":"subscribe","sub":"a","conversation":"-no"}`:                                   {fault.InvalidRequest, "conversation"},
		`{"op":"subscribe","sub":"a","conversation":"c","partition":-1}`:                      {fault.InvalidRequest, "partition"},
		`{"op":"subscribe","sub":"a","conversation":"c","snapshot":true}`:                     {fault.InvalidRequest, "snapshot"},
		`{"op":"subscribe","sub":"a","conversation":"c","cursor":"x"}`:                        {fault.InvalidCursor, "cursor"},
		`{"op":"subscribe","sub":"a","job":"j","partition":1e10}`:                             {fault.InvalidRequest, "partition"},
		`{"op":"subscribe","sub":"a","job":"j","partition":0.5}`:                              {fault.InvalidRequest, "partition"},
		`{"op":"cancel","job":"j","partition":-1}`:                                            {fault.InvalidRequest, "partition"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"offset":0.5}`:            {fault.InvalidRequest, "offset"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"credit":1.5}`:            {fault.InvalidRequest, "credit"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"credit":1e13}`:           {fault.InvalidRequest, "credit"},
		`{"op":"subscribe","sub":"a","topic":"jobs","partition":0}`:                           {fault.InvalidRequest, "topic"},
		`{"op":"subscribe","sub":"a","topic":"tokens"}`:                                       {fault.InvalidRequest, "partition"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":3}`:                         {fault.InvalidRequest, "partition"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"offset":-1}`:             {fault.InvalidRequest, "offset"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"offset":1.5}`:            {fault.InvalidRequest, "offset"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"offset":"x"}`:            {fault.InvalidRequest, "offset"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"offset":{}}`:             {fault.InvalidRequest, "offset"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"offset":9999}`:           {fault.InvalidRequest, "offset"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"offset":0,"cursor":"x"}`: {fault.InvalidRequest, "offset"},
		`{"op":"subscribe","sub":"a","topic":"tokens","partition":0,"cursor":"x"}`:            {fault.InvalidCursor, "cursor"},
		`{"op":"subscribe","sub":"` + strings.Repeat("a", 129) + `","job":"j"}`:               {fault.InvalidRequest, "sub"},
		`{"op":"unsubscribe"}`:                          {fault.InvalidRequest, "sub"},
		`{"op":"unsubscribe","sub":"none"}`:             {fault.InvalidRequest, "sub"},
		`{"op":"unsubscribe","sub":"none","job":"j"}`:   {fault.InvalidRequest, "job"},
		`{"op":"credit","n":1}`:                         {fault.InvalidRequest, "sub"},
		`{"op":"credit","sub":"none","n":1}`:            {fault.InvalidRequest, "sub"},
		`{"op":"credit","sub":"none"}`:                  {fault.InvalidRequest, "n"},
		`{"op":"credit","sub":"none","n":-1}`:           {fault.InvalidRequest, "n"},
		`{"op":"credit","sub":"none","n":"1"}`:          {fault.InvalidRequest, "n"},
		`{"op":"submit"}`:                               {fault.InvalidRequest, "job"},
		`{"op":"submit","job":{},"x":1}`:                {fault.InvalidRequest, "x"},
		`{"op":"submit","job":{},"idempotency_key":""}`: {fault.InvalidRequest, "idempotency_key"},
		`{"op":"submit","job":{}}`:                      {fault.InvalidRequest, "op"}, // nobody takes it in here
		`{"op":"cancel"}`:                               {fault.InvalidRequest, "job"},
		`{"op":"cancel","job":"j","x":1}`:               {fault.InvalidRequest, "x"},
		`{"op":"cancel","job":"j"}`:                     {fault.InvalidRequest, "op"},
	} {
		c.raw(frame)
		f := c.want("error")
		if f.Code != want.code || f.Param != want.param || f.Message == "" || strings.Contains(f.Message, "the body") {
			t.Errorf("%s: got %s, want %s of %q", frame, f.raw, want.code, want.param)
		}
	}
	for _, frame := range []string{`{"op":"subscribe","sub":"b","x":1}`, `{"op":"submit","sub":"b","x":1}`} {
		c.raw(frame)
		if f := c.want("error"); f.Sub != "b" {
			t.Errorf("%s: got %s, want it to say that b is no subscription", frame, f.raw)
		}
	}
	g.no(c.conn.WriteMessage(websocket.BinaryMessage, []byte(`{"op":"ping"}`)))
	c.refused(fault.InvalidJSON, "", "")
	c.say(`{"op":"ping"}`)
	c.want("pong")
}

func TestOneSubscriptionTooManyIsRefused(t *testing.T) {
	t.Parallel()
	g := onOne(t, Config{MaxSubscriptions: maxSubscriptions + 1})
	a := g.author()
	a.started()
	c := g.dial()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range maxSubscriptions + 1 {
			c.raw(subscribeJob(strconv.Itoa(i), a))
		}
		c.raw(subscribeJob("5", a)) // the name is taken
	})
	subscribed, refused := 0, 0
	for refused < 2 || subscribed < maxSubscriptions {
		switch f := c.next(); f.Op {
		case "subscribed":
			subscribed++
		case "error":
			refused++
			if f.Code != fault.InvalidRequest || f.Param != "sub" || f.Sub != "" {
				t.Errorf("got %s", f.raw)
			}
		}
	}
	wg.Wait()
	c.say(`{"op":"unsubscribe","ref":"u","sub":"5"}`)
	for f := c.next(); f.Op != "end"; f = c.next() {
		if f.Op != "events" {
			t.Errorf("got %s", f.raw)
		}
	}
	// All connections together have a bound as well.
	d := g.dial()
	for _, sub := range []string{"1", "2"} {
		d.say(subscribeJob(sub, a))
		d.want("subscribed")
		d.want("events")
	}
	d.say(subscribeJob("3", a))
	if f := d.refused(fault.Unavailable, "r-3", ""); f.RetryAfterMS == 0 {
		t.Errorf("got %s", f.raw)
	}
}

func TestOneConnectionTooManyIsRefused(t *testing.T) {
	g := onOne(t, Config{MaxConnections: 1})
	c := g.dial()
	d, no := g.tryDial()
	if d != nil || no.status != http.StatusServiceUnavailable || no.retryAfter == "" || !strings.Contains(no.body, `"unavailable"`) {
		t.Fatalf("got %+v, want 503 with Retry-After", no)
	}
	c.close()
	eventually(t, func() bool {
		d, _ := g.tryDial()
		return d != nil
	})
}

func TestOnlyPagesThatAreLetInMayConnect(t *testing.T) {
	g := onOne(t, Config{Origins: []string{"https://chat.example"}})
	host := strings.TrimPrefix(g.url, "http://")
	for origin, ok := range map[string]bool{
		"": true, "http://" + host: true, "https://chat.example": true, "https://CHAT.example": true,
		"https://evil.example": false, "null": false, "https://chat.example.evil": false, "http://%zz": false,
	} {
		var headers []string
		if origin != "" {
			headers = []string{"Origin", origin}
		}
		c, no := g.tryDial(headers...)
		if (c != nil) != ok || !ok && no.status != http.StatusBadRequest {
			t.Errorf("%q: %+v", origin, no)
		}
	}
	g.restart(func(c *Config) { c.Origins = []string{"*"} })
	g.dialRaw("Origin", "https://evil.example")
}

func TestTheHandshake(t *testing.T) {
	g := onOne(t, Config{})
	if body := g.open("/v1/ws").status(http.StatusBadRequest); !strings.Contains(body, "WebSocket client") {
		t.Errorf("a plain GET: %s", body)
	}
	old := g.open("/v1/ws", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8")
	if body := old.status(http.StatusBadRequest); !strings.Contains(body, "invalid_request") || old.resp.Header.Get("Sec-WebSocket-Version") != "13" {
		t.Errorf("an old version: %s, %v", body, old.resp.Header)
	}
	d := websocket.Dialer{Subprotocols: []string{"penstock.ticket.abc", "penstock.v1"}}
	conn, resp, err := d.Dial("ws"+strings.TrimPrefix(g.url, "http")+"/v1/ws", http.Header{"X-Request-Id": {"mine"}})
	g.no(err)
	defer func() { _ = errors.Join(resp.Body.Close(), conn.Close()) }()
	if conn.Subprotocol() != "penstock.v1" || resp.Header.Get("X-Request-Id") != "mine" {
		t.Errorf("subprotocol %q, x-request-id %q", conn.Subprotocol(), resp.Header.Get("X-Request-Id"))
	}
}

func TestDrainSendsSocketsElsewhereAndTheirCursorsGoOn(t *testing.T) {
	g := onOne(t, Config{})
	in := &jobsIn{g: g, keys: map[string]*job.Resource{}, hold: make(chan struct{})}
	g.restart(func(c *Config) { c.Intake = in })
	a := g.author()
	a.started()
	c, d := g.dial(), g.dial()
	c.say(subscribeJob("a", a))
	c.want("subscribed")
	f := c.want("events")
	eventually(t, func() bool { return g.gateway.busySockets() == 0 })
	d.say(`{"op":"submit","ref":"1","job":{"body":{"model":"sim"}}}`) // under way
	eventually(t, func() bool { return g.gateway.busySockets() == 1 })
	g.gateway.Drain()
	if away := c.want("goaway"); away.ReconnectMS < 1 {
		t.Errorf("got %s", away.raw)
	}
	if code := c.closed(); code != closeStopping {
		t.Errorf("closed with %d, want %d", code, closeStopping)
	}
	d.want("goaway")
	close(in.hold)
	d.want("accepted") // what is under way is answered
	if code := d.closed(); code != closeStopping {
		t.Errorf("closed with %d, want %d", code, closeStopping)
	}
	if late, no := g.tryDial(); late != nil || no.status != http.StatusServiceUnavailable {
		t.Errorf("a late-comer: %+v", no)
	}
	g.restart(func(*Config) {})
	a.say("two")
	a.complete()
	c = g.dial()
	c.say(subscribeJob("a", a, `,"cursor":"`, f.Cursor, `"`))
	c.want("subscribed")
	all, _ := c.untilEnd()
	seqs(t, all, 1)
}

func (g *Gateway) busySockets() (n int) {
	g.sockets.mu.Lock()
	defer g.sockets.mu.Unlock()
	for s := range g.sockets.open {
		s.mu.Lock()
		if s.busy {
			n++
		}
		s.mu.Unlock()
	}
	return n
}

func TestAnIdleSocketCostsOneGoroutine(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.started()
	const n = 50
	for range n {
		c := g.dial()
		for _, sub := range []string{"1", "2", "3", "4"} {
			c.say(subscribeJob(sub, a))
			c.want("subscribed")
			c.want("events")
		}
	}
	eventually(t, func() bool {
		buf := make([]byte, 4<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		return strings.Count(stacks, "(*socket).read(") == n && strings.Count(stacks, "(*socket)") == n+
			strings.Count(stacks, "(*socket).receive(")
	})
}
