package testenv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// betweenBrokers is the listener over which brokers copy from each other.
const betweenBrokers = "BROKERS"

// KafkaClusterOptions says what cluster StartKafkaCluster starts. The zero value
// is a good one.
type KafkaClusterOptions struct {
	Nodes      int               // each broker and controller in one; default 3
	Properties map[string]string // go over the defaults in server.properties
	Throughput bool              // as in KafkaOptions
	// Listeners are more listeners that clients may use, beside the one of
	// KafkaCluster.Addrs; each sends its clients to addresses of its own. A name
	// is of capital letters and digits.
	Listeners []string
	// Advertise, where set, gives the address that a node tells others in place of
	// a listener's own, such as a proxy's: for each of Listeners, and for the one
	// between brokers. A start that fails for a taken port asks again.
	Advertise func(node int, listener Listener) (addr string, err error)
}

// Listener is one of a node's.
type Listener struct {
	Name           string
	Addr           string // host:port
	BetweenBrokers bool   // only the other nodes use it
}

// KafkaCluster is several Kafka nodes in KRaft mode, each with its own data. Every
// internal topic has a copy on each of three, two of which must have a write.
type KafkaCluster struct {
	nodes []*KafkaServer
}

// StartKafkaCluster starts a cluster and returns once every node serves; it is
// otherwise as StartKafka. Three nodes take some 600 MB.
func StartKafkaCluster(ctx context.Context, opts KafkaClusterOptions) (*KafkaCluster, error) {
	if opts.Nodes == 0 {
		opts.Nodes = 3
	}
	return start(ctx, func(jars string) (*KafkaCluster, error) { return startCluster(ctx, jars, opts) })
}

// Nodes are the cluster's brokers. Different goroutines may each have one.
func (c *KafkaCluster) Nodes() []*KafkaServer { return c.nodes }

// Addrs are the bootstrap addresses, one a node, that no proxy stands before.
func (c *KafkaCluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.Addr()
	}
	return addrs
}

// Stop ends all nodes and removes their data.
func (c *KafkaCluster) Stop() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.Stop())
	}
	return errors.Join(errs...)
}

// startCluster makes one attempt, and leaves nothing behind when it fails.
func startCluster(ctx context.Context, jars string, opts KafkaClusterOptions) (_ *KafkaCluster, err error) {
	sweep()
	c := &KafkaCluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	controllers := make([]string, opts.Nodes)
	for i := range controllers {
		if controllers[i], err = lowPort(ctx); err != nil {
			return nil, err
		}
	}
	id := clusterID()
	var starts errgroup.Group
	for node := range opts.Nodes {
		k := &KafkaServer{}
		if k.dir, err = makeDataDir(); err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, k)
		properties, err := opts.node(ctx, k, node, controllers)
		if err != nil {
			return nil, err
		}
		k.command = javaCommand(k.dir, jars, "320m", opts.Throughput)
		starts.Go(func() error {
			if err := k.format(ctx, jars, id, properties); err != nil {
				return err
			}
			return k.start(ctx)
		})
	}
	if err := starts.Wait(); err != nil {
		return nil, err
	}
	return c, nil
}

// node gives a node its addresses, and makes its configuration.
func (o KafkaClusterOptions) node(ctx context.Context, k *KafkaServer, node int, controllers []string) ([]byte, error) {
	var err error
	if k.addr, err = lowPort(ctx); err != nil {
		return nil, err
	}
	listeners := []string{"PLAINTEXT://" + k.addr}
	advertised := []string{"PLAINTEXT://" + k.addr}
	protocols := []string{"CONTROLLER:PLAINTEXT", "PLAINTEXT:PLAINTEXT"}
	for _, name := range append([]string{betweenBrokers}, o.Listeners...) {
		addr, err := lowPort(ctx)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, name+"://"+addr)
		if o.Advertise != nil {
			if addr, err = o.Advertise(node, Listener{Name: name, Addr: addr, BetweenBrokers: name == betweenBrokers}); err != nil {
				return nil, err
			}
		}
		advertised = append(advertised, name+"://"+addr)
		protocols = append(protocols, name+":PLAINTEXT")
	}
	voters := make([]string, len(controllers))
	for i, addr := range controllers {
		voters[i] = strconv.Itoa(i+1) + "@" + addr
	}
	copies := strconv.Itoa(min(o.Nodes, 3))
	isr := strconv.Itoa(min(o.Nodes, 2))
	over := map[string]string{
		"node.id":                        strconv.Itoa(node + 1),
		"controller.quorum.voters":       strings.Join(voters, ","),
		"listeners":                      strings.Join(append(listeners, "CONTROLLER://"+controllers[node]), ","),
		"advertised.listeners":           strings.Join(advertised, ","),
		"listener.security.protocol.map": strings.Join(protocols, ","),
		"inter.broker.listener.name":     betweenBrokers,
		// Each listener has network threads of its own.
		"num.network.threads":                              "1",
		"min.insync.replicas":                              isr,
		"offsets.topic.replication.factor":                 copies,
		"transaction.state.log.replication.factor":         copies,
		"transaction.state.log.min.isr":                    isr,
		"share.coordinator.state.topic.replication.factor": copies,
		"share.coordinator.state.topic.min.isr":            isr,
		// A copy that falls behind holds every write up until it is given up; with
		// the default of 30 s every such test would wait for that.
		"replica.lag.time.max.ms": "5000",
	}
	maps.Copy(over, o.Properties)
	return serverProperties(k.dir, k.addr, controllers[node], over), nil
}

// lowPort finds an address that nobody listens on, below the ports that the
// system gives to outgoing connections: a node that is down for a while must
// find its own free when it comes back.
func lowPort(ctx context.Context) (string, error) {
	const lowest, highest, tries = 12_000, 32_000, 100
	var lc net.ListenConfig
	var err error
	for range tries {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(highest-lowest))) //nolint:gosec // any will do
		l, failed := lc.Listen(ctx, "tcp", addr)
		if err = failed; err == nil {
			return addr, l.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

// LogFile is where the broker's own log stands, for whoever looks into a failure.
func (k *KafkaServer) LogFile() string { return filepath.Join(k.dir, "server.log") }
