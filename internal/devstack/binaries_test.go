//go:build unix

package devstack

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// repository serves one of testdata's jars in place of Maven Central, and
// counts how often it was asked.
func repository(t *testing.T, jar string) (archive, *atomic.Int32) {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", jar))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		want := "/io/zonky/test/postgres/embedded-postgres-binaries-os-cpu/" + postgresVersion +
			"/embedded-postgres-binaries-os-cpu-" + postgresVersion + ".jar"
		if r.URL.Path != want {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	return archive{repository: s.URL, platform: "os-cpu", sha256: hex.EncodeToString(sum[:])}, &asked
}

func TestBinariesAreFetchedOnceByManyAtOnce(t *testing.T) {
	t.Parallel()
	a, asked := repository(t, "tiny.jar")
	cache := filepath.Join(t.TempDir(), "cache")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			home, err := fetchBinaries(t.Context(), cache, a, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
				return
			}
			// Another account has to be able to run and read what was packed as private.
			for name, want := range map[string]os.FileMode{"bin": 0o755, "bin/postgres": 0o755, "bin/postmaster": 0o755, "share/deep": 0o755, "share/deep/file": 0o644} {
				fi, err := os.Stat(filepath.Join(home, name))
				if err != nil {
					t.Error(err)
				} else if got := fi.Mode().Perm(); got != want {
					t.Errorf("%s has mode %o, want %o", name, got, want)
				}
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked the repository %d times", n)
	}
	left, _ := filepath.Glob(filepath.Join(cache, "unpack-*"))
	if len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestBinariesAreRefusedUnlessWhole(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		jar    string
		change func(*archive)
		want   string
	}{
		"changed":         {"tiny.jar", func(a *archive) { a.sha256 = strings.Repeat("0", 64) }, "was cut or changed"},
		"missing":         {"tiny.jar", func(a *archive) { a.platform = "other" }, "404"},
		"no such machine": {"tiny.jar", func(a *archive) { a.sha256 = "" }, "--postgres"},
		"nobody answers":  {"tiny.jar", func(a *archive) { a.repository = "http://127.0.0.1:1" }, "fetch PostgreSQL"},
		"a bad address":   {"tiny.jar", func(a *archive) { a.repository = "http://\x7f" }, "fetch PostgreSQL"},
		"nothing in it":   {"empty.jar", nil, "no .txz"},
		"not packed":      {"broken.jar", nil, "unpack"},
		"leads outside":   {"escape.jar", nil, "escapes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, _ := repository(t, c.jar)
			if c.change != nil {
				c.change(&a)
			}
			cache := t.TempDir()
			_, err := fetchBinaries(t.Context(), cache, a, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(cache, postgresVersion+"-"+a.platform)); err == nil {
				t.Error("something was put in place all the same")
			}
		})
	}
}

func TestEveryPlatformThatIsNamedHasAChecksum(t *testing.T) {
	t.Parallel()
	if len(checksum(platform())) != 64 {
		t.Errorf("none for %s, on which this runs", platform())
	}
	for _, p := range []string{"linux-amd64", "linux-arm64v8", "linux-amd64-alpine", "darwin-amd64", "darwin-arm64v8"} {
		if _, err := hex.DecodeString(checksum(p)); err != nil || len(checksum(p)) != 64 {
			t.Errorf("%s: %q", p, checksum(p))
		}
	}
}

func TestLineLogKeepsTheEndAndCutsLongLines(t *testing.T) {
	t.Parallel()
	l := &lineLog{log: slog.New(slog.DiscardHandler)}
	for range 2 * tailLines {
		_, _ = l.Write([]byte("early\n"))
	}
	_, _ = l.Write([]byte("half "))
	_, _ = l.Write([]byte("a line\nlast\n"))
	lines := strings.Split(l.tail(), "\n")
	if len(lines) != tailLines || lines[tailLines-2] != "half a line" || lines[tailLines-1] != "last" {
		t.Errorf("got %q", lines)
	}
	_, _ = l.Write([]byte(strings.Repeat("x", 3*maxLine)))
	if len(l.part) >= maxLine {
		t.Errorf("%d bytes are held for a line", len(l.part))
	}
}

func TestWaitLockTakesTurnsAndHeedsItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := waitLock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextWithTimeout(t, 100*time.Millisecond)
	defer cancel()
	if _, err := waitLock(ctx, dir); err == nil {
		t.Error("two hold one lock")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := waitLock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = second.Close()
	if _, err := waitLock(t.Context(), filepath.Join(dir, "missing")); err == nil {
		t.Error("locked in a directory that is not there")
	}
}

func TestTheLibraryStillSaysWhereTheBinariesAre(t *testing.T) {
	t.Parallel()
	url, err := defaultRepository()
	if err != nil || !strings.HasPrefix(url, "https://") {
		t.Errorf("%q, %v", url, err)
	}
}
