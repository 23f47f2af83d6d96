// Package web is the live page at "/": a prompt box, a job's tokens as they
// come, and the list of jobs. Its files are written by hand, embedded as they
// stand, and load nothing from elsewhere; a strict Content-Security-Policy
// holds them to that.
//
// The page speaks to the server as any other client does: POST /v1/jobs,
// GET /v1/jobs, GET /v1/jobs/{id} and its events. This package only hands the
// files out. It starts no goroutine, and what it holds never changes.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"path"
	"time"

	"github.com/go-chi/chi/v5"
)

// embedded holds the page's files: index.html, which is "/", and what it loads
// from under "/web/".
//
//go:embed files/*.html files/*.css files/*.js files/*.svg
var embedded embed.FS

const (
	index = "index.html"
	// under is where the files lie that the page loads.
	under = "/web/"
	// policy lets the page's own files in and nothing else: no inline script or
	// style, no other origin, no frame around it.
	policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// Routes adds the page and each of its files, and no other path: what does not
// exist is the router's to answer.
func Routes(r chi.Router) {
	for _, f := range files() {
		r.Method(http.MethodGet, f.path, f)
		r.Method(http.MethodHead, f.path, f)
	}
}

// file is one file as it is answered.
type file struct {
	path, name, media, etag string
	content                 []byte
}

// files reads what is embedded.
func files() []*file {
	entries := must(fs.ReadDir(embedded, "files"))
	list := make([]*file, 0, len(entries))
	for _, e := range entries {
		f := &file{path: under + e.Name(), name: e.Name(), media: mediaOf(e.Name())}
		if f.name == index {
			f.path = "/"
		}
		f.content = must(embedded.ReadFile("files/" + e.Name()))
		sum := sha256.Sum256(f.content)
		f.etag = `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		list = append(list, f)
	}
	return list
}

// must is for what can only fail in a build that was never made.
func must[T any](v T, err error) T {
	if err != nil {
		panic("web: the page is not in this build: " + err.Error())
	}
	return v
}

// mediaOf is written out, since the machine's own table would have a say in
// mime.TypeByExtension, and a script of a wrong type is not run.
func mediaOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		return "application/octet-stream"
	}
}

// ServeHTTP answers with the file, or with 304 where the client has it.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.media)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	// Names stay the same from build to build, so a client asks each time; the
	// answer is a 304 unless the build is another one.
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", f.etag)
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.content))
}
