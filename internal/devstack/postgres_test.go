//go:build unix

package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPostgresKeepsItsDataOverStopAndStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	p := start(t, PostgresConfig{Dir: dir})
	keep(t, p.URL())
	if got := query(t, p.URL(), `show fsync`); got != "on" {
		t.Errorf("fsync is %s for data that are to be kept", got)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
	q := start(t, PostgresConfig{Dir: dir})
	if got := query(t, q.URL(), `select v from kept`); got != "yes" {
		t.Errorf("got %q", got)
	}
	if !strings.HasPrefix(q.Dir(), dir) {
		t.Errorf("a directory that can be reached was not used: data in %s, want below %s", q.Dir(), dir)
	}
}

func TestPostgresDiesWithAKilledParentAndStartsAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	parent, said := startChild(t, "postgres", childVariable+"_DIR="+dir)
	var pid int
	var url string
	if _, err := fmt.Sscan(said, &pid, &url); err != nil {
		t.Fatal(err)
	}
	keep(t, url)
	kill9(t, parent)
	eventually(t, "the server ends with its parent", func() bool {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	})
	p := start(t, PostgresConfig{Dir: dir})
	if got := query(t, p.URL(), `select v from kept`); got != "yes" {
		t.Errorf("got %q", got)
	}
}

func TestPostgresRefusesADirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	p := start(t, PostgresConfig{Dir: dir})
	began := time.Now()
	_, err := StartPostgres(t.Context(), PostgresConfig{Dir: dir})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v, want ErrInUse with the holder's pid", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v to say so", took)
	}
	if got := query(t, p.URL(), `select 'unharmed'`); got != "unharmed" {
		t.Error(got)
	}
}

func TestPostgresEndsTheServerThatAKilledProcessLeft(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	parent, said := startChild(t, "postgres", childVariable+"_DIR="+dir)
	var pid int
	var url string
	if _, err := fmt.Sscan(said, &pid, &url); err != nil {
		t.Fatal(err)
	}
	keep(t, url)
	// A stopped server does not hear that its parent died.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	kill9(t, parent)
	p := start(t, PostgresConfig{Dir: dir})
	if got := query(t, p.URL(), `select v from kept`); got != "yes" {
		t.Errorf("got %q", got)
	}
	eventually(t, "the orphan has gone", func() bool { // its new parent has to take notice
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	})
}

func TestOrphansThatHearNothingAreKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sleepIn(t, dir)
	short, cancel := contextWithTimeout(t, 50*time.Millisecond)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	if err := endOrphans(short, dir, time.Minute, log); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's end", err)
	}
	if err := endOrphans(t.Context(), dir, 50*time.Millisecond, log); err != nil {
		t.Error(err)
	}
}

func TestPostgresStartsAfterItsServerWasKilled(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	p := start(t, PostgresConfig{Dir: dir})
	keep(t, p.URL())
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if err := p.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("Stop said %v of a server that had died", err)
	}
	pidFile := filepath.Join(p.Dir(), "postmaster.pid")
	stale, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatalf("the kill left no pid file, so this test shows nothing: %v", err)
	}
	// The system gave the pid to another process of that account meanwhile: ours.
	_, rest, _ := strings.Cut(string(stale), "\n")
	if err := os.WriteFile(pidFile, fmt.Appendf(nil, "%d\n%s", os.Getpid(), rest), 0o600); err != nil {
		t.Fatal(err)
	}
	q := start(t, PostgresConfig{Dir: dir})
	if got := query(t, q.URL(), `select v from kept`); got != "yes" {
		t.Errorf("got %q", got)
	}
}

func TestPostgresBeginsAnewWhereInitWasCutOff(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	if err := os.MkdirAll(filepath.Join(dir, dataName+".new", "base"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	start(t, PostgresConfig{Dir: dir})
}

func TestPostgresSaysWhatIsWrongWithItsDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "pg")
	p := start(t, PostgresConfig{Dir: dir})
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	fails := func(want string) {
		t.Helper()
		_, err := StartPostgres(t.Context(), PostgresConfig{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	data := p.Dir()
	conf := filepath.Join(data, "postgresql.auto.conf")
	if err := os.WriteFile(conf, []byte("nonsense = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("nonsense") // the server's own words
	if err := os.Rename(filepath.Join(data, passwordName), filepath.Join(data, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	fails("password")
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("was made by PostgreSQL 9")
	if err := errors.Join(os.RemoveAll(data), os.Symlink("/nowhere/at/all", data)); err != nil {
		t.Fatal(err)
	}
	fails("have gone")
	dir = filepath.Join(conf, "x")
	fails("directory")
}

func TestPostgresHeedsTheContextOfItsStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := filepath.Join(openDir(t), "pg")
	if _, err := StartPostgres(ctx, PostgresConfig{Dir: dir}); err == nil {
		t.Fatal("started all the same")
	}
	start(t, PostgresConfig{Dir: dir}) // the failure let go of the directory
}

func TestThrowawayLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	p := start(t, PostgresConfig{Throwaway: true})
	if got := query(t, p.URL(), `show fsync`); got != "off" {
		t.Errorf("fsync is %s", got)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.at.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s stayed: %v", p.at.dir, err)
	}
}

func TestThrowawayOfAKilledProcessIsClearedByTheNext(t *testing.T) {
	t.Parallel()
	base := openDir(t)
	parent, said := startChild(t, "postgres", childVariable+"_DIR=", "TMPDIR="+base)
	var pid int
	if _, err := fmt.Sscan(said, &pid); err != nil {
		t.Fatal(err)
	}
	left := func() []string {
		dirs, err := filepath.Glob(filepath.Join(base, throwawayPrefix+"*"))
		if err != nil {
			t.Fatal(err)
		}
		return dirs
	}
	sweepTemp(base)
	if got := left(); len(got) != 1 {
		t.Fatalf("swept from under a live server: %v", got)
	}
	kill9(t, parent)
	eventually(t, "the server ends with its parent", func() bool {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	})
	if err := os.Symlink(t.TempDir(), filepath.Join(base, throwawayPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	sweepTemp(base)
	if got := left(); len(got) != 1 || !strings.HasSuffix(got[0], "link") {
		t.Errorf("left %v, want the link that is not ours alone", got)
	}
}

// t.TempDir is closed to other accounts, as a home directory is.
func TestPostgresInAClosedDirectory(t *testing.T) {
	t.Parallel()
	state := openDir(t)
	dir := filepath.Join(t.TempDir(), "pg")
	p := start(t, PostgresConfig{Dir: dir, rootState: state})
	keep(t, p.URL())
	relocated := strings.HasPrefix(p.Dir(), state)
	if root := os.Geteuid() == 0; relocated != root {
		t.Errorf("root: %v, data in %s", root, p.Dir())
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	p = start(t, PostgresConfig{Dir: dir, rootState: state})
	if got := query(t, p.URL(), `select v from kept`); got != "yes" {
		t.Errorf("got %q", got)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !relocated {
		return
	}
	// Whoever removes the directory means the data.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	q := start(t, PostgresConfig{Dir: dir, rootState: state})
	if _, err := os.Stat(p.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data of a directory that was removed stayed in %s: %v", p.Dir(), err)
	}
	if query(t, q.URL(), `select count(*)::text from pg_tables where tablename = 'kept'`) != "0" {
		t.Error("a new directory has old data")
	}
}

func TestPostgresRunsAsTheUserThatIsNotRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		start(t, PostgresConfig{Dir: t.TempDir()}) // every other test shows it too
		return
	}
	as, err := serverAccount("")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := binariesDir(as)
	if err != nil {
		t.Fatal(err)
	}
	start(t, PostgresConfig{Throwaway: true}) // the binaries are there now
	home := openDir(t)
	program := filepath.Join(home, "program")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(program, self, 0o755), os.Chmod(program, 0o755), os.Mkdir(filepath.Join(home, "pg"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := as.own(filepath.Join(home, "pg")); err != nil {
		t.Fatal(err)
	}
	_, said := startProgram(t, program, as, childVariable+"=postgres", childVariable+"_DIR="+filepath.Join(home, "pg"),
		"XDG_CACHE_HOME="+filepath.Dir(filepath.Dir(cache)))
	var pid int
	var url string
	if _, err := fmt.Sscan(said, &pid, &url); err != nil {
		t.Fatal(err)
	}
	if got := query(t, url, `select 'yes'`); got != "yes" {
		t.Error(got)
	}
}

func TestReachesGoesByTheModesOnTheWay(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	inner := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(inner)
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	owner, group, other := &account{uid: st.Uid, gid: st.Gid + 1}, &account{uid: st.Uid + 1, gid: st.Gid}, &account{uid: st.Uid + 1, gid: st.Gid + 1}
	for mode, want := range map[os.FileMode][3]bool{
		0o700: {true, false, false}, 0o710: {true, true, false}, 0o711: {true, true, true}, 0o701: {true, false, true}, 0o011: {false, true, true},
	} {
		if err := os.Chmod(filepath.Join(dir, "a"), mode); err != nil {
			t.Fatal(err)
		}
		if mode == 0o011 && os.Geteuid() != 0 {
			continue // not even we could look
		}
		if got := [3]bool{owner.reaches(inner), group.reaches(inner), other.reaches(inner)}; got != want {
			t.Errorf("%o: got %v, want %v", mode, got, want)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if other.reaches(filepath.Join(dir, "missing")) {
		t.Error("reached what is not there")
	}
}
