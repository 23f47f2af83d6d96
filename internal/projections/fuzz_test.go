package projections

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/topics"
)

// FuzzFold folds a record of any of the topics: it is counted as something, and
// what becomes a row is what PostgreSQL can hold.
func FuzzFold(f *testing.F) {
	f.Add([]byte(`{"job":"a","data":{"body":{"model":"s\u0000m"},"custom_id":"\u0000","metadata":{"k":"\u0000"}}}`))
	f.Add([]byte(`{"type":"job.completed","v":1,"time":"2026-11-23T08:17:22.099Z","tenant":"default","job":"a","attempt":1,"lane":"standard","data":{"model":"sim","output":[{"index":0}],"usage":{}}}`))
	f.Add([]byte(`{"type":"job.failed","v":1,"time":"9999-11-23T08:17:22.099Z","tenant":"default","job":"a","attempt":99999999999,"lane":"batch","data":{"code":7}}`))
	f.Add([]byte(`{"type":"job.started","v":1,"tenant":"default","job":"a","attempt":1,"lane":"standard","data":{"model":"\ud800"}}`))
	names := topics.Names{Prefix: "p."}
	fold := folder{names: names}
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, topic := range []string{names.Requests(event.Batch), names.Jobs()} {
			r, v, err := fold.one(&event.Record{Topic: topic, Value: value, Time: time.Unix(1_790_000_000, 0)})
			if v == malformed && err == nil {
				t.Fatalf("%s: malformed, without a reason", topic)
			}
			if r == nil {
				continue
			}
			for _, s := range []string{r.tenant, r.id, r.model, r.provider, r.conversation, r.batch} {
				if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
					t.Fatalf("%s: %q is no text of PostgreSQL's", topic, s)
				}
			}
			if q := r.request; q != nil && (q.metadata != nil && !q.metadata.IsValid() || strings.IndexByte(q.model+q.customID, 0) >= 0) {
				t.Fatalf("%s: %+v", topic, q)
			}
		}
	})
}

// FuzzListQuery reads the query of a list: what is refused is refused by name.
func FuzzListQuery(f *testing.F) {
	for _, q := range []string{
		"", "limit=5&order=asc", "status=queued&status=x", "created_after=2026-11-22T15:04:05%2B01:00", "after=job_", "limit=-1", "%zz", "a;b", "lane=batch&lane=",
		"created_after=0000-01-01T00:00:00Z", "wait=30s",
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/jobs", nil)
		r.URL.RawQuery = query
		got, err := filterOf(r)
		if err == nil {
			if got.Limit < 0 || got.Limit > MaxLimit {
				t.Fatalf("%q: a limit of %d", query, got.Limit)
			}
			return
		}
		if fe, ok := errors.AsType[*fault.Error](err); !ok || fe.Code != fault.InvalidRequest {
			t.Fatalf("%q: %v", query, err)
		}
	})
}
