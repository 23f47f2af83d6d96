//go:build browser

package web

import (
	"net/url"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// network lies between the browser and a server, and can be cut.
type network struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
	url   string
}

func newNetwork(t *testing.T, base string) *network {
	t.Helper()
	to, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	quiet := zerolog.Nop()
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), quiet), "page", "127.0.0.1:0", to.Host)
	n := &network{t: t, proxy: proxy}
	n.mend()
	n.url = "http://" + proxy.Listen
	t.Cleanup(proxy.Stop)
	return n
}

// cut ends all connections and lets no new one come about.
func (n *network) cut() { n.proxy.Stop() }

// mend lets connections come about again, at the same address.
func (n *network) mend() {
	n.t.Helper()
	if err := n.proxy.Start(); err != nil {
		n.t.Fatal(err)
	}
}
