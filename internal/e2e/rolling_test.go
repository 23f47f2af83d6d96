package e2e

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
)

// TestRollingRestartsOfTwoGatewaysCostNobodyAToken has watchers over SSE and
// WebSockets follow jobs through a proxy, while the two gateways behind it are
// restarted one after the other by SIGTERM, and one is killed. The watchers come
// back as docs/api.md tells them to. PENSTOCK_ROLLING is how many rounds of that
// there are.
func TestRollingRestartsOfTwoGatewaysCostNobodyAToken(t *testing.T) {
	t.Parallel()
	rounds := 1
	if text := os.Getenv("PENSTOCK_ROLLING"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	const jobs, watchersOfEach, sockets, jobsOfSocket = 16, 2, 8, 6
	d := deploy(t)
	d.start("processors,projections")
	gateways := []*process{d.start("ingest,gateway"), d.start("ingest,gateway")}
	proxy := newBalancer(t)
	for _, g := range gateways {
		proxy.add(g.url)
	}
	// A word twenty times a second, until all restarts are over.
	const model = "sim:tokens=1000000,ttft=10ms,gap=50ms"
	ids := make([]string, jobs)
	for i := range ids {
		ids[i] = submit(t, proxy.url, model).ID
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(180+60*rounds)*time.Second)
	defer cancel()
	var (
		all []*follower
		wg  sync.WaitGroup
	)
	for _, id := range ids {
		for range watchersOfEach {
			f := &follower{t: t, url: proxy.url, jobs: []*watcher{{t: t, url: proxy.url, job: id}}}
			all = append(all, f)
			wg.Go(func() { f.overSSE(ctx) })
		}
	}
	for i := range sockets {
		f := &follower{t: t, url: proxy.url}
		for j := range jobsOfSocket {
			f.jobs = append(f.jobs, &watcher{t: t, url: proxy.url, job: ids[(i*jobsOfSocket+j)%jobs]})
		}
		all = append(all, f)
		wg.Go(func() { f.overSocket(ctx) })
	}
	everyone := func() { // has come back
		since := time.Now()
		for _, f := range all {
			f.hearsSince(ctx, since)
		}
	}
	everyone()
	for range rounds {
		for i := range gateways {
			gateways[i] = gateways[i].restart(d, proxy, (*process).stop)
			everyone()
		}
		gateways[0] = gateways[0].restart(d, proxy, (*process).kill)
		everyone()
	}
	for _, id := range ids {
		cancelJob(t, gateways[0].url, id) // a connection to the proxy may be one of those that were cut
	}
	wg.Wait()
	check(t, all)
}

// restart ends a gateway and has another take its place behind the proxy.
func (p *process) restart(d *deployment, proxy *balancer, end func(*process)) *process {
	p.t.Helper()
	began := time.Now()
	end(p)
	ended := time.Since(began)
	proxy.remove(p.url)
	fresh := d.start("ingest,gateway")
	proxy.add(fresh.url)
	p.t.Logf("a gateway ended after %s, and was ready again %s later", ended.Round(time.Millisecond), (time.Since(began) - ended).Round(time.Millisecond))
	return fresh
}

// check looks whether every follower has all of its jobs, each event once, as the
// jobs themselves say it.
func check(t *testing.T, all []*follower) {
	t.Helper()
	events, cuts := 0, 0
	var pauses []time.Duration
	for _, f := range all {
		if f.cuts == 0 {
			t.Error("a follower was never cut off: the test does not do what it says")
		}
		cuts += f.cuts
		pauses = append(pauses, f.longest)
		for _, w := range f.jobs {
			events += len(w.got)
			if w.End != event.OutputCancelled || w.Attempt != 1 {
				t.Errorf("job %s ended as %q in attempt %d, at seq %d", w.job, w.End, w.Attempt, w.NextSeq)
				continue
			}
			if whole := jobOf(t, f.url, w.job, "30s").Output; len(whole) != 1 || strings.TrimSpace(whole[0].Message.Content) != strings.TrimSpace(w.Text()) {
				t.Errorf("job %s: a follower has other text than the job", w.job)
			}
		}
	}
	slices.Sort(pauses)
	t.Logf("%d followers had %d events, each once; they were cut off %d times; the longest pause of each: median %s, worst %s",
		len(all), events, cuts, pauses[len(pauses)/2].Round(time.Millisecond), pauses[len(pauses)-1].Round(time.Millisecond))
}
