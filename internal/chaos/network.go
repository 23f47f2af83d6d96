package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/penstock-io/penstock/internal/testenv"
)

// network has a proxy on the way of every slot to every broker, and one on the
// way of the brokers to each of them. Kafka advertises the proxies, so nobody
// finds a way around them.
type network struct {
	server *toxiproxy.ApiServer

	mu   sync.Mutex
	all  []*toxiproxy.Proxy
	ways map[string][]*toxiproxy.Proxy // by listener: the proxies of the nodes, in order
}

// betweenBrokers is the key of the proxies that brokers reach each other by.
const betweenBrokers = "brokers"

func newNetwork() *network {
	return &network{
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()),
		ways:   map[string][]*toxiproxy.Proxy{},
	}
}

// advertise puts a proxy before a listener, and gives its address.
func (n *network) advertise(node int, l testenv.Listener) (string, error) {
	name := l.Name
	if l.BetweenBrokers {
		name = betweenBrokers
	}
	p := toxiproxy.NewProxy(n.server, fmt.Sprintf("%s-%d", name, node), "127.0.0.1:0", l.Addr)
	if err := p.Start(); err != nil {
		return "", fmt.Errorf("start a proxy: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, p)
	for len(n.ways[name]) <= node {
		n.ways[name] = append(n.ways[name], nil)
	}
	n.ways[name][node] = p // in place of that of a start that failed
	return p.Listen, nil
}

// addrs are the bootstrap addresses for a slot.
func (n *network) addrs(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	addrs := make([]string, len(n.ways[name]))
	for i, p := range n.ways[name] {
		addrs[i] = p.Listen
	}
	return strings.Join(addrs, ",")
}

// close stops all proxies.
func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.all {
		p.Stop()
	}
}

// The harms that can be done to a way, each in both directions.
const (
	// silent lets nothing through, and nobody is told.
	silent = `{"name":"%[1]s","type":"timeout","stream":"%[1]s","attributes":{"timeout":0}}`
	// reset breaks every connection off as soon as it is used.
	reset = `{"name":"%[1]s","type":"reset_peer","stream":"%[1]s","attributes":{"timeout":0}}`
	// slow holds everything up, each piece for another time.
	slow = `{"name":"%[1]s","type":"latency","stream":"%[1]s","attributes":{"latency":300,"jitter":200}}`
	// thin lets 32 KB a second through.
	thin = `{"name":"%[1]s","type":"bandwidth","stream":"%[1]s","attributes":{"rate":32}}`
)

// harm does harm to a way, and returns what ends it.
func (n *network) harm(name string, node int, harm string) (heal func(context.Context) error, err error) {
	n.mu.Lock()
	p := n.ways[name][node]
	n.mu.Unlock()
	var done []string
	for _, direction := range []string{"upstream", "downstream"} {
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(harm, direction))); err != nil {
			return nil, fmt.Errorf("harm the way of %s to broker %d: %w", name, node, err)
		}
		done = append(done, direction)
	}
	return func(ctx context.Context) error {
		for _, direction := range done {
			if err := p.Toxics.RemoveToxic(ctx, direction); err != nil {
				return fmt.Errorf("heal the way of %s to broker %d: %w", name, node, err)
			}
		}
		return nil
	}, nil
}
