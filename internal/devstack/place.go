package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// defaultRootState is where root keeps data whose own directory is closed to
// the server's account.
const defaultRootState = "/var/lib/penstock"

const (
	// dataName is the cluster, a directory or a symbolic link to one.
	dataName = "data"
	// originName, beside data that lie under the root state, names the directory
	// that links to them.
	originName = "origin"
	// throwawayPrefix begins the names of temporary directories.
	throwawayPrefix = "penstock-postgres-"
)

// place is where one server's files are.
type place struct {
	dir  string   // the caller's, or a temporary one
	data string   // the cluster's directory, free of symbolic links
	lock *os.File // held on dir while the server may run
	as   *account // whom the cluster belongs to
	temp bool     // dir goes when the server stops
}

// newPlace takes the caller's directory.
func newPlace(ctx context.Context, dir, rootState string) (*place, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // the server's account has to pass, not to read
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	p := &place{dir: dir, lock: lock}
	if err := p.settle(ctx, rootState); err != nil {
		return nil, errors.Join(err, letGo(lock))
	}
	return p, nil
}

// settle finds the cluster's directory, or decides where it is going to be.
func (p *place) settle(ctx context.Context, rootState string) error {
	link := filepath.Join(p.dir, dataName)
	var err error
	if p.as, err = serverAccount(link); err != nil {
		return err
	}
	if fi, err := os.Lstat(link); err == nil && fi.Mode()&os.ModeSymlink != 0 {
		if p.data, err = os.Readlink(link); err != nil {
			return fmt.Errorf("follow %s: %w", link, err)
		}
		if _, err := os.Stat(filepath.Dir(p.data)); err != nil {
			return fmt.Errorf("%s leads to data that have gone; remove the link to begin anew: %w", link, err)
		}
		return nil
	}
	direct, err := filepath.EvalSymlinks(p.dir)
	if err != nil {
		return fmt.Errorf("find the data directory: %w", err)
	}
	p.data = filepath.Join(direct, dataName)
	if p.as.reaches(p.dir) {
		return nil
	}
	if _, err := os.Lstat(link); err == nil {
		return fmt.Errorf("the account that owns %s can't pass through the directories above it: open them with chmod o+x, or choose another directory", link)
	}
	return p.relocate(ctx, rootState, link)
}

// relocate puts the data under the root state, with a link in the caller's
// directory, and clears away relocated data that no directory links to any more.
func (p *place) relocate(ctx context.Context, rootState, link string) error {
	base := filepath.Join(rootState, "postgres")
	for _, dir := range []string{rootState, base} {
		if err := makePassable(dir); err != nil {
			return err
		}
	}
	// One at a time: a directory without its link would look abandoned.
	lock, err := waitLock(ctx, base)
	if err != nil {
		return fmt.Errorf("put data under %s: %w", base, err)
	}
	defer letGo(lock) //nolint:errcheck // lets go of the lock
	if err := sweepRelocated(base); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(base, "data-")
	if err != nil {
		return fmt.Errorf("put data under %s: %w", base, err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the server's account has to pass
		return fmt.Errorf("put data under %s: %w", base, err)
	}
	if err := os.WriteFile(filepath.Join(dir, originName), []byte(p.dir+"\n"), 0o600); err != nil {
		return fmt.Errorf("put data under %s: %w", base, err)
	}
	p.data = filepath.Join(dir, dataName)
	if !p.as.reaches(dir) {
		return fmt.Errorf("neither %s nor %s can be reached by the server's account: open one of them with chmod o+x", p.dir, dir)
	}
	if err := os.Symlink(p.data, link); err != nil {
		return fmt.Errorf("link to the data: %w", err)
	}
	return nil
}

func makePassable(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // the server's account has to pass
		return fmt.Errorf("make %s for data that lie in a closed directory: %w", dir, err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // whatever the umask
		return fmt.Errorf("open %s to the server's account: %w", dir, err)
	}
	return nil
}

// sweepRelocated removes the data whose origin has gone or links elsewhere.
func sweepRelocated(base string) error {
	dirs, err := filepath.Glob(filepath.Join(base, "data-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		origin, err := os.ReadFile(filepath.Join(dir, originName)) //nolint:gosec // our own directory
		if err != nil {
			continue // not ours, or half made: not worth a risk
		}
		data := filepath.Join(dir, dataName)
		if to, err := os.Readlink(filepath.Join(strings.TrimSpace(string(origin)), dataName)); err == nil && to == data {
			continue
		}
		if pids, err := serversOn(data); err == nil && len(pids) > 0 {
			continue // its directory was removed under a running server
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("clear abandoned data: %w", err)
		}
	}
	return nil
}

// tempPlace makes a place that goes with its server, and clears away those of
// processes that were killed.
func tempPlace(rootState string) (*place, error) {
	as, err := serverAccount("")
	if err != nil {
		return nil, err
	}
	base, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return nil, fmt.Errorf("find the directory for temporary files: %w", err)
	}
	if !as.reaches(base) {
		base = filepath.Join(rootState, "tmp")
		for _, dir := range []string{rootState, base} {
			if err := makePassable(dir); err != nil {
				return nil, err
			}
		}
	}
	sweepTemp(base)
	// It gets its final name once its lock is held, so that no one sweeps it.
	dir, err := os.MkdirTemp(base, "new-"+throwawayPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a temporary data directory: %w", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the server's account has to pass
		return nil, fmt.Errorf("make a temporary data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	final := filepath.Join(base, strings.TrimPrefix(filepath.Base(dir), "new-"))
	if err := os.Rename(dir, final); err != nil {
		return nil, errors.Join(fmt.Errorf("make a temporary data directory: %w", err), letGo(lock), os.RemoveAll(dir))
	}
	return &place{dir: final, data: filepath.Join(final, dataName), lock: lock, as: as, temp: true}, nil
}

// sweepTemp removes temporary directories of this user's whose lock is free: whoever
// had it is dead, and so, or as soon as it looks around, is its server.
func sweepTemp(base string) {
	dirs, err := filepath.Glob(filepath.Join(base, throwawayPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if fi, err := os.Lstat(dir); err != nil || !fi.IsDir() || !ownedByUs(fi) {
			continue // nothing in another's directory is to be trusted, links least of all
		}
		if _, err := os.Lstat(filepath.Join(dir, lockName)); err != nil {
			continue
		}
		lock, err := lockDir(dir)
		if err != nil {
			continue
		}
		if pids, err := serversOn(filepath.Join(dir, dataName)); err != nil || len(pids) == 0 {
			_ = os.RemoveAll(dir)
		}
		_ = letGo(lock)
	}
}

// leave gives the place up, and removes it if it was temporary.
func (p *place) leave() error {
	var err error
	if p.temp {
		err = os.RemoveAll(p.dir)
	}
	return errors.Join(err, letGo(p.lock))
}
