package web

import (
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/api"
)

// served is the page as the server mounts it.
func served() http.Handler {
	r := api.NewRouter(api.Config{})
	Routes(r)
	return r
}

func get(t *testing.T, h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "/", http.NoBody)
	// As it comes, not as a client would have cleaned it.
	r.URL.Path, r.RequestURI = target, target
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestEveryFileIsServedWithItsTypeAndTheStrictPolicy(t *testing.T) {
	t.Parallel()
	h := served()
	media := map[string]string{
		".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
		".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	}
	for _, f := range files() {
		resp := get(t, h, http.MethodGet, f.path)
		if resp.Code != http.StatusOK {
			t.Fatalf("%s: status %d", f.path, resp.Code)
		}
		if resp.Body.String() != string(f.content) || len(f.content) == 0 {
			t.Errorf("%s: the answer is not the file", f.path)
		}
		got := map[string]string{}
		want := map[string]string{
			"Content-Type": media[path.Ext(f.name)],
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
				"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options": "nosniff",
			"Referrer-Policy":        "no-referrer",
			"Cache-Control":          "no-cache",
		}
		for name := range want {
			got[name] = strings.Join(resp.Header().Values(name), " AND ")
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: headers (-want +got):\n%s", f.path, d)
		}
		head := get(t, h, http.MethodHead, f.path)
		if head.Code != http.StatusOK || head.Body.String() != "" || head.Header().Get("Etag") != resp.Header().Get("Etag") {
			t.Errorf("%s: HEAD is not GET without the body: %d", f.path, head.Code)
		}
	}
}

func TestWhoHasTheFileIsTold304(t *testing.T) {
	t.Parallel()
	h := served()
	tags := map[string]string{}
	for _, f := range files() {
		tag := get(t, h, http.MethodGet, f.path).Header().Get("Etag")
		if other, taken := tags[tag]; taken || len(tag) < 10 {
			t.Errorf("%s: the tag %s does not tell it from %s", f.path, tag, other)
		}
		tags[tag] = f.path
		resp := get(t, h, http.MethodGet, f.path, "If-None-Match", tag)
		if resp.Code != http.StatusNotModified || resp.Body.String() != "" {
			t.Errorf("%s: status %d for one who has it, want 304", f.path, resp.Code)
		}
		if resp.Header().Get("Content-Security-Policy") != policy {
			t.Errorf("%s: a 304 lets go of the policy", f.path)
		}
		if resp := get(t, h, http.MethodGet, f.path, "If-None-Match", `"another"`); resp.Code != http.StatusOK {
			t.Errorf("%s: status %d for one who has another, want 200", f.path, resp.Code)
		}
	}
}

func TestNoOtherPathIsServed(t *testing.T) {
	t.Parallel()
	h := served()
	for _, target := range []string{
		"/web", "/web/", "/web/index.html", "/index.html", "/page.js", "/files/page.js", "/web/files/page.js", "/web/web.go",
		"/web/../web.go", "/web/../../web/web.go", "/web/..%2fweb.go", "/web/%2e%2e/web.go", "//web/page.js", "/web//page.js",
		"/web/page.js/", "/web/package.json", "/web/tests/events.test.js", `/web/..\web.go`, "/web/page.js\x00",
	} {
		resp := get(t, h, http.MethodGet, target)
		if resp.Code != http.StatusNotFound || !strings.HasPrefix(resp.Body.String(), `{"error":{`) {
			t.Errorf("%q: status %d, want 404 in the one shape of errors", target, resp.Code)
		}
	}
	resp := get(t, h, http.MethodPost, "/")
	if resp.Code != http.StatusMethodNotAllowed || resp.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /: status %d, Allow %q", resp.Code, resp.Header().Get("Allow"))
	}
}

// references finds what a file loads: absolute paths in HTML, relative modules
// in JavaScript (those in types too), url() in CSS.
var references = map[string]*regexp.Regexp{
	".html": regexp.MustCompile(`(?:src|href)="([^"#]+)"`),
	".js":   regexp.MustCompile(`(?:from |import |import\()'([^']+)'`),
	".css":  regexp.MustCompile(`(?:url\(|@import\s*)["']?([^"')]+)`),
}

func TestEveryFileThatIsLoadedExistsAndEveryOneIsLoaded(t *testing.T) {
	t.Parallel()
	loaded := map[string]bool{"/": true}
	exist := map[string]bool{}
	for _, f := range files() {
		exist[f.path] = true
	}
	for _, f := range files() {
		find := references[path.Ext(f.name)]
		if find == nil {
			continue
		}
		for _, m := range find.FindAllStringSubmatch(string(f.content), -1) {
			target := m[1]
			if !strings.HasPrefix(target, "/") {
				target = path.Join(path.Dir(f.path), target)
			}
			loaded[target] = true
			if !exist[target] {
				t.Errorf("%s loads %s, which is not there", f.name, m[1])
			}
		}
	}
	if d := cmp.Diff(exist, loaded); d != "" {
		t.Errorf("what exists and what is loaded differ (-exists +loaded):\n%s", d)
	}
}

func TestNothingRefersElsewhereAndNothingIsInline(t *testing.T) {
	t.Parallel()
	const namespace = `xmlns="http://www.w3.org/2000/svg"`
	forbidden := map[string]*regexp.Regexp{
		"another origin":               regexp.MustCompile(`(?i)(?:https?|wss?|ftp)://|["'(=]//[a-z0-9]`),
		"an inline script":             regexp.MustCompile(`(?i)<script(?:\s+type="[a-z]+")?>`),
		"an inline style":              regexp.MustCompile(`(?i)<style|\sstyle\s*=`),
		"an inline handler":            regexp.MustCompile(`(?i)<[^>]*\son[a-z]+\s*=`),
		"data as markup":               regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc`),
		"text as code":                 regexp.MustCompile(`\beval\b|new Function|javascript:`),
		"a style that a script writes": regexp.MustCompile(`setAttribute\('style'|cssText`),
	}
	for _, f := range files() {
		text := strings.ReplaceAll(string(f.content), namespace, "")
		for what, found := range forbidden {
			if at := found.FindStringIndex(text); at != nil {
				t.Errorf("%s has %s: %.60q", f.name, what, text[at[0]:])
			}
		}
		if path.Ext(f.name) == ".js" && !strings.HasPrefix(text, "// @ts-check\n") {
			t.Errorf("%s is not checked for its types", f.name)
		}
		if lines := strings.Count(text, "\n"); lines >= 450 {
			t.Errorf("%s has %d lines", f.name, lines)
		}
	}
}

func TestAnUnknownKindOfFileIsNoScript(t *testing.T) {
	t.Parallel()
	if got := mediaOf("notes.txt"); got != "application/octet-stream" {
		t.Errorf("mediaOf gave %q", got)
	}
}
