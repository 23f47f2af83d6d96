package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/gorilla/websocket"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

func TestASocketSeesAJobFromItsFirstEventToItsLast(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.request(event.Standard)
		c := g.dialRaw()
		if f := c.want("welcome"); f.Version != 1 || f.Limits.Subscriptions != 1000 || f.Limits.FrameBytes != 1<<20 || f.PingMS != 25000 || f.Connection == "" {
			t.Errorf("the welcome is %s", f.raw)
		}
		c.say(subscribeJob("a", a))
		if f := c.want("subscribed"); f.Ref != "r-a" || f.Sub != "a" {
			t.Errorf("got %s", f.raw)
		}
		a.started()
		for i := range 20 {
			a.say(fmt.Sprint(i, " "))
		}
		a.complete()
		all, status := c.untilEnd()
		seqs(t, all, 0)
		if len(all) != 22 || status != "completed" {
			t.Fatalf("%d events and %q, want 22 and completed", len(all), status)
		}
		// As they stand: the same bytes as over SSE.
		for i, e := range g.open(events(a)).rest() {
			if e.data != all[i].data {
				t.Errorf("event %d is %s, and over SSE %s", i, all[i].data, e.data)
			}
		}
		// The name is free again; behind the end there is nothing.
		c.say(subscribeJob("a", a))
		c.want("subscribed")
		f := c.want("events")
		if len(f.Events) != 22 {
			t.Errorf("%d events in one frame, want 22", len(f.Events))
		}
		c.want("end")
		c.say(subscribeJob("a", a, `,"cursor":"`, f.Cursor, `"`))
		c.want("subscribed")
		if f := c.want("end"); f.Status != "completed" {
			t.Errorf("behind the end: %s", f.raw)
		}
	})
}

func TestASocketThatLeavesAndRejoinsByCursorEndsWithTheSameText(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.request(event.Standard)
		stays := g.dial()
		stays.say(subscribeJob("s", a))
		stays.want("subscribed")
		const deltas = 400
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			a.started()
			for i := range deltas {
				a.say(fmt.Sprint(i, " "))
			}
			a.complete()
		})
		var all []got
		at, ended, rejoins := "", false, 0
		for ; !ended; rejoins++ {
			c := g.dial()
			more := ""
			if at != "" {
				more = `,"cursor":"` + at + `"`
			}
			c.say(subscribeJob("x", a, more))
			c.want("subscribed")
			for range 1 + rand.IntN(4) {
				f := c.next()
				if ended = f.Op == "end"; ended {
					break
				}
				all, at = append(all, f.list(t)...), f.Cursor
			}
			c.close()
		}
		want, _ := stays.untilEnd()
		seqs(t, all, 0)
		if text(all) != text(want) || len(all) != deltas+2 || rejoins < 2 {
			t.Fatalf("%d events over %d connections, want %d", len(all), rejoins, deltas+2)
		}
	})
}

func TestSubscriptionsTakeTurns(t *testing.T) {
	g := onOne(t, Config{})
	busy := g.author()
	busy.started()
	filler := strings.Repeat("x", 1000)
	for i := 0; i < 4000; i += 200 {
		var recs []event.Record
		for range 200 {
			recs = append(recs, busy.next(event.OutputDelta, event.Delta{Content: filler}))
		}
		g.append(recs...)
	}
	busy.complete()
	quiet := g.author()
	quiet.whole(2)
	c := g.dial()
	c.say(subscribeJob("busy", busy))
	c.say(subscribeJob("quiet", quiet))
	before, seen := 0, int64(0)
	for done := 0; done < 2; {
		f := c.next()
		switch {
		case f.Op == "end":
			done++
		case f.Op == "events" && f.Sub == "busy":
			for _, e := range f.list(t) {
				if e.Seq != seen {
					t.Fatalf("seq %d, want %d", e.Seq, seen)
				}
				seen++
			}
			if done == 0 {
				before++
			}
			if len(f.raw) > 2*flushBytes {
				t.Errorf("a frame of %d bytes", len(f.raw))
			}
		}
	}
	if total := 4 << 20 / flushBytes; before > total/2 {
		t.Errorf("the quiet one ended behind %d frames of the busy one, of some %d", before, total)
	}
}

func TestASubscriptionGetsNoMoreThanItsCredit(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.whole(8) // ten events
	c := g.dial()
	c.say(subscribeJob("a", a, `,"credit":2`))
	c.want("subscribed")
	if f := c.want("events"); len(f.Events) != 2 {
		t.Fatalf("%d events for a credit of 2", len(f.Events))
	}
	ping := func() {
		t.Helper()
		c.say(`{"op":"ping","ref":"p"}`)
		if f := c.want("pong"); f.Ref != "p" { // nothing came before it
			t.Errorf("got %s", f.raw)
		}
	}
	ping()
	c.say(`{"op":"credit","sub":"a","n":3}`)
	if f := c.want("events"); len(f.Events) != 3 {
		t.Fatalf("%d events for a credit of 3", len(f.Events))
	}
	ping()
	c.say(`{"op":"credit","sub":"a","n":5}`)
	all, status := c.untilEnd() // the end needs no credit
	seqs(t, all, 5)
	if len(all) != 5 || status != "completed" {
		t.Errorf("%d events, %q", len(all), status)
	}
	c.say(`{"op":"credit","ref":"x","sub":"a","n":1}`)
	c.refused(fault.InvalidRequest, "x", "sub")
	b := g.author()
	b.started()
	c.say(subscribeJob("b", b))
	c.want("subscribed")
	c.want("events")
	c.say(`{"op":"credit","ref":"y","sub":"b","n":1}`)
	c.refused(fault.InvalidRequest, "y", "sub")
}

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
		"{\"op\":\"p\xff\"}":                   {fault.InvalidJSON, ""},
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
	g.no(c.conn.WriteMessage(websocket.BinaryMessage, []byte(`{"op":"ping"}`)))
	c.refused(fault.InvalidJSON, "", "")
	c.say(`{"op":"ping"}`)
	c.want("pong")
}

func TestOneSubscriptionTooManyIsRefused(t *testing.T) {
	g := onOne(t, Config{MaxSubscriptions: maxSubscriptions + 1})
	a := g.author()
	a.started()
	c := g.dial()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range maxSubscriptions + 1 {
			c.raw(subscribeJob(fmt.Sprint(i), a))
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
	_, resp, err := g.tryDial()
	if err == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("got %v, %v; want 503 with Retry-After", err, resp)
	}
	body, _ := io.ReadAll(resp.Body)
	if !strings.Contains(string(body), `"unavailable"`) {
		t.Errorf("the body is %s", body)
	}
	c.close()
	eventually(t, func() bool {
		d, _, err := g.tryDial()
		if err == nil {
			d.close()
		}
		return err == nil
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
		c, resp, err := g.tryDial(headers...)
		if (err == nil) != ok {
			t.Errorf("%q: %v", origin, err)
		}
		if err == nil {
			c.close()
		} else if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: status %d", origin, resp.StatusCode)
		}
	}
	g.restart(func(c *Config) { c.Origins = []string{"*"} })
	if _, _, err := g.tryDial("Origin", "https://evil.example"); err != nil {
		t.Error(err)
	}
}

func TestTheHandshake(t *testing.T) {
	g := onOne(t, Config{})
	if body := g.open("/v1/ws").status(http.StatusBadRequest); !strings.Contains(body, "WebSocket client") {
		t.Errorf("a plain GET: %s", body)
	}
	body := g.open("/v1/ws", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8").status(http.StatusBadRequest)
	if !strings.Contains(body, "invalid_request") {
		t.Errorf("an old version: %s", body)
	}
	d := websocket.Dialer{Subprotocols: []string{"penstock.ticket.abc", "penstock.v1"}}
	conn, resp, err := d.Dial("ws"+strings.TrimPrefix(g.url, "http")+"/v1/ws", http.Header{"X-Request-Id": {"mine"}})
	g.no(err)
	defer conn.Close()
	if conn.Subprotocol() != "penstock.v1" || resp.Header.Get("X-Request-Id") != "mine" {
		t.Errorf("subprotocol %q, x-request-id %q", conn.Subprotocol(), resp.Header.Get("X-Request-Id"))
	}
}

func TestASnapshotAndItsTailJoinOnASocketToo(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		a := g.author()
		a.started()
		var want strings.Builder
		for i := range 300 {
			fmt.Fprint(&want, i, " ")
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 300 {
				a.say(fmt.Sprint(i, " "))
			}
			a.complete()
		})
		join := func() {
			c := g.dial()
			defer c.close()
			c.say(subscribeJob("a", a, `,"snapshot":true`))
			c.want("subscribed")
			all, status := c.untilEnd()
			if all[0].Type != streamSnapshot || text(all) != want.String() || status != "completed" {
				t.Errorf("%q, want %q", text(all), want.String())
				return
			}
			seqs(t, all[1:], all[0].Data.ThroughSeq+1)
		}
		for range 20 {
			join()
		}
		wg.Wait()
		join()
	})
}

func TestAPartitionIsSubscribedToFromAnyOffset(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.whole(5)
	c := g.dial()
	at := func(sub, more string) gotFrame {
		t.Helper()
		c.say(fmt.Sprintf(`{"op":"subscribe","sub":%q,"topic":"tokens","partition":%d%s}`, sub, a.part, more))
		if f := c.want("subscribed"); f.Cursor == "" {
			t.Errorf("got %s", f.raw)
		}
		return c.want("events")
	}
	for more, first := range map[string]int64{"": 0, `,"offset":"earliest"`: 0, `,"offset":3`: 3, `,"offset":null`: 0} {
		f := at("s"+more[:min(len(more), 1)]+fmt.Sprint(first, len(more)), more)
		if got := f.list(t); got[0].Seq != first {
			t.Errorf("%s: the first event is %s", more, got[0].data)
		}
		c.say(fmt.Sprintf(`{"op":"unsubscribe","sub":%q}`, f.Sub))
		c.want("end")
	}
	f := at("x", `,"offset":2,"credit":2`)
	c.say(`{"op":"unsubscribe","ref":"u","sub":"x"}`)
	if f := c.want("end"); f.Ref != "u" {
		t.Errorf("got %s", f.raw)
	}
	if got := at("y", `,"cursor":"`+f.Cursor+`"`).list(t); got[0].Seq != 4 {
		t.Errorf("behind seq 3 comes %s", got[0].data)
	}
	c.say(fmt.Sprintf(`{"op":"subscribe","sub":"z","topic":"tokens","partition":%d,"offset":"latest"}`, a.part))
	c.want("subscribed")
	b := g.authorOf("tail", a.part)
	b.started()
	for range 2 { // y and z
		if got := c.want("events").list(t); got[0].Job != "tail" {
			t.Errorf("got %s", got[0].data)
		}
	}
}

func TestAnEndedJobWhoseEventsAreGoneIsAGapOnASocketToo(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	g.rows.set(event.DefaultTenant, &job.Resource{ID: a.head.Job, Status: job.Completed}, nil)
	c := g.dial()
	c.say(subscribeJob("a", a))
	c.want("subscribed")
	all, status := c.untilEnd()
	if len(all) != 1 || all[0].Type != streamGap || all[0].Data.Reason != gapRetention || status != "error" {
		t.Fatalf("got %v and %q, want one gap for retention", all, status)
	}
}

func TestARecordThatIsNoJSONIsAGapOnASocket(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.started()
	for _, data := range []string{`{"content":nonsense}`, "{\"content\":\"\xff\"}"} {
		a.head.Type, a.head.Time = event.OutputDelta, time.Now()
		rec := g.record(a.part, a.head, event.Delta{})
		rec.Value = event.Append(nil, &a.head, []byte(data))
		g.append(rec)
		a.head.Seq++
	}
	a.complete()
	c := g.dial()
	c.say(subscribeJob("a", a))
	c.want("subscribed")
	all, status := c.untilEnd()
	if len(all) != 4 || all[1].Data.Reason != gapUnreadable || all[2].Data.Reason != gapUnreadable || status != "completed" {
		t.Fatalf("got %v, %q", all, status)
	}
}

func TestSubmitSubscribesFromBeforeTheJob(t *testing.T) {
	g := onOne(t, Config{})
	in := &intake{g: g, keys: map[string]*job.Resource{}}
	g.restart(func(c *Config) { c.Intake = in })
	c := g.dial()
	c.say(`{"op":"submit","ref":"1","idempotency_key":"k","job":{"body":{"model":"sim"}},"sub":"a"}`)
	f := c.want("accepted")
	var res job.Resource
	g.no(json.Unmarshal(f.Job, &res))
	if f.Ref != "1" || f.ID == "" || res.ID != f.ID || res.Object != "job" {
		t.Fatalf("got %s", f.raw)
	}
	if f := c.want("subscribed"); f.Ref != "1" || f.Sub != "a" {
		t.Errorf("got %s", f.raw)
	}
	m, _ := job.ParseID(f.ID)
	a := g.authorOf(f.ID, m.Partition)
	a.whole(3)
	all, _ := c.untilEnd()
	seqs(t, all, 0)
	if len(all) != 5 {
		t.Errorf("%d events, want 5", len(all))
	}
	// The same key is the same job, whole again.
	c.say(`{"op":"submit","ref":"2","idempotency_key":"k","job":{"body":{"model":"sim"}},"sub":"a"}`)
	if again := c.want("accepted"); again.ID != f.ID {
		t.Errorf("got %s", again.raw)
	}
	c.want("subscribed")
	if all, _ := c.untilEnd(); len(all) != 5 {
		t.Errorf("%d events, want 5", len(all))
	}
	// One that was made long ago, and whose output is gone.
	old := g.author()
	in.keys["old"] = &job.Resource{Object: "job", ID: old.head.Job, CreatedAt: job.Time{Time: time.Now().Add(-time.Hour)}, Status: job.Queued}
	g.rows.set(event.DefaultTenant, &job.Resource{ID: old.head.Job, Status: job.Completed}, nil)
	c.say(`{"op":"submit","ref":"3","idempotency_key":"old","job":{"body":{"model":"sim"}},"sub":"a"}`)
	c.want("accepted")
	c.want("subscribed")
	if all, status := c.untilEnd(); len(all) != 1 || status != "error" {
		t.Errorf("%v, %q; want a gap", all, status)
	}
	// Without sub nothing is subscribed to; a refused one leaves its name free.
	c.say(`{"op":"submit","ref":"4","job":{"body":{"model":"sim"}}}`)
	c.want("accepted")
	c.say(`{"op":"submit","ref":"5","job":{"body":{"model":"bad"}},"sub":"a"}`)
	if f := c.refused(fault.InvalidRequest, "5", "job.body.model"); f.Sub != "a" {
		t.Errorf("got %s", f.raw)
	}
	in.err = fault.New(fault.IdempotencyMismatch, "another body")
	in.err.(*fault.Error).Param = "Idempotency-Key"
	c.say(`{"op":"submit","ref":"6","job":{"body":{"model":"sim"}},"sub":"a"}`)
	c.refused(fault.IdempotencyMismatch, "6", "idempotency_key")
	in.err = errors.New("secret")
	c.say(`{"op":"submit","ref":"7","job":{"body":{"model":"sim"}}}`)
	if f := c.refused(fault.Internal, "7", ""); strings.Contains(f.raw, "secret") {
		t.Errorf("got %s", f.raw)
	}
}

type canceller struct {
	got chan string
	err error
}

func (c *canceller) Cancel(_ context.Context, tenant, id string, _ *int32) error {
	c.got <- tenant + "/" + id
	return c.err
}

func TestCancelIsHandedOn(t *testing.T) {
	g := onOne(t, Config{})
	by := &canceller{got: make(chan string, 2)}
	g.restart(func(c *Config) { c.Canceller = by })
	c := g.dial()
	c.say(`{"op":"cancel","ref":"1","job":"some-job","partition":2}`)
	if f := c.want("accepted"); f.ID != "some-job" || f.Ref != "1" || f.Job != nil {
		t.Errorf("got %s", f.raw)
	}
	by.err = noJob("some-job")
	c.say(`{"op":"cancel","ref":"2","job":"some-job"}`)
	c.refused(fault.NotFound, "2", "")
	if got := <-by.got; got != "default/some-job" {
		t.Errorf("cancelled %s", got)
	}
}

func TestDrainSendsSocketsElsewhereAndTheirCursorsGoOn(t *testing.T) {
	g := onOne(t, Config{})
	in := &intake{g: g, keys: map[string]*job.Resource{}, hold: make(chan struct{})}
	g.restart(func(c *Config) { c.Intake = in })
	a := g.author()
	a.started()
	c, d := g.dial(), g.dial()
	c.say(subscribeJob("a", a))
	c.want("subscribed")
	f := c.want("events")
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
	if _, resp, err := g.tryDial(); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a late-comer: %v, %v", err, resp)
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
