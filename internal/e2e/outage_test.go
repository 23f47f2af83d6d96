package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/testenv"
)

const (
	// outage is how long a part is away: longer than Kafka gets to take a request
	// (10 s), so that some are refused while it lasts.
	outage = 12 * time.Second
	// soon bounds what does not wait for what is away, on a busy machine: those who
	// do are let go after two seconds at the least.
	soon = 1500 * time.Millisecond
	// long is a model that answers for longer than an outage lasts.
	long = "sim:tokens=400,ttft=10ms,gap=50ms"
)

// TestKafkaAwayIsSaidAndSurvived freezes the broker as SIGSTOP does, then kills
// it and starts it again, while jobs keep coming.
func TestKafkaAwayIsSaidAndSurvived(t *testing.T) { //nolint:tparallel // its parts are one outage after the other
	t.Parallel()
	kafka, err := testenv.StartKafka(t.Context(), testenv.KafkaOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kafka.Stop() })
	d := deployOn(t, kafka.Addr(), testenv.Postgres(t), "away.")
	p := d.start("ingest,processors,projections,gateway")
	done := submit(t, p.url, quick).ID
	d.row(done)
	for name, away := range map[string]struct{ take, giveBack func() error }{
		"frozen": {kafka.Pause, kafka.Resume},
		"killed": {kafka.Kill, func() error { return kafka.Restart(t.Context()) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := p.in(t)
			pump := startPump(t, p.url, quick)
			under := &watcher{t: t, url: p.url, job: submit(t, p.url, long).ID}
			if err := under.read(t.Context(), func(int) bool { return under.NextSeq > 3 }); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			before := p.goroutines()
			if err := away.take(); err != nil {
				t.Fatal(err)
			}
			gone := time.Now()
			p.unready("kafka")
			t.Logf("readiness named it after %s", time.Since(gone).Round(time.Millisecond))
			p.says("/livez", http.StatusOK, "ok", soon)
			p.says("/v1/jobs", http.StatusOK, `"object":"list"`, 3*time.Second)
			p.says("/v1/jobs/"+done, http.StatusOK, `"completed"`, 5*time.Second)
			p.says("/v1/topics/tokens/partitions/1/events?offset=earliest", http.StatusServiceUnavailable, `"unavailable"`, 15*time.Second)
			pause(t.Context(), outage-time.Since(gone))
			if err := away.giveBack(); err != nil {
				t.Fatal(err)
			}
			back := time.Now()
			pump.since(back)
			t.Logf("the first job was accepted %s after it was back", time.Since(back).Round(time.Millisecond))
			p.ready()
			t.Logf("all was ready %s after it was back", time.Since(back).Round(time.Millisecond))
			under.finish(time.Minute)
			if under.End != event.OutputCompleted || under.Attempt != 1 || len(strings.Fields(under.Text())) != 400 {
				t.Errorf("the job that was under way ended as %s in attempt %d with %d words", under.End, under.Attempt, len(strings.Fields(under.Text())))
			}
			pump.end()
			pump.told(20 * time.Second) // it is given ten
			if pump.answers["503 unknown_outcome"]+pump.answers["503 unavailable"] == 0 {
				t.Error("nothing was refused: the test does not do what it says")
			}
			pump.settled(nil)
			p.calm(before)
		})
	}
	p.stop()
}

// TestPostgresAwayIsSaidAndSurvived freezes the database, then kills it and
// starts it again: jobs run on without it, what needs it says so, and all is
// folded when it is back.
func TestPostgresAwayIsSaidAndSurvived(t *testing.T) { //nolint:tparallel // as above
	t.Parallel()
	database := startDatabase(t)
	d := deployOn(t, testenv.Kafka(t), database.url, testenv.Prefix(t))
	p := d.start("ingest,processors,projections,gateway")
	for name, away := range map[string]struct{ take, giveBack func() }{
		"frozen": {func() { database.signal(syscall.SIGSTOP) }, func() { database.signal(syscall.SIGCONT) }},
		"killed": {func() { database.signal(syscall.SIGKILL) }, database.start},
	} {
		t.Run(name, func(t *testing.T) {
			p := p.in(t)
			pump := startPump(t, p.url, quick)
			before := p.goroutines()
			away.take()
			gone := time.Now()
			p.unready("postgres")
			t.Logf("readiness named it after %s", time.Since(gone).Round(time.Millisecond))
			began := time.Now()
			w := &watcher{t: t, url: p.url, job: submit(t, p.url, quick).ID}
			w.finish(30 * time.Second)
			if took := time.Since(began); w.End != event.OutputCompleted || took > outage-2*time.Second {
				t.Errorf("without PostgreSQL a job ended as %s, after %s", w.End, took)
			}
			p.says("/livez", http.StatusOK, "ok", soon)
			p.says("/v1/jobs", http.StatusServiceUnavailable, `"unavailable"`, 3*time.Second)
			p.says("/v1/jobs/"+w.job, http.StatusOK, `"completed"`, 5*time.Second)
			pause(t.Context(), outage-time.Since(gone))
			away.giveBack()
			back := time.Now()
			pump.since(back)
			t.Logf("the first job with a key was accepted %s after it was back", time.Since(back).Round(time.Millisecond))
			p.ready()
			t.Logf("all was ready %s after it was back", time.Since(back).Round(time.Millisecond))
			d.in(t).row(w.job)
			t.Logf("the job had its row %s after it was back", time.Since(back).Round(time.Millisecond))
			pump.end()
			pump.told(outage - 2*time.Second) // it is given two
			if pump.answers["503 unavailable"] == 0 {
				t.Error("nothing was refused: the test does not do what it says")
			}
			pump.settled(nil)
			for id := range pump.accepted {
				d.in(t).row(id)
			}
			p.calm(before)
		})
	}
	p.stop()
}

// TestTheModelServerAwayIsToldAndSurvived takes a model server away and brings it
// back: every job that was accepted ends, either well or with a code that says
// that a retry may help.
func TestTheModelServerAwayIsToldAndSurvived(t *testing.T) {
	t.Parallel()
	server := &modelServer{t: t, addr: freeAddr(t)}
	server.start()
	d := &deployment{t: t, env: []string{
		"PENSTOCK_KAFKA=" + testenv.Kafka(t), "PENSTOCK_POSTGRES=" + testenv.Postgres(t), "PENSTOCK_PREFIX=" + testenv.Prefix(t),
		"PENSTOCK_PARTITIONS=4", "PENSTOCK_UPSTREAM=http://" + server.addr + "/v1", "PENSTOCK_UPSTREAM_KEY=none",
	}}
	p := spawn(t, "dev", d.env, "dev").ready()
	pump := startPump(t, p.url, "river-1")
	under := &watcher{t: t, url: p.url, job: submit(t, p.url, "river-1").ID}
	if err := under.read(t.Context(), func(int) bool { return under.NextSeq > 3 }); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	before := p.goroutines()
	server.stop()
	gone := time.Now()
	refused := &watcher{t: t, url: p.url, job: submit(t, p.url, "river-1").ID}
	p.ready() // the log takes jobs in: the process is of use
	pause(t.Context(), outage-time.Since(gone))
	server.start()
	back := time.Now()
	pump.since(back)
	after := &watcher{t: t, url: p.url, job: submit(t, p.url, "river-1").ID}
	after.finish(30 * time.Second)
	t.Logf("a job completed %s after it was back", time.Since(back).Round(time.Millisecond))
	if after.End != event.OutputCompleted {
		t.Errorf("a job after the outage ended as %s: %+v", after.End, after.Failed)
	}
	retryable := func(w *watcher) bool {
		return w.End == event.OutputFailed && w.Failed.Retryable && w.Failed.Message != "" &&
			(w.Failed.Code == string(fault.ProviderError) || w.Failed.Code == string(fault.ProviderTimeout))
	}
	for what, w := range map[string]*watcher{"under way": under, "begun without it": refused} {
		w.finish(time.Minute)
		t.Logf("the job %s ended as %s in attempt %d: %+v", what, w.End, w.Attempt, w.Failed)
		if w.End != event.OutputCompleted && !retryable(w) {
			t.Errorf("the job %s ended as %s: %+v", what, w.End, w.Failed)
		}
	}
	pump.end()
	pump.told(outage - 2*time.Second)
	if len(pump.answers) != 1 || pump.answers["202"] == 0 {
		t.Errorf("with Kafka there, jobs were answered %v", pump.answers)
	}
	pump.settled(retryable)
	p.calm(before)
	p.stop()
}

// in is the process as a subtest has it.
func (p *process) in(t *testing.T) *process {
	t.Helper()
	q := *p
	q.t = t
	return &q
}

func (d *deployment) in(t *testing.T) *deployment { t.Helper(); return &deployment{t, d.env} }

// modelServer is an OpenAI-compatible server that can go and come back.
type modelServer struct {
	t    *testing.T
	addr string
	srv  *http.Server
	wg   sync.WaitGroup
}

// ServeHTTP answers any chat completion with fifty words, slowly.
func (*modelServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range 50 {
		finish := "null"
		if i == 49 {
			finish = `"stop"`
		}
		_, _ = fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"river-1","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":%s}]}`+"\n\n", finish)
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		pause(r.Context(), 20*time.Millisecond)
	}
	_, _ = fmt.Fprint(w, "data: [DONE]\n\n")
}

func (s *modelServer) start() {
	s.t.Helper()
	var (
		l   net.Listener
		err error
	)
	for deadline := time.Now().Add(10 * time.Second); ; pause(s.t.Context(), 50*time.Millisecond) {
		if l, err = net.Listen("tcp", s.addr); err == nil {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	s.srv = srv
	s.wg.Go(func() { _ = srv.Serve(l) })
	s.t.Cleanup(s.stop)
}

// stop cuts everybody off.
func (s *modelServer) stop() {
	_ = s.srv.Close()
	s.wg.Wait()
}

// database is a PostgreSQL of its own behind a proxy, so that its address stays.
type database struct {
	t     *testing.T
	dir   string
	proxy *toxiproxy.Proxy
	now   *devstack.Postgres
	url   string
}

func startDatabase(t *testing.T) *database {
	t.Helper()
	dir, err := os.MkdirTemp("", "penstock-e2e-pg-") //nolint:usetesting // PostgreSQL's account cannot reach t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	d := &database{t: t, dir: filepath.Join(dir, "postgres")}
	d.start()
	u, err := url.Parse(d.now.URL())
	if err != nil {
		t.Fatal(err)
	}
	d.proxy = toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "postgres", "127.0.0.1:0", u.Host)
	if err := d.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.proxy.Stop)
	u.Host = d.proxy.Listen
	d.url = u.String()
	return d
}

// start starts the database, at first or after a kill.
func (d *database) start() {
	d.t.Helper()
	if d.now != nil {
		<-d.now.Done()
		d.close()
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	var err error
	if d.now, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: d.dir, Throwaway: true}); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(d.close)
	if d.proxy == nil {
		return
	}
	u, err := url.Parse(d.now.URL())
	if err != nil {
		d.t.Fatal(err)
	}
	d.proxy.Stop() // it reads where to go without its lock
	d.proxy.Upstream = u.Host
	if err := d.proxy.Start(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *database) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_ = d.now.Stop(ctx) // one that was killed says so
}

// signal sends a signal to the server and to all that it started: its children
// are groups of their own.
func (d *database) signal(sig syscall.Signal) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.now.Dir(), "postmaster.pid"))
	if err != nil {
		d.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	server, err := strconv.Atoi(first)
	if err != nil {
		d.t.Fatal(err)
	}
	processes := append([]int{server}, childrenOf(d.t, server)...)
	for _, pid := range processes {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			d.t.Fatal(err)
		}
	}
}

func childrenOf(t *testing.T, parent int) (found []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "\nPPid:\t"+strconv.Itoa(parent)+"\n") {
			continue // it has ended, or is another's
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			found = append(found, pid)
		}
	}
	return found
}
