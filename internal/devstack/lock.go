package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrInUse says that another process holds the data directory.
var ErrInUse = errors.New("data directory is in use")

// lockName is the file in a data directory that its user holds locked.
const lockName = "penstock.lock"

// lockDir takes the directory's lock file, or fails at once with ErrInUse. The
// system lets go of the lock when the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the path is the caller's own directory
	if err != nil {
		return nil, fmt.Errorf("open the lock of the data directory: %w", err)
	}
	if err := tryLock(f); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		if !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		return nil, fmt.Errorf("%w: process %s has %s; stop it, or choose another directory",
			ErrInUse, strings.TrimSpace(string(holder)), dir)
	}
	// The pid is a courtesy to whoever is refused; the lock is what counts.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return f, nil
}

// letGo frees the directory whose lock file this is.
func letGo(lock *os.File) error { return errors.Join(unlock(lock), lock.Close()) }

// waitLock takes the directory's lock file, waiting for whoever has it.
func waitLock(ctx context.Context, dir string) (*os.File, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := lockDir(dir)
		if !errors.Is(err, ErrInUse) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}
