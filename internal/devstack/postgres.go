package devstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// superuser owns the cluster; what connects is the same program's other half.
	superuser = "postgres"
	// passwordName is a file inside the cluster, so that both live and go together.
	passwordName = "penstock.password"
	// portAttempts bounds the starts: another process may take the port between
	// our asking the system for a free one and the server's binding it.
	portAttempts = 5
	// orphanPatience is how long a server that outlived its parent has to end
	// by itself before it is killed.
	orphanPatience = 5 * time.Second
	// startPatience bounds the wait for a first answer; it includes recovery
	// after a crash, which takes long only where much was written.
	startPatience = 60 * time.Second
	// stopPatience bounds a stop in good order where the caller sets no bound.
	stopPatience = 30 * time.Second
)

// PostgresConfig says what server to start.
type PostgresConfig struct {
	// Dir holds the data over restarts; it is made where it is missing. Empty
	// means a temporary directory, which Stop removes.
	Dir string
	// Throwaway turns off everything that keeps data over a crash of the
	// machine (a kill -9 alone does no harm either way). For tests.
	Throwaway bool
	// Repository is the Maven repository that has the binaries; empty is Maven
	// Central.
	Repository string
	// Log gets one line a start, and at debug level what the server says.
	// Nil discards it.
	Log *slog.Logger

	// rootState stands in for defaultRootState in tests.
	rootState string
}

// Postgres is a running server.
type Postgres struct {
	at       *place
	cfg      PostgresConfig
	bin      string
	port     int
	password string

	cmd  *exec.Cmd
	out  *lineLog
	done chan struct{} // closed when the process has ended
	exit error         // how; valid after done

	stop    sync.Once
	stopErr error
}

// StartPostgres starts a server and returns once it answers. The context bounds
// the start, not the server's life: end that with Stop. A second server on one
// directory fails with ErrInUse; one that was left behind by a killed process
// is ended first.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	if cfg.Repository == "" {
		if cfg.Repository, err = defaultRepository(); err != nil {
			return nil, err
		}
	}
	if cfg.rootState == "" {
		cfg.rootState = defaultRootState
	}
	var at *place
	if cfg.Dir == "" {
		at, err = tempPlace(cfg.rootState)
	} else {
		at, err = newPlace(ctx, cfg.Dir, cfg.rootState)
	}
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	p := &Postgres{at: at, cfg: cfg, out: &lineLog{log: cfg.Log}}
	began := time.Now()
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL in %s: %w", at.dir, err), at.leave())
	}
	cfg.Log.InfoContext(ctx, "postgresql is ready",
		slog.String("data", at.data), slog.Int("port", p.port), slog.Duration("took", time.Since(began)))
	return p, nil
}

func (p *Postgres) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // the download is the long part
	defer cancel()
	cache, err := binariesDir(p.at.as)
	if err != nil {
		return err
	}
	which := platform()
	home, err := fetchBinaries(ctx, cache, archive{repository: p.cfg.Repository, platform: which, sha256: checksum(which)}, p.cfg.Log)
	if err != nil {
		return err
	}
	p.bin = filepath.Join(home, "bin")
	if err := endOrphans(ctx, p.at.data, orphanPatience, p.cfg.Log); err != nil {
		return err
	}
	if err := p.initialise(ctx); err != nil {
		return err
	}
	secret, err := os.ReadFile(filepath.Join(p.at.data, passwordName))
	if err != nil {
		return fmt.Errorf("read the cluster's password; if the directory is not worth keeping, remove it: %w", err)
	}
	p.password = string(secret)
	for attempt := 1; ; attempt++ {
		err := p.serve(ctx)
		if err == nil || attempt == portAttempts || !strings.Contains(err.Error(), "could not bind") {
			return err
		}
	}
}

// initialise makes the cluster where there is none, beside its place first: a
// process that is killed here leaves nothing that looks like a cluster.
func (p *Postgres) initialise(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(p.at.data, "PG_VERSION"))
	if err == nil {
		if major, _, _ := strings.Cut(postgresVersion, "."); strings.TrimSpace(string(version)) != major {
			return fmt.Errorf("%s was made by PostgreSQL %s, and this is %s: move it away to begin anew",
				p.at.data, bytes.TrimSpace(version), major)
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the cluster's version: %w", err)
	}
	fresh, secretFile := p.at.data+".new", p.at.data+".password"
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(secretFile)); err != nil {
		return fmt.Errorf("clear a cluster that was half made: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	if err := os.WriteFile(secretFile, []byte(rand.Text()), 0o600); err != nil {
		return fmt.Errorf("write the cluster's password: %w", err)
	}
	if err := errors.Join(p.at.as.own(fresh), p.at.as.own(secretFile)); err != nil {
		return fmt.Errorf("give the cluster to the server's account: %w", err)
	}
	args := []string{
		"--pgdata", fresh, "--username", superuser, "--pwfile", secretFile, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
		"--no-instructions",
	}
	if p.cfg.Throwaway {
		args = append(args, "--no-sync")
	}
	cmd := p.command(ctx, "initdb", args, syscall.SIGKILL)
	if out, err := p.runInit(cmd); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.Rename(secretFile, filepath.Join(fresh, passwordName)); err != nil {
		return fmt.Errorf("keep the cluster's password: %w", err)
	}
	if err := os.Rename(fresh, p.at.data); err != nil {
		return fmt.Errorf("put the cluster in place: %w", err)
	}
	return nil
}

func (*Postgres) runInit(cmd *exec.Cmd) (out []byte, err error) {
	onOwnThread(func() { out, err = cmd.CombinedOutput() })
	return out, err
}

// command prepares one of the server's programs. It runs below / and with a
// bare environment: PGDATA and the like in ours must not mislead it.
func (p *Postgres) command(ctx context.Context, name string, args []string, onParentDeath syscall.Signal) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...) //nolint:gosec // binaries with a known checksum
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	p.at.as.dress(cmd, onParentDeath)
	return cmd
}

// portTries bounds how often a port is looked for: one that is free may be taken by
// another before the server has it.
const portTries = 3

// portTaken is what the server says of a port that it cannot have.
const portTaken = "could not create any TCP/IP sockets"

// serve starts the server on a free port and waits for its first answer.
func (p *Postgres) serve(ctx context.Context) error {
	var err error
	for range portTries {
		if err = p.serveOnce(ctx); err == nil || !strings.Contains(err.Error(), portTaken) {
			break
		}
	}
	return err
}

func (p *Postgres) serveOnce(ctx context.Context) error {
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	p.port = port
	args := []string{"-D", p.at.data}
	for _, s := range p.settings() {
		args = append(args, "-c", s)
	}
	// The server outlives the context that bounds its start.
	p.cmd = p.command(context.WithoutCancel(ctx), "postgres", args, p.deathSignal())
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = time.Second // a straggling backend may hold the pipe
	p.done = make(chan struct{})
	started := make(chan error, 1)
	go onOwnThread(func() {
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.exit = p.cmd.Wait()
		}
	})
	if err := <-started; err != nil {
		return fmt.Errorf("run the server: %w", err)
	}
	if err := p.ready(ctx); err != nil {
		p.end(stopQuick)
		return err
	}
	return nil
}

// onOwnThread runs f on a thread that nothing else runs on: a parent-death
// signal goes out when the thread that started the child ends, and Go ends a
// thread whose goroutine returns while locked to it.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f()
}

// deathSignal is what the server gets when this process dies without Stop.
func (p *Postgres) deathSignal() syscall.Signal {
	if p.at.temp {
		return stopQuick
	}
	return stopFast
}

func (p *Postgres) settings() []string {
	s := []string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(p.port), "unix_socket_directories=",
		"max_connections=100", "shared_buffers=64MB", "max_wal_size=256MB", "min_wal_size=32MB",
		"jit=off", "timezone=UTC", "log_timezone=UTC", "log_destination=stderr", "logging_collector=off",
	}
	if p.cfg.Throwaway {
		s = append(s, "fsync=off", "full_page_writes=off", "synchronous_commit=off")
	}
	return s
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close() //nolint:errcheck // only its number was wanted
	return l.Addr().(*net.TCPAddr).Port, nil
}

// ready returns when a connection has answered, or says why none will.
func (p *Postgres) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := p.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("the server ended at its start (%w): %s", p.exit, p.out.tail())
		case <-ctx.Done():
			return fmt.Errorf("no answer in time: %w: %w: %s", ctx.Err(), err, p.out.tail())
		case <-tick.C:
		}
	}
}

func (p *Postgres) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		return err
	}
	return errors.Join(conn.Ping(ctx), conn.Close(ctx))
}

// URL is how to connect, with the password: keep it out of logs.
func (p *Postgres) URL() string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, p.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)), Path: "/postgres", RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Dir is where the data lie: the cluster itself, links followed.
func (p *Postgres) Dir() string { return p.at.data }

// Done is closed when the server has ended, by Stop or by itself.
func (p *Postgres) Done() <-chan struct{} { return p.done }

// Stop ends the sessions and the server, and gives the directory up. When the
// context ends first, the server is stopped at once; its data are safe all the
// same. Later calls return what the first did.
func (p *Postgres) Stop(ctx context.Context) error {
	p.stop.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, stopPatience)
		defer cancel()
		sig := stopFast
		if p.at.temp {
			sig = stopQuick // nothing of it is kept
		}
		select {
		case <-p.done:
			p.stopErr = fmt.Errorf("PostgreSQL had ended by itself (%w): %s", p.exit, p.out.tail())
		default:
			_ = p.cmd.Process.Signal(sig)
			select {
			case <-p.done:
			case <-ctx.Done():
				p.stopErr = fmt.Errorf("PostgreSQL did not stop in good order, and was cut off: %w", ctx.Err())
			}
		}
		p.end(stopQuick)
		p.stopErr = errors.Join(p.stopErr, p.at.leave())
	})
	return p.stopErr
}

// end makes sure that the server has ended, and waits for it.
func (p *Postgres) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	t := time.NewTimer(orphanPatience)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// endOrphans ends the server that a killed process left on the data, which only
// we may touch now: we hold the directory's lock.
func endOrphans(ctx context.Context, data string, wait time.Duration, log *slog.Logger) error {
	if _, err := os.Stat(data); err != nil {
		return nil // no data, no server
	}
	patience := time.NewTimer(wait)
	defer patience.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	sig := stopQuick
	for first := true; ; first = false {
		pids, err := serversOn(data)
		if err != nil {
			return fmt.Errorf("look for a server left on the data: %w", err)
		}
		if len(pids) == 0 {
			// The system may have given the pid in it to someone else since, of
			// whom the server would then be afraid.
			if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("clear the pid file of a server that has gone: %w", err)
			}
			return nil
		}
		if first || sig == syscall.SIGKILL {
			log.InfoContext(ctx, "ending a postgresql that was left on the data", slog.Any("pids", pids))
			for _, pid := range pids {
				// It may have ended meanwhile; and one that was stopped has to run to end.
				_ = errors.Join(signalPID(pid, sig), signalPID(pid, resume))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			sig = syscall.SIGKILL
		case <-tick.C:
		}
	}
}
