package api

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"
)

func TestAPathsParameterIsTheSameHoweverItIsEscaped(t *testing.T) {
	var got string
	r := chi.NewRouter()
	r.Get("/jobs/{id}/events", func(_ http.ResponseWriter, r *http.Request) { got = PathParam(r, "id") })
	for path, want := range map[string]string{
		"/jobs/a:b/events": "a:b", "/jobs/a%3Ab/events": "a:b", "/jobs/%61:b/events": "a:b",
		"/jobs/a%20b/events": "a b", "/jobs/a%2Fb/events": "a/b", "/jobs/a%2525/events": "a%25",
	} {
		got = ""
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
