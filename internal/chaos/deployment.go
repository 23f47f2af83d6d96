package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

// deployment is all that a run starts: three brokers behind proxies, a model
// server, and the program's processes.
type deployment struct {
	cfg     *Config
	net     *network
	kafka   *testenv.KafkaCluster
	model   *modelServer
	cluster *kafka.Cluster // for the run's own reading, past the proxies
	slots   []*slot
	names   topics.Names
	topics  []string // all of them
}

// roleSets are the processes of a run: name and roles.
func roleSets(processors int) [][2]string {
	var all [][2]string
	for i := range processors {
		all = append(all, [2]string{"P" + strconv.Itoa(i+1), "processors"})
	}
	return append(all,
		[2]string{"G1", "ingest,gateway"}, [2]string{"G2", "ingest,gateway"},
		[2]string{"Q1", "projections"}, [2]string{"Q2", "projections"})
}

// deploy starts everything, and returns when all processes are ready.
func deploy(ctx context.Context, cfg *Config) (_ *deployment, err error) {
	d := &deployment{cfg: cfg, net: newNetwork(), names: topics.Names{Prefix: topics.DefaultPrefix}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	sets := roleSets(cfg.Processors)
	var listeners []string
	for _, s := range sets {
		listeners = append(listeners, s[0])
	}
	if d.kafka, err = testenv.StartKafkaCluster(ctx, testenv.KafkaClusterOptions{Listeners: listeners, Advertise: d.net.advertise}); err != nil {
		return nil, err //nolint:wrapcheck // it says what it could not do
	}
	if d.model, err = startModel(ctx); err != nil {
		return nil, err
	}
	if d.cluster, err = kafka.Open(ctx, kafka.Config{Brokers: d.kafka.Addrs(), ConnectTimeout: time.Minute}); err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	for _, t := range topics.Catalogue(topics.Options{Prefix: d.names.Prefix, Partitions: cfg.Partitions}) {
		d.topics = append(d.topics, t.Name)
	}
	base := []string{
		"PENSTOCK_KAFKA=" + strings.Join(d.kafka.Addrs(), ","), "PENSTOCK_POSTGRES=" + cfg.Postgres,
		"PENSTOCK_PARTITIONS=" + strconv.Itoa(int(cfg.Partitions)), "PENSTOCK_REPLICATION=3", "PENSTOCK_SIM=true",
		"PENSTOCK_PROVIDERS=counted=http://" + d.model.addr + "/v1", "PENSTOCK_GRACE=10s", "PENSTOCK_LOG_FORMAT=text",
	}
	base = append(base, cfg.Env...)
	for _, argv := range [][]string{{"topic", "apply"}, {"migrate"}} {
		cmd := exec.CommandContext(ctx, cfg.Program, argv...) //nolint:gosec // to run the program is what this is for
		cmd.Env = append(os.Environ(), base...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("penstock %s: %w\n%s", strings.Join(argv, " "), err, out)
		}
	}
	if err := d.healthy(ctx); err != nil {
		return nil, err
	}
	for _, set := range sets {
		if err := d.open(ctx, set[0], set[1], base); err != nil {
			return nil, err
		}
	}
	return d, d.allReady(ctx)
}

// open makes a slot and starts its first process.
func (d *deployment) open(ctx context.Context, name, roles string, env []string) error {
	addr, err := d.freeAddr(ctx)
	if err != nil {
		return err
	}
	s := &slot{
		name: name, roles: roles, addr: addr, argv: []string{d.cfg.Program, "run", "--roles", roles},
		log: logFile(d.cfg.Dir, name), pids: map[int]bool{},
	}
	// Its way to Kafka goes through its proxies; the model server knows it by its key.
	s.env = append(append([]string{}, env...), "PENSTOCK_KAFKA="+d.net.addrs(name), "PENSTOCK_LISTEN="+addr, "COUNTED_API_KEY="+name)
	d.slots = append(d.slots, s)
	return s.start(ctx)
}

// freeAddr finds an address for a slot that no other slot has, below the ports
// that the system gives to outgoing connections: it must be free whenever the
// slot is started again.
func (d *deployment) freeAddr(ctx context.Context) (string, error) {
	const lowest, most = 10_000, 2_000
	var lc net.ListenConfig
	var err error
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(most))) //nolint:gosec // any will do
		if slices.ContainsFunc(d.slots, func(s *slot) bool { return s.addr == addr }) {
			continue // it is not listened on yet
		}
		l, failed := lc.Listen(ctx, "tcp", addr)
		if err = failed; err == nil {
			return addr, l.Close() //nolint:wrapcheck // it was just opened
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

func (d *deployment) allReady(ctx context.Context) error {
	var all errgroup.Group
	for _, s := range d.slots {
		all.Go(func() error { return s.ready(ctx) })
	}
	return all.Wait() //nolint:wrapcheck // a slot's own
}

// urls are the gateways' addresses.
func (d *deployment) urls() []string {
	var all []string
	for _, s := range d.slots {
		if strings.Contains(s.roles, "gateway") {
			all = append(all, s.url())
		}
	}
	return all
}

// holdWay keeps other faults off a slot whose way to Kafka is harmed.
func (d *deployment) holdWay(name string) (release func()) {
	for _, s := range d.slots {
		if s.name == name {
			s.fault.Lock()
			return s.fault.Unlock
		}
	}
	return func() {} // the way between the brokers, which has a keeper of its own
}

// slotOf is the slot whose process made a claim; "" for an owner that is none's.
// An owner's name is the host's, its process's id and a random end.
func (d *deployment) slotOf(owner string) string {
	parts := strings.Split(owner, "-")
	if len(parts) < 3 {
		return ""
	}
	pid, err := strconv.Atoi(parts[len(parts)-2])
	if err != nil {
		return ""
	}
	for _, s := range d.slots {
		if s.owns(pid) {
			return s.name
		}
	}
	return ""
}

// stop ends all processes of the program in order.
func (d *deployment) stop(ctx context.Context) error {
	var all errgroup.Group
	for _, s := range d.slots {
		all.Go(func() error { return s.stop(ctx) })
	}
	return all.Wait() //nolint:wrapcheck // a slot's own
}

// close ends whatever was started.
func (d *deployment) close() error {
	var errs []error
	for _, s := range d.slots {
		errs = append(errs, s.kill())
	}
	if d.cluster != nil {
		d.cluster.Close()
	}
	if d.model != nil {
		d.model.close()
	}
	d.net.close()
	if d.kafka != nil {
		errs = append(errs, d.kafka.Stop())
	}
	return errors.Join(errs...)
}
