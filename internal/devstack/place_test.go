//go:build unix

package devstack

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stranger is an account that owns nothing here.
func stranger() *account {
	return &account{uid: uint32(os.Geteuid()) + 4242, gid: uint32(os.Getegid()) + 4242}
}

// closed is a directory that only we can pass.
func closed(t *testing.T) string {
	t.Helper()
	dir := openDir(t)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRelocateLinksSweepsAndSaysWhyItCannot(t *testing.T) {
	t.Parallel()
	state := filepath.Join(openDir(t), "state")
	dir := closed(t)
	link := filepath.Join(dir, dataName)
	p := &place{dir: dir, as: stranger()}
	if err := p.relocate(t.Context(), state, link); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != p.data || !strings.HasPrefix(to, state) {
		t.Errorf("the link leads to %s (%v), the data lie in %s", to, err, p.data)
	}
	base := filepath.Dir(filepath.Dir(p.data))
	unknown := filepath.Join(base, "data-unknown")
	if err := os.Mkdir(unknown, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := sweepRelocated(base); err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{filepath.Dir(p.data), unknown} {
		if _, err := os.Stat(kept); err != nil {
			t.Errorf("swept what is linked to or not ours: %v", err)
		}
	}
	if err := p.relocate(t.Context(), state, link); err == nil {
		t.Error("a link was put over another")
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := p.relocate(t.Context(), filepath.Join(closed(t), "state"), link); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("got %v, want that neither place can be reached", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.relocate(t.Context(), filepath.Join(file, "state"), link); err == nil {
		t.Error("a state directory was made below a file")
	}
	held := openDir(t)
	if err := os.Mkdir(filepath.Join(held, "postgres"), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := lockDir(filepath.Join(held, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() //nolint:errcheck // a test's
	short, cancel := contextWithTimeout(t, 50*time.Millisecond)
	defer cancel()
	if err := p.relocate(short, held, link); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v while another relocates", err)
	}
}

func TestSweepLeavesDataUnderARunningServer(t *testing.T) {
	t.Parallel()
	base := openDir(t)
	data := filepath.Join(base, "data-1", dataName)
	if err := errors.Join(os.MkdirAll(data, 0o755),
		os.WriteFile(filepath.Join(base, "data-1", originName), []byte("/gone\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	sleeper := sleepIn(t, data)
	if err := sweepRelocated(base); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(data); err != nil {
		t.Fatalf("removed from under a process: %v", err)
	}
	sleeper()
	if err := sweepRelocated(base); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("abandoned data stayed: %v", err)
	}
}

func TestDataThatItsOwnerCannotReachAreNotMovedInSilence(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // only root runs a server as another account
	}
	dir := closed(t)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, dataName), 0o700), stranger().own(filepath.Join(dir, dataName))); err != nil {
		t.Fatal(err)
	}
	if _, err := newPlace(t.Context(), dir, openDir(t)); err == nil || !strings.Contains(err.Error(), "chmod o+x") {
		t.Errorf("got %v", err)
	}
}

func TestServerAccountIsTheDataOwners(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	as, err := serverAccount(dir)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if as != nil {
			t.Errorf("not root, and yet %v", as)
		}
		return
	}
	if as == nil || as.uid == 0 {
		t.Fatalf("as root the server would run as %v", as)
	}
	other := stranger()
	if err := other.own(dir); err != nil {
		t.Fatal(err)
	}
	if as, err = serverAccount(dir); err != nil || *as != *other {
		t.Errorf("got %v, %v", as, err)
	}
}

// It changes the environment, so nothing runs beside it.
func TestTemporaryDataGoWhereTheServerCanReachThem(t *testing.T) {
	state, home := openDir(t), closed(t)
	t.Setenv("TMPDIR", closed(t))
	p, err := tempPlace(state)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 && !strings.HasPrefix(p.data, state) {
		t.Errorf("data in %s, where the server's account can't go", p.data)
	}
	if err := p.leave(); err != nil {
		t.Error(err)
	}
	t.Setenv("TMPDIR", filepath.Join(state, "missing"))
	if _, err := tempPlace(state); err == nil {
		t.Error("a missing directory for temporary files was taken")
	}
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	for _, as := range []*account{nil, stranger()} {
		dir, err := binariesDir(as)
		if root := strings.HasPrefix(dir, rootCache); err != nil || root != (as != nil) {
			t.Errorf("for account %v: binaries in %s, %v", as, dir, err)
		}
	}
	t.Setenv("HOME", "")
	if _, err := binariesDir(nil); err == nil {
		t.Error("a cache without a home")
	}
	if _, err := StartPostgres(t.Context(), PostgresConfig{rootState: state}); err == nil {
		t.Error("started without a directory for temporary files")
	}
}

// fake makes a Postgres whose programs are shell scripts.
func fake(t *testing.T, scripts map[string]string) *Postgres {
	t.Helper()
	bin := openDir(t)
	for name, text := range scripts {
		if err := errors.Join(os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text), 0o755), os.Chmod(filepath.Join(bin, name), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	at, err := newPlace(t.Context(), filepath.Join(openDir(t), "pg"), openDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = at.leave() })
	log := slog.New(slog.DiscardHandler)
	return &Postgres{at: at, cfg: PostgresConfig{Log: log}, bin: bin, out: &lineLog{log: log}}
}

func TestInitThatFailsSaysWhyAndLeavesNoCluster(t *testing.T) {
	t.Parallel()
	p := fake(t, map[string]string{"initdb": "echo the disk is full; exit 3"})
	if err := p.initialise(t.Context()); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(p.at.data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a cluster stayed: %v", err)
	}
}

// ends is a log with whose first line a server is given up.
type ends struct{ cancel context.CancelFunc }

func (e ends) Write(b []byte) (int, error) { e.cancel(); return len(b), nil }

func TestAServerThatNeverAnswersIsEnded(t *testing.T) {
	t.Parallel()
	p := fake(t, map[string]string{"postgres": `trap "" QUIT INT; echo deaf; while :; do sleep 1; done`})
	ctx, cancel := contextWithTimeout(t, time.Minute)
	defer cancel()
	p.out.log = slog.New(slog.NewTextHandler(ends{cancel}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if err := p.serve(ctx); err == nil || !strings.Contains(err.Error(), "deaf") {
		t.Errorf("got %v, want its last words", err)
	}
	if err := p.cmd.Process.Signal(syscall.Signal(0)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("it still runs: %v", err)
	}
	p.bin = "/nowhere"
	if err := p.serve(t.Context()); err == nil {
		t.Error("ran a program that is not there")
	}
}

func TestAPortThatAnotherTookIsLookedForAgain(t *testing.T) {
	t.Parallel()
	p := fake(t, map[string]string{"postgres": `echo "FATAL:  could not create any TCP/IP sockets"; exit 1`})
	if err := p.serve(t.Context()); err == nil || strings.Count(err.Error(), portTaken) != portTries {
		t.Errorf("got %v, want what it said %d times", err, portTries)
	}
}

func TestStopCutsOffAServerThatTakesTooLong(t *testing.T) {
	t.Parallel()
	p := start(t, PostgresConfig{Dir: filepath.Join(openDir(t), "pg")})
	ctx, cancel := contextWithTimeout(t, 0)
	defer cancel()
	if err := p.Stop(ctx); err != nil && !strings.Contains(err.Error(), "cut off") {
		t.Errorf("got %v", err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("Stop returned before the server had ended")
	}
}

func TestAPlaceTakesNoDirectoryThatIsAFile(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newPlace(t.Context(), file, dir); err == nil {
		t.Error("a file was taken for a data directory")
	}
	if err := makePassable(filepath.Join(file, "x")); err == nil {
		t.Error("made a directory below a file")
	}
	if _, err := lockDir(file); err == nil {
		t.Error("locked below a file")
	}
	p := fake(t, nil)
	if err := os.WriteFile(p.at.data, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.initialise(t.Context()); err == nil {
		t.Error("a file was taken for a cluster")
	}
}
