package ingest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// nowhere acknowledges at once.
type nowhere struct{}

func (nowhere) Append(context.Context, ...event.Record) ([]kafka.Ack, error) {
	return make([]kafka.Ack, 1), nil
}

// sink is an http.ResponseWriter that keeps nothing.
type sink struct{ h http.Header }

func (s sink) Header() http.Header       { return s.h }
func (sink) Write(p []byte) (int, error) { return len(p), nil }
func (sink) WriteHeader(int)             {}

func BenchmarkSubmit(b *testing.B) {
	s := newService(b, Config{Producer: nowhere{}, Cursors: fixedCursor{}})
	in := job.Request{Body: []byte(`{"model":"sim","messages":[{"role":"user","content":"hi"}]}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Submit(b.Context(), "default", in, job.SubmitOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

type fixedCursor struct{}

func (fixedCursor) TokensCursor(int32) string { return "AaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaA" }

func BenchmarkHandler(b *testing.B) {
	for name, body := range map[string]string{
		"small": hi,
		"32KB":  `{"body":{"model":"sim","messages":[{"role":"user","content":"` + strings.Repeat("word ", 32<<10/5) + `"}]}}`,
	} {
		b.Run(name, func(b *testing.B) {
			h := handler(newService(b, Config{Producer: nowhere{}, Cursors: fixedCursor{}}))
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, "/v1/jobs", strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				h.ServeHTTP(sink{http.Header{}}, r)
			}
		})
	}
}
