package app

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"
)

// frame is what a test looks at in a frame of the server's.
type frame struct {
	Op, Sub, Code, Status, ID string
	Events                    []struct {
		Type, Job string
		Seq       int64
	}
}

// talk sends frames over a WebSocket and reads those that come.
type talk struct {
	t    *testing.T
	conn *websocket.Conn
}

func (r *running) talk(t *testing.T) *talk {
	t.Helper()
	conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+r.Addr()+"/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close(); _ = conn.Close() })
	return &talk{t, conn}
}

func (c *talk) say(text string) {
	c.t.Helper()
	if err := c.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// until reads to a frame of an op, and gives it and the events before it.
func (c *talk) until(op string) (last frame, types []string) {
	c.t.Helper()
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			c.t.Fatal(err)
		}
		_, raw, err := c.conn.ReadMessage()
		var f frame
		if err == nil {
			err = json.Unmarshal(raw, &f, json.MatchCaseInsensitiveNames(true), jsontext.AllowDuplicateNames(true))
		}
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", op, err)
		}
		for _, e := range f.Events {
			types = append(types, e.Type)
		}
		if f.Op == op {
			return f, types
		}
		if f.Op == "error" {
			c.t.Fatalf("waiting for %s: %s", op, raw)
		}
	}
}

func TestASocketTakesAConversationFromSubmitToStop(t *testing.T) {
	t.Parallel()
	r := start(t, base(t))
	c := r.talk(t)
	c.until("welcome")
	c.say(`{"op":"subscribe","sub":"chat","conversation":"talk-1","snapshot":true}`)
	c.until("subscribed")
	if _, types := c.until("events"); len(types) != 1 || types[0] != "stream.snapshot" {
		t.Errorf("the conversation begins with %q", types)
	}
	c.say(`{"op":"submit","ref":"1","idempotency_key":"k-1","sub":"job","job":{"lane":"interactive","conversation":"talk-1","body":{"model":"sim:tokens=5,ttft=1ms,gap=1ms"}}}`)
	accepted, _ := c.until("accepted")
	end, _ := c.until("end")
	if end.Sub != "job" || end.Status != "completed" || accepted.ID == "" {
		t.Errorf("accepted %+v, ended %+v", accepted, end)
	}
	c.say(`{"op":"submit","ref":"2","job":{"body":{"model":"nobody/serves-it"}}}`)
	for {
		_, raw, err := c.conn.ReadMessage()
		var f frame
		if err == nil {
			err = json.Unmarshal(raw, &f, json.MatchCaseInsensitiveNames(true))
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Op != "error" {
			continue // the conversation's
		}
		if f.Code != "model_not_found" {
			t.Errorf("got %s", raw)
		}
		break
	}
	r.begin()
	c.until("goaway")
	if _, _, err := c.conn.ReadMessage(); !websocket.IsCloseError(err, 4000) {
		t.Errorf("the connection ended with %v, want 4000", err)
	}
	if err := r.stop(); err != nil {
		t.Errorf("the stop: %v", err)
	}
}
