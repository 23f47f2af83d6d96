package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(m)) }

// ground is a broker that the suite runs on.
type ground struct {
	*testing.T
	real   bool // Apache Kafka, not the embedded broker
	addr   string
	prefix string
	ctx    context.Context
	link   *link
	c      *kafka.Cluster
	polled []kafka.Chunk // that next has not given yet
}

// onBoth runs a test of the suite on the embedded broker and on Apache Kafka.
//
// Where the embedded broker is not as Apache Kafka is:
//   - it checks no value of a topic's configuration;
//   - it does not bound commit metadata at 4,096 bytes: Group.Commit does;
//   - it answers for the commits of an unknown group with GROUP_ID_NOT_FOUND,
//     Apache with none: Committed makes them the same;
//   - it has written a transaction's marker when the transaction's end is
//     answered, Apache a moment later;
//   - it deletes and makes topics at once, Apache a moment later.
//
// A test that depends on the first says so by g.real; the others wait.
func onBoth(t *testing.T, test func(g *ground)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(newGround(t, startEmbedded(t), false))
	})
	t.Run("apache", func(t *testing.T) {
		t.Parallel()
		test(newGround(t, testenv.Kafka(t), true))
	})
}

func startEmbedded(tb testing.TB) string {
	tb.Helper()
	b, err := devstack.StartBroker(tb.Context(), devstack.BrokerConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Errorf("close the embedded broker: %v", err)
		}
	})
	return b.Addr()
}

func newGround(t *testing.T, addr string, isReal bool) *ground {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	g := &ground{T: t, real: isReal, addr: addr, prefix: testenv.Prefix(t), ctx: ctx, link: newLink()}
	g.c = g.open(g.link)
	return g
}

func (g *ground) open(l *link) *kafka.Cluster {
	g.Helper()
	c, err := kafka.Open(g.ctx, kafka.Config{Brokers: []string{g.addr}, Dial: l.dial})
	g.no(err)
	g.Cleanup(c.Close)
	return c
}

// no ends the test on an error.
func (g *ground) no(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// is ends the test where an error is not the wanted one.
func (g *ground) is(err, want error) {
	g.Helper()
	if !errors.Is(err, want) {
		g.Fatalf("error is %v, want one of %q", err, want)
	}
}

// topic makes a topic of the test's own.
func (g *ground) topic(name string, partitions int32, configs ...string) string {
	g.Helper()
	t := topics.Topic{Name: g.prefix + name, Partitions: partitions, Replication: 1, Configs: map[string]string{}}
	for i := 0; i+1 < len(configs); i += 2 {
		t.Configs[configs[i]] = configs[i+1]
	}
	g.no(g.c.Apply(g.ctx, []topics.Change{{Kind: topics.Create, Topic: t}}))
	return t.Name
}

func (g *ground) producer(cfg kafka.ProducerConfig) *kafka.Producer {
	g.Helper()
	p, err := g.c.NewProducer(cfg)
	g.no(err)
	g.Cleanup(p.Close)
	return p
}

func (g *ground) tail(cfg kafka.TailConfig) *kafka.Tail {
	g.Helper()
	t, err := g.c.NewTail(cfg)
	g.no(err)
	g.Cleanup(t.Close)
	return t
}

func (g *ground) group(cfg kafka.GroupConfig) *kafka.Group {
	g.Helper()
	gr, err := g.c.NewGroup(cfg)
	g.no(err)
	g.Cleanup(gr.Close)
	return gr
}

// fill appends records "0", "1", … to a partition.
func (g *ground) fill(topic string, partition int32, n int) {
	g.Helper()
	p, err := g.c.NewProducer(kafka.ProducerConfig{})
	g.no(err)
	defer p.Close()
	recs := make([]event.Record, n)
	for i := range recs {
		recs[i] = record(topic, partition, strconv.Itoa(i))
	}
	_, err = p.Append(g.ctx, recs...)
	g.no(err)
}

func record(topic string, partition int32, value string) event.Record {
	return event.Record{Topic: topic, Partition: partition, Value: []byte(value)}
}

// values reads a partition from its start to its end.
func (g *ground) values(tp kafka.TopicPartition) []string {
	g.Helper()
	end, err := g.c.Offset(g.ctx, tp, kafka.End())
	g.no(err)
	var got []string
	for recs, err := range g.c.Scan(g.ctx, tp, 0, end) {
		g.no(err)
		for _, r := range recs {
			got = append(got, string(r.Value))
		}
	}
	return got
}

// until polls a group until a test has what it wants.
func (g *ground) until(gr *kafka.Group, want string, enough func(kafka.Poll) bool) {
	g.Helper()
	for {
		p, err := gr.Poll(g.ctx)
		if err != nil {
			g.Fatalf("waiting for %s: %v", want, err)
		}
		if enough(p) {
			return
		}
	}
}

// eventually asks again and again until a test has what it wants.
func (g *ground) eventually(want string, enough func() bool) {
	g.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !enough() {
		select {
		case <-tick.C:
		case <-g.ctx.Done():
			g.Fatalf("it never came to this: %s", want)
		}
	}
}

// link is the wire between a client and its brokers. Frozen, what brokers answer
// does not arrive; cut, no connection can be made and those that are there end.
type link struct {
	mu     sync.Mutex
	thawed chan struct{} // closed while the link is not frozen
	cutOff bool
	damage int // how often damaged is still to be changed on its way here
	conns  map[*wire]struct{}
}

func newLink() *link {
	l := &link{thawed: make(chan struct{}), conns: map[*wire]struct{}{}}
	close(l.thawed)
	return l
}

func (l *link) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.thawed = make(chan struct{})
}

// damaged is what a link changes where it is told to.
const damaged = "a value that is damaged"

func (l *link) hurt(times int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.damage = times
}

func (l *link) thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.thawed:
	default:
		close(l.thawed)
	}
}

func (l *link) cut(off bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutOff = off
	for w := range l.conns {
		if off {
			_ = w.Conn.Close()
		}
	}
}

func (l *link) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	l.mu.Lock()
	off := l.cutOff
	l.mu.Unlock()
	if off {
		return nil, fmt.Errorf("dial %s: the test cut the link", addr)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: conn, link: l, closed: make(chan struct{})}
	l.mu.Lock()
	l.conns[w] = struct{}{}
	l.mu.Unlock()
	return w, nil
}

type wire struct {
	net.Conn
	link   *link
	once   sync.Once
	closed chan struct{}
	met    int // bytes of damaged that have come
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.link.mu.Lock()
	thawed := w.link.thawed
	for i := range b[:n] {
		if b[i] != damaged[w.met] {
			w.met = 0
		}
		if b[i] == damaged[w.met] {
			w.met++
		}
		if w.met == len(damaged) {
			if w.met = 0; w.link.damage > 0 {
				w.link.damage--
				b[i] = '!'
			}
		}
	}
	w.link.mu.Unlock()
	select {
	case <-thawed:
		return n, err
	case <-w.closed:
		return 0, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	w.link.mu.Lock()
	delete(w.link.conns, w)
	w.link.mu.Unlock()
	return w.Conn.Close()
}
