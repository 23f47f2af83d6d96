package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

const (
	// minSessionTimeout lets groups notice a dead member sooner than Kafka would
	// allow (6 s): there is one process, and people restart it.
	minSessionTimeout = time.Second
	// maxMessageBytes is the limit for topics that set none of their own.
	maxMessageBytes = "33554432"
	// offsetsRetention keeps the offsets of idle groups for ten years, in
	// minutes: a checkout that was left alone for a month goes on where it was.
	offsetsRetention = "5256000"
)

// BrokerConfig says what broker to start.
type BrokerConfig struct {
	// Dir holds topics, offsets and groups over restarts; it is made where it is
	// missing. Empty means in memory.
	Dir string
	// Listen is the address that clients dial, host:port; empty is 127.0.0.1
	// and a port chosen by the system.
	Listen string
	// SyncWrites makes every acknowledged write survive a crash of the machine;
	// a kill -9 of the process loses nothing either way.
	SyncWrites bool
	// Log gets one line a start, and the broker's warnings. Nil discards it.
	Log *slog.Logger
}

// Broker is an embedded Kafka of one node. It makes no topic that it was not
// asked to, keeps offsets of groups for ever, and holds no group back for
// late-comers.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	lock    *os.File // nil in memory
	log     *brokerLog

	stop    sync.Once
	stopErr error
}

// StartBroker starts a broker, which serves when this returns. End it with
// Close. A second broker on one directory fails with ErrInUse.
func StartBroker(ctx context.Context, cfg BrokerConfig) (*Broker, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	b := &Broker{log: &brokerLog{log: cfg.Log}}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("penstock"),
		kfake.WithLogger(b.log),
		kfake.GroupMinSessionTimeout(minSessionTimeout),
		kfake.BrokerConfigs(map[string]string{
			"message.max.bytes":          maxMessageBytes,
			"default.replication.factor": "1",
			"offsets.retention.minutes":  offsetsRetention,
		}),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			l, err := (&net.ListenConfig{}).Listen(ctx, network, cfg.Listen)
			if err == nil {
				b.addr = l.Addr().String()
			}
			return l, err
		}),
	}
	if cfg.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("start the embedded broker: make its directory: %w", err)
		}
		var err error
		if b.lock, err = lockDir(cfg.Dir); err != nil {
			return nil, fmt.Errorf("start the embedded broker: %w", err)
		}
		opts = append(opts, kfake.DataDir(filepath.Join(cfg.Dir, dataName)))
	}
	began := time.Now()
	var err error
	if b.cluster, err = kfake.NewCluster(opts...); err != nil {
		return nil, errors.Join(fmt.Errorf("start the embedded broker: %w", err), b.unlock())
	}
	cfg.Log.InfoContext(ctx, "embedded kafka broker is ready",
		slog.String("address", b.addr), slog.String("data", cfg.Dir), slog.Duration("took", time.Since(began)))
	return b, nil
}

// Addr is where the broker listens, host:port.
func (b *Broker) Addr() string { return b.addr }

// Close ends the broker and writes what it holds. Later calls return what the
// first did.
func (b *Broker) Close() error {
	b.stop.Do(func() {
		before := b.log.errors()
		b.cluster.Close()
		if after := b.log.errors(); len(after) > len(before) {
			// Its records are on disk already; this is what speeds the next start.
			b.stopErr = fmt.Errorf("close the embedded broker: %s", after[len(after)-1])
		}
		b.stopErr = errors.Join(b.stopErr, b.unlock())
	})
	return b.stopErr
}

func (b *Broker) unlock() error {
	if b.lock == nil {
		return nil
	}
	return letGo(b.lock)
}

// maxBrokerErrors bounds what is kept of the broker's errors; all are logged.
const maxBrokerErrors = 16

// brokerLog hands the broker's log on, and remembers its errors: Close has no
// other way to learn that it failed.
type brokerLog struct {
	log *slog.Logger

	mu   sync.Mutex
	errs []string // at most maxBrokerErrors
}

// Logf takes a line from the broker.
func (l *brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level != kfake.LogLevelError && level != kfake.LogLevelWarn {
		return // a line a request
	}
	line := fmt.Sprintf(format, args...)
	if level == kfake.LogLevelWarn {
		l.log.WarnContext(context.Background(), "embedded broker warns", slog.String("line", line))
		return
	}
	l.log.ErrorContext(context.Background(), "embedded broker failed", slog.String("line", line))
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) < maxBrokerErrors {
		l.errs = append(l.errs, line)
	}
}

func (l *brokerLog) errors() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.errs
}
