package api

import (
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
)

// PathParam is a parameter of the route's path, unescaped: clients may write
// the colon of an id as %3A. Where a path is escaped otherwise than Go would do
// it, the router looks at it as it came, so that an escaped slash is part of a
// parameter.
func PathParam(r *http.Request, name string) string {
	value := chi.URLParam(r, name)
	if r.URL.RawPath != "" {
		if plain, err := url.PathUnescape(value); err == nil { // net/http refuses a path that is not escaped well
			return plain
		}
	}
	return value
}
