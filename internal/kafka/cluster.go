package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// defaultConnectTimeout bounds Open where its context does not.
	defaultConnectTimeout = 10 * time.Second
	// dialTimeout bounds one connection attempt.
	dialTimeout = 5 * time.Second
	// requestTimeout is what a broker gets to answer, beyond the time that a
	// request asks it to wait.
	requestTimeout = 10 * time.Second
	// longPolls bounds the Fetch calls that wait for records at the same time;
	// each has a client, since a broker answers a connection's requests in turn.
	longPolls = 4
)

// Config says how to reach a cluster.
type Config struct {
	Brokers        []string              // bootstrap addresses, host:port; at least one
	ClientID       string                // in the brokers' logs and quotas; default "penstock"
	Log            *slog.Logger          // default: nowhere
	Metrics        prometheus.Registerer // may be nil
	ConnectTimeout time.Duration         // of Open; default 10 s
	Security       Security              // default: plain TCP, without a name
	// Dial opens a connection to a broker, below TLS; default is TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// String is "topic/partition".
func (tp TopicPartition) String() string { return fmt.Sprintf("%s/%d", tp.Topic, tp.Partition) }

// Cluster is a connection to a Kafka cluster. Its methods may be called from
// many goroutines.
type Cluster struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	client   *kgo.Client // administration, metadata and fetches that do not wait
	admin    *kadm.Client
	identity []kgo.Opt        // of every client
	unpack   kgo.Decompressor // of whatever is fetched, whichever client does
	polls    chan *kgo.Client // clients of fetches that wait; nil ones are yet to be made
	share    share            // of the tails that read partitions together

	mu     sync.Mutex
	topics map[string]*topicMeta
	// corruptions are the batches that were logged last, one a partition.
	corruptions map[TopicPartition]corruption
}

// Open connects to a cluster, and returns once a broker has answered. It takes
// ConnectTimeout at most.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("no Kafka broker is configured: give at least one host:port")
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "penstock"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	identity, dial, err := cfg.Security.apply(cfg.Dial)
	if err != nil {
		return nil, err
	}
	cfg.Dial = dial
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, identity: identity, log: cfg.Log, metrics: m, topics: map[string]*topicMeta{}, corruptions: map[TopicPartition]corruption{}, polls: make(chan *kgo.Client, longPolls)}
	for range longPolls {
		c.polls <- nil
	}
	if c.client, err = c.newClient(); err != nil {
		return nil, err
	}
	c.admin = kadm.NewClient(c.client)
	var ok bool
	if c.unpack, ok = c.client.OptValue(kgo.WithDecompressor).(kgo.Decompressor); !ok {
		c.client.Close()
		return nil, errors.New("the Kafka client has no decompressor: it is not the version that this was built for")
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	if err := c.Ping(ctx); err != nil {
		c.client.Close()
		return nil, fmt.Errorf("connect to %s: %w", strings.Join(cfg.Brokers, ", "), err)
	}
	return c, nil
}

// newClient makes a client with the options that all have in common.
func (c *Cluster) newClient(opts ...kgo.Opt) (*kgo.Client, error) {
	common := []kgo.Opt{
		kgo.SeedBrokers(c.cfg.Brokers...),
		kgo.ClientID(c.cfg.ClientID),
		kgo.WithLogger(clientLog{c.log}),
		kgo.Dialer(c.cfg.Dial),
		kgo.RequestTimeoutOverhead(requestTimeout),
		// A new leader should be found in tenths of a second, not in 5 s.
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(backoff),
		kgo.MaxDecompressBatchBytes(maxUnpacked),
		// The broker's telemetry subscription is a request nobody asked for.
		kgo.DisableClientMetrics(),
	}
	cl, err := kgo.NewClient(slices.Concat(common, c.identity, opts)...)
	if err != nil {
		return nil, fmt.Errorf("configure a Kafka client: %w", err)
	}
	return cl, nil
}

// backoff doubles from 20 ms to 1 s: a broker that comes back is found quickly,
// one that stays away is asked once a second.
func backoff(fails int) time.Duration {
	return min(20*time.Millisecond<<min(max(fails-1, 0), 6), time.Second)
}

// Ping asks whether any broker answers, until ctx ends; ErrUnavailable if none
// does, ErrDenied at once if one refuses who asks.
func (c *Cluster) Ping(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // no topic: brokers alone
	for fails := 1; ; fails++ {
		_, err := c.client.Request(ctx, req)
		if err == nil {
			return nil
		}
		if denied(err) {
			return fmt.Errorf("ask for the cluster's brokers: %w: %w", ErrDenied, err)
		}
		if ctx.Err() != nil || !wait(ctx, backoff(fails)) {
			return fmt.Errorf("ask for the cluster's brokers: %w: %w", ErrUnavailable, err)
		}
	}
}

// Close ends the shared clients. Close producers, groups and tails first.
func (c *Cluster) Close() {
	c.client.Close()
	for range longPolls {
		if cl := <-c.polls; cl != nil {
			cl.Close()
		}
	}
}

// wait returns false where ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// clientLog passes on what the client says: its warnings and errors as they
// are, the rest as detail.
type clientLog struct{ log *slog.Logger }

// Level implements kgo.Logger.
func (l clientLog) Level() kgo.LogLevel {
	switch {
	case l.log.Enabled(context.Background(), slog.LevelDebug):
		return kgo.LogLevelInfo
	case l.log.Enabled(context.Background(), slog.LevelWarn):
		return kgo.LogLevelWarn
	default:
		return kgo.LogLevelError
	}
}

// Log implements kgo.Logger.
func (l clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	// What the client calls an error it recovers from by itself, as from the end
	// of a member's session; what does fail is returned, and logged by its caller.
	to := slog.LevelDebug
	if level == kgo.LogLevelError || level == kgo.LogLevelWarn {
		to = slog.LevelWarn
	}
	l.log.Log(context.Background(), to, "kafka client", append([]any{"detail", msg}, keyvals...)...)
}
