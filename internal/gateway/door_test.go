package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// refusals opens one connection of each kind that is one too many, and checks how
// it is answered.
func (g *ground) refusals(a *author, status int, code, says string, headers ...string) {
	g.Helper()
	_, no := g.tryDial(headers...)
	if no.status != status || no.retryAfter != "5" || !strings.Contains(no.body, `"`+code+`"`) || !strings.Contains(no.body, says) {
		g.Errorf("a WebSocket too many: %+v, want %d %s", no, status, code)
	}
	for _, path := range []string{events(a), fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part)} {
		c := g.open(path, headers...)
		if body := c.status(status); !strings.Contains(body, `"`+code+`"`) || !strings.Contains(body, says) || c.resp.Header.Get("Retry-After") != "5" {
			g.Errorf("a stream too many: %s", body)
		}
	}
}

// empty waits until nobody is in.
func (g *ground) empty() {
	g.Helper()
	eventually(g, func() bool {
		d := g.gateway.door
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.all == 0 && len(d.tenants) == 0 && len(d.places) == 0
	})
}

func TestOneConnectionTooManyIsRefusedWhateverItsKind(t *testing.T) {
	for name, c := range map[string]struct {
		cfg       Config
		status    int
		code, say string
	}{
		"of the process": {Config{MaxConnections: 3}, http.StatusServiceUnavailable, "unavailable", "this server has 3 connections"},
		"of a tenant":    {Config{MaxPerTenant: 3}, http.StatusTooManyRequests, "overloaded", "you have 3 connections"},
		"of an address":  {Config{MaxPerAddress: 3}, http.StatusTooManyRequests, "overloaded", "127.0.0.1 has 3 connections"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := c.cfg
			cfg.Quiet, cfg.Registry = time.Millisecond, prometheus.NewRegistry()
			g := onOne(t, cfg)
			a := g.author()
			a.started()
			socket := g.dial()
			stream := g.open(events(a))
			stream.must()
			whole := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part))
			whole.must()
			g.refusals(a, c.status, c.code, c.say)
			g.quietly(2) // which count, too, once they have left net/http
			g.refusals(a, c.status, c.code, c.say)
			if n := counter(t, g, "penstock_gateway_connections_refused_total", strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(name, "of the "), "of an "), "of a ")); n != 6 {
				t.Errorf("%v were counted as refused, want 6", n)
			}
			// One who has been here comes back by itself, and is not stopped for good.
			again := g.open(events(a), "Last-Event-ID", "x")
			if rest := again.rest(); again.resp.StatusCode != http.StatusOK || len(rest) != 0 || len(again.retries) != 1 || len(again.retries[0]) != 4 || again.beats != 1 {
				t.Errorf("one who comes back: %s, %v, %s", again.resp.Status, rest, again.retries)
			}
			stream.close()
			eventually(t, func() bool { return g.gateway.door.count() == 2 })
			g.open(events(a)).must()
			socket.close()
			whole.close()
			a.complete() // ends the last one
			g.empty()
		})
	}
}

func TestRequestsThatComeToNothingAreNotCounted(t *testing.T) {
	g := onOne(t, Config{MaxConnections: 1})
	a := g.author()
	a.whole(1)
	for path, status := range map[string]int{
		events(a) + "?cursor=x": 400, events(a) + "?snapshot=x": 400, events(a) + "?partition=9": 400, "/v1/jobs/-/events": 404,
		"/v1/topics/tokens/partitions/0/events?offset=x": 400, "/v1/topics/tokens/partitions/9/events": 404, "/v1/ws": 400,
		events(a): 200,
	} {
		for range 2 {
			g.open(path).status(status)
			g.empty()
		}
	}
	for _, path := range []string{events(a), "/v1/topics/tokens/partitions/0/events"} {
		resp, err := http.Head(g.url + path)
		g.no(err)
		g.no(resp.Body.Close())
		g.empty()
	}
	g.open("/v1/ws", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8").status(http.StatusBadRequest)
	g.empty()
}

func TestAnAddressIsTheClientsBehindProxiesOfOurs(t *testing.T) {
	d := &door{proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
	for _, c := range []struct{ remote, forwarded, want string }{
		{"203.0.113.7:5", "", "203.0.113.7"},
		{"203.0.113.7:5", "198.51.100.1", "203.0.113.7"},         // no proxy of ours: it may say what it will
		{"10.0.0.1:5", "198.51.100.1", "198.51.100.1"},           // ours
		{"10.0.0.1:5", "1.2.3.4, 198.51.100.1", "198.51.100.1"},  // the client wrote the first itself
		{"10.0.0.1:5", "198.51.100.1,10.0.0.2 ", "198.51.100.1"}, // two of ours
		{"10.0.0.1:5", "198.51.100.1:51234, 10.0.0.2:80", "198.51.100.1"},
		{"10.0.0.1:5", "[2001:db8::1]:443", "2001:db8::"},
		{"10.0.0.1:5", "[2001:db8::1]", "2001:db8::"},
		{"10.0.0.1:5", "[2001:db8::1", "10.0.0.1"},
		{"10.0.0.1:5", "", "10.0.0.1"},                            // itself
		{"10.0.0.1:5", "nonsense", "10.0.0.1"},                    // the same
		{"10.0.0.1:5", "198.51.100.1, nonsense", "10.0.0.1"},      // nor what is before nonsense
		{"[::1]:5", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},     // a client's network
		{"[2001:db8:1:2::9]:5", "198.51.100.1", "2001:db8:1:2::"}, // the same one
		{"[::ffff:203.0.113.7]:5", "", "203.0.113.7"},
		{"[fe80::1%eth0]:5", "", "fe80::"},
		{"pipe", "198.51.100.1", "invalid IP"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.remote
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := d.place(r).String(); got != c.want {
			t.Errorf("%s, forwarded for %q: %s, want %s", c.remote, c.forwarded, got, c.want)
		}
	}
}

func TestThoseWhoAreSentAwayComeBackAtARateThatOthersBear(t *testing.T) {
	g := &Gateway{}
	for _, n := range []int64{0, 10, 500, 20_000} {
		g.leaving.Store(n)
		const tries = 2000
		spread := max(leastSpread, time.Duration(n)*time.Second/backASecond)
		early, late := 0, 0
		for range tries {
			switch at := g.comeBack(); {
			case at < soonestBack || at >= soonestBack+spread:
				t.Fatalf("of %d, one comes back after %v", n, at)
			case at < soonestBack+spread/2:
				early++
			default:
				late++
			}
		}
		if early < tries/3 || late < tries/3 {
			t.Errorf("of %d, %d of %d come back in the first half", n, early, tries)
		}
	}
}
