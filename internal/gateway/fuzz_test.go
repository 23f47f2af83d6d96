package gateway

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/penstock-io/penstock/internal/fault"
)

// FuzzEventsQuery reads what says where a stream begins, but for the cursor
// itself (FuzzCursorParam).
func FuzzEventsQuery(f *testing.F) {
	for _, q := range []string{"", "partition=3", "partition=-1", "partition=99999999999", "snapshot=1", "snapshot=yes", "cursor=a%00b&partition=", "%zz", "a;b"} {
		f.Add(q, "")
	}
	f.Add("cursor=query", "header")
	f.Add("cursor=query", fromStart)
	g := &Gateway{cfg: Config{Partitions: 4}}
	f.Fuzz(func(t *testing.T, query, last string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/jobs/a/events", nil)
		r.URL.RawQuery = query
		r.Header.Set("Last-Event-ID", last)
		q, err := g.jobQueryOf(r)
		at := last
		if at == fromStart {
			at = ""
		}
		if err == nil && (q.again != (last != "") || q.again && q.at != at) {
			t.Fatalf("%q, %q: %q, %t", query, last, q.at, q.again)
		}
		_, _, _, wrong := partitionQueryOf(r)
		for _, err := range []error{err, wrong} {
			if fe, ok := errors.AsType[*fault.Error](err); err != nil && (!ok || fe.Code != fault.InvalidRequest) {
				t.Fatalf("%q: %v", query, err)
			}
		}
		if _, bad := url.ParseQuery(query); bad != nil && (err == nil || wrong == nil) {
			t.Fatalf("%q: nobody says that a part of it was left out", query)
		}
	})
}

// FuzzOffsetParam reads where a partition's stream begins.
func FuzzOffsetParam(f *testing.F) {
	g := onOne(f, Config{})
	a := g.author()
	a.whole(3)
	p, err := g.gateway.hub.acquire(f.Context(), a.part)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { g.gateway.hub.release(p) })
	for _, s := range []string{"", "earliest", "latest", "0", "3", "-1", "1e3", "9223372036854775808", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		offset, err := g.gateway.offsetParam(t.Context(), p, text)
		if err == nil {
			if end, _ := p.end(); offset < 0 || offset > end {
				t.Fatalf("%q: offset %d", text, offset)
			}
			return
		}
		if fe, ok := errors.AsType[*fault.Error](err); !ok || fe.Code != fault.InvalidRequest || fe.Param != "offset" {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// FuzzPositionOverHTTPAndASocket asks a running gateway from any position, as a
// cursor, a Last-Event-ID, an offset, and in a frame.
func FuzzPositionOverHTTPAndASocket(f *testing.F) {
	g := onOne(f, Config{})
	a := g.author()
	a.whole(3)
	good := g.open(events(a)).rest()[1].id
	for _, s := range []string{"", good, good[:len(good)-1], good + "=", "AAAA", "a b", "é", `"}`, "\x7f"} {
		f.Add(s, "")
		f.Add("", s)
	}
	f.Add(good, good)
	c := g.dial()
	f.Fuzz(func(t *testing.T, at, offset string) {
		for _, path := range []string{events(a), "/v1/topics/tokens/partitions/0/events"} {
			req, err := http.NewRequest(http.MethodHead, g.url+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			q := req.URL.Query()
			q.Set("cursor", at)
			if offset != "" {
				q.Set("offset", offset)
			}
			req.URL.RawQuery = q.Encode()
			if validHeader(at) {
				req.Header.Set("Last-Event-ID", at)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if s := resp.StatusCode; s != http.StatusOK && s != http.StatusNoContent && s != http.StatusBadRequest {
				t.Fatalf("%s: %q, %q: %s", path, at, offset, resp.Status)
			}
		}
		frame := append([]byte(`{"op":"subscribe","sub":"f","job":"`+a.head.Job+`","cursor":`), encodeFrame(at)...)
		if err := c.conn.WriteMessage(websocket.TextMessage, append(frame, '}')); err != nil {
			t.Fatal(err)
		}
		for done := false; !done; {
			fr, err := c.try()
			if err != nil {
				t.Fatal(err)
			}
			switch fr.Op {
			case "error":
				if done = true; fr.Code != fault.InvalidCursor && fr.Code != fault.InvalidJSON {
					t.Fatalf("%q: %s", at, fr.raw)
				}
			case "end":
				done = true
			}
		}
	})
}

// validHeader tells whether a client can send a text as a header's value.
func validHeader(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
