package gateway

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/fault"
)

// door lets connections that last in: WebSockets and SSE streams of events alike,
// so many of the process, of each tenant and of each address. Answers over the
// OpenAI API pass it by: each is a job, and the intake bounds those.
type door struct {
	most, perTenant, perAddress int // 0, of the last two: no bound
	proxies                     []netip.Prefix
	refused                     *prometheus.CounterVec // by whose bound it was

	mu      sync.Mutex
	all     int
	tenants map[string]int
	places  map[netip.Addr]int
}

// Whose bound it was, as a metric has it.
const (
	ofProcess = "process"
	ofTenant  = "tenant"
	ofAddress = "address"
)

// fullPatience is when one who was refused for a bound may try again, as it is told.
const fullPatience = 5 * time.Second

func newDoor(cfg *Config, m *metrics) *door {
	return &door{
		most: cfg.MaxConnections, perTenant: cfg.MaxPerTenant, perAddress: cfg.MaxPerAddress, proxies: cfg.Proxies,
		refused: m.refused, tenants: map[string]int{}, places: map[netip.Addr]int{},
	}
}

// pass is one connection that was let in. The zero pass is of none.
type pass struct {
	door   *door
	tenant string
	place  netip.Addr
}

// enter lets a connection in. Each success needs a leave of the pass.
func (d *door) enter(r *http.Request) (pass, error) {
	p := pass{d, api.Tenant(r.Context()), d.place(r)}
	d.mu.Lock()
	defer d.mu.Unlock()
	var f *fault.Error
	switch {
	case d.all >= d.most:
		d.refused.WithLabelValues(ofProcess).Inc()
		f = fault.New(fault.Unavailable, "this server has %d connections, as many as it takes: try again, or another server", d.most)
	case d.perTenant > 0 && d.tenants[p.tenant] >= d.perTenant:
		d.refused.WithLabelValues(ofTenant).Inc()
		f = fault.New(fault.Overloaded, "you have %d connections to this server, as many as a tenant may have: close one, or watch several jobs over one WebSocket", d.perTenant)
	case d.perAddress > 0 && d.places[p.place] >= d.perAddress:
		d.refused.WithLabelValues(ofAddress).Inc()
		f = fault.New(fault.Overloaded, "%s has %d connections to this server, as many as an address may have: close one, or watch several jobs over one WebSocket", p.place, d.perAddress)
	default:
		d.all++
		d.tenants[p.tenant]++
		d.places[p.place]++
		return p, nil
	}
	f.RetryAfter = fullPatience
	return pass{}, f
}

// leave takes an enter back. Of the zero pass it does nothing.
func (p pass) leave() {
	d := p.door
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	less(d.tenants, p.tenant)
	less(d.places, p.place)
}

// less counts one down, and forgets a key of which none is left.
func less[K comparable](counts map[K]int, k K) {
	if counts[k]--; counts[k] <= 0 {
		delete(counts, k)
	}
}

// count is how many are in.
func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all
}

const (
	// soonestBack is when the first of those may come back who were sent away.
	soonestBack = 100 * time.Millisecond
	// leastSpread is within how long few of them do.
	leastSpread = 400 * time.Millisecond
	// backASecond bounds how many of one server's clients come back a second.
	backASecond = 500
)

// comeBack is when a client may come back that is sent away. Each has a time of its
// own, so that they come at a rate that other servers bear, however many they are.
func (g *Gateway) comeBack() time.Duration {
	spread := time.Duration(g.leaving.Load()) * time.Second / backASecond
	return soonestBack + rand.N(max(spread, leastSpread)) //nolint:gosec // nobody gains by guessing it
}

// place is where a request comes from: the connection's address, or the one that
// a proxy of ours says. Of IPv6 it is the network of 64 bits, which is what one
// client has.
func (d *door) place(r *http.Request) netip.Addr {
	const network = 64 // bits
	addr := d.client(r)
	if addr.Is6() {
		if p, err := addr.Prefix(network); err == nil {
			return p.Addr()
		}
	}
	return addr
}

// client goes along X-Forwarded-For from its end, where the nearest proxy wrote,
// to the first that is no proxy of ours: what stands before it anybody may have
// written.
func (d *door) client(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // a test's request: all of them are of one place
	}
	addr := at.Addr().Unmap().WithZone("")
	if !d.ours(addr) {
		return addr
	}
	said := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(said) {
		next, ok := forwarded(strings.TrimSpace(text))
		if !ok {
			break
		}
		if addr = next.Unmap().WithZone(""); !d.ours(addr) {
			break
		}
	}
	return addr
}

// forwarded reads an address as proxies write it: some with the port, and then or
// always in brackets where it is of IPv6.
func forwarded(text string) (netip.Addr, bool) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr(), true
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(text)
	return addr, err == nil
}

// ours tells whether an address is a proxy's that is trusted.
func (d *door) ours(a netip.Addr) bool {
	return slices.ContainsFunc(d.proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}
