package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthTellsOfEveryPartAndFailsWhereOneIsAway(t *testing.T) {
	t.Parallel()
	report, status := `{"status":"ok","parts":{"topics":{"status":"ok"},"kafka":{"status":"ok"}}}`, http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("it asked for %s", r.URL.Path)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(report))
	}))
	defer srv.Close()
	o := run(t, "health", "--server", srv.URL+"/").want(t, exitDone)
	if kafka, topics := strings.Index(o.stdout, "kafka"), strings.Index(o.stdout, "topics"); kafka < 0 || topics < kafka {
		t.Errorf("it wrote %q, want both parts in order", o.stdout)
	}
	report, status = `{"status":"unavailable","parts":{"kafka":{"status":"unavailable","message":"nobody is there"}}}`, http.StatusServiceUnavailable
	if o := run(t, "health", "--server", srv.URL).want(t, exitFailed); !strings.Contains(o.stdout, "nobody is there") || o.stderr != "" {
		t.Errorf("it wrote %q and %q", o.stdout, o.stderr)
	}
	if o := run(t, "health", "--server", srv.URL, "-o", "jsonl").want(t, exitFailed); o.stdout != report+"\n" {
		t.Errorf("as JSON: %q", o.stdout)
	}
	report = `<html>`
	if o := run(t, "health", "--server", srv.URL).want(t, exitFailed); !strings.Contains(o.stderr, "is it a Penstock?") {
		t.Errorf("of a page: %q", o.stderr)
	}
	srv.Close()
	if o := run(t, "health", "--server", srv.URL).want(t, exitFailed); !strings.Contains(o.stderr, "no server answers at "+srv.URL) {
		t.Errorf("with nobody there: %q", o.stderr)
	}
	if o := run(t, "health", "--server", "a b").want(t, exitUsage); !strings.Contains(o.stderr, "--server") {
		t.Errorf("without an address: %q", o.stderr)
	}
}
