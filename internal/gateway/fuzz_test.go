package gateway

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/fault"
)

// FuzzEventsQuery reads what says where a stream begins, but for the cursor
// itself (FuzzCursorParam).
func FuzzEventsQuery(f *testing.F) {
	for _, q := range []string{"", "partition=3", "partition=-1", "partition=99999999999", "snapshot=1", "snapshot=yes", "cursor=a%00b&partition=", "%zz", "a;b"} {
		f.Add(q, "")
	}
	f.Add("cursor=query", "header")
	f.Fuzz(func(t *testing.T, query, last string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/jobs/a/events", nil)
		r.URL.RawQuery = query
		r.Header.Set("Last-Event-ID", last)
		if at, again := position(r); again != (last != "") || again && at != last {
			t.Fatalf("%q, %q: %q, %t", query, last, at, again)
		}
		_, notNumber := api.PartitionParam(r.URL.Query(), 4)
		_, notFlag := flag(r, "snapshot")
		for _, err := range []error{notNumber, notFlag} {
			if fe, ok := errors.AsType[*fault.Error](err); err != nil && (!ok || fe.Code != fault.InvalidRequest || fe.Param == "") {
				t.Fatalf("%q: %v", query, err)
			}
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
