//go:build unix

package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func startBroker(t *testing.T, cfg BrokerConfig) *Broker {
	t.Helper()
	b, err := StartBroker(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// fill writes what survives can see: a topic, records with times of their own,
// an offset of a group with metadata.
func fill(t *testing.T, addr string) (topicID string) {
	t.Helper()
	c := client(t, addr)
	adm := kadm.NewClient(c)
	made, err := adm.CreateTopic(t.Context(), 3, 1, map[string]*string{"retention.ms": new("-1")}, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		r := &kgo.Record{
			Topic: "tokens", Partition: int32(i % 3), Key: []byte("k"), Value: fmt.Appendf(nil, "v%d", i),
			Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)),
		}
		if err := c.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var os kadm.Offsets
	os.Add(kadm.Offset{Topic: "tokens", Partition: 1, At: 17, LeaderEpoch: 0, Metadata: "epochs 812"})
	committed, err := adm.CommitOffsets(t.Context(), "processors", os)
	if err = errors.Join(err, committed.Error()); err != nil {
		t.Fatal(err)
	}
	return made.ID.String()
}

type found struct {
	TopicID, Retention, Metadata string
	Committed, AtTime            int64
	Values                       []string
}

func look(t *testing.T, addr string) found {
	t.Helper()
	var f found
	c := client(t, addr, kgo.ConsumeTopics("tokens"))
	adm := kadm.NewClient(c)
	topics, err := adm.ListTopics(t.Context(), "tokens")
	if err != nil {
		t.Fatal(err)
	}
	f.TopicID = topics["tokens"].ID.String()
	configs, err := adm.DescribeTopicConfigs(t.Context(), "tokens")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == "retention.ms" {
			f.Retention = c.MaybeValue()
		}
	}
	offsets, err := adm.FetchOffsets(t.Context(), "processors")
	if err != nil {
		t.Fatal(err)
	}
	o := offsets["tokens"][1]
	f.Committed, f.Metadata = o.At, o.Metadata
	at, err := adm.ListOffsetsAfterMilli(t.Context(), 1_700_000_000_050, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	f.AtTime = at["tokens"][0].Offset
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(f.Values) < 100 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d records: %v", len(f.Values), err)
		}
		fetches.EachRecord(func(r *kgo.Record) { f.Values = append(f.Values, string(r.Value)) })
	}
	slices.Sort(f.Values)
	return f
}

func whole(topicID string) found {
	f := found{TopicID: topicID, Retention: "-1", Metadata: "epochs 812", Committed: 17, AtTime: 17}
	for i := range 100 {
		f.Values = append(f.Values, fmt.Sprintf("v%d", i))
	}
	slices.Sort(f.Values)
	return f
}

func TestBrokerKeepsEverythingOverCloseAndStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startBroker(t, BrokerConfig{Dir: dir})
	id := fill(t, b.Addr())
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if diff := cmp.Diff(whole(id), look(t, startBroker(t, BrokerConfig{Dir: dir}).Addr())); diff != "" {
		t.Error(diff)
	}
}

func TestBrokerKeepsEverythingOverAKill(t *testing.T) {
	t.Parallel()
	for _, sync := range []string{"", "sync"} {
		t.Run("writes "+sync, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			holder, addr := startChild(t, "broker", childVariable+"_DIR="+dir, childVariable+"_SYNC="+sync)
			id := fill(t, addr)
			kill9(t, holder)
			if diff := cmp.Diff(whole(id), look(t, startBroker(t, BrokerConfig{Dir: dir}).Addr())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBrokerRefusesADirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startBroker(t, BrokerConfig{Dir: dir})
	_, err := StartBroker(t.Context(), BrokerConfig{Dir: dir})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v, want ErrInUse with the holder's pid", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	startBroker(t, BrokerConfig{Dir: dir})
}

func TestBrokerRefusesWhatItCannotHave(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a test's
	dir := t.TempDir()
	if _, err := StartBroker(t.Context(), BrokerConfig{Dir: dir, Listen: taken.Addr().String()}); err == nil {
		t.Error("an address in use was taken")
	}
	startBroker(t, BrokerConfig{Dir: dir}) // the failure let go of the lock
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := StartBroker(t.Context(), BrokerConfig{Dir: filepath.Join(file, "x")}); err == nil {
		t.Error("a directory below a file was taken")
	}
}

func TestBrokerMakesNoTopicUnasked(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{})
	c := client(t, b.Addr(), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
	err := c.ProduceSync(t.Context(), &kgo.Record{Topic: "none", Value: []byte("x")}).FirstErr()
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("got %v", err)
	}
}

func TestBrokerTakesLargeRecordsAndShortSessions(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{})
	c := client(t, b.Addr(), kgo.ProducerBatchMaxBytes(32<<20))
	if _, err := kadm.NewClient(c).CreateTopic(t.Context(), 1, 1, nil, "big"); err != nil {
		t.Fatal(err)
	}
	value := bytes.Repeat([]byte("x"), 20<<20)
	if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: "big", Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	member := client(t, b.Addr(), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("big"),
		kgo.SessionTimeout(time.Second), kgo.HeartbeatInterval(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for {
		// A member that a busy machine keeps from its heartbeats for a second is
		// put out, says so, and joins again.
		fetches := member.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("no record: %v", fetches.Err())
		}
		if got := fetches.Records(); len(got) > 0 {
			t.Logf("a group's first record after %v", time.Since(began))
			if len(got) != 1 || len(got[0].Value) != len(value) {
				t.Errorf("got %d records", len(got))
			}
			return
		}
	}
}

func TestBrokerCloseTellsWhatTheBrokerCouldNotWrite(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := &brokerLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	l.Logf(kfake.LogLevelInfo, "a request")
	l.Logf(kfake.LogLevelWarn, "careful with %d", 7)
	for i := range 2 * maxBrokerErrors {
		l.Logf(kfake.LogLevelError, "broken %d", i)
	}
	if got := l.errors(); len(got) != maxBrokerErrors || got[0] != "broken 0" {
		t.Errorf("got %v", got)
	}
	if s := out.String(); strings.Contains(s, "a request") || !strings.Contains(s, "careful with 7") {
		t.Errorf("logged %s", s)
	}
}

func BenchmarkBrokerEndToEnd(b *testing.B) {
	for _, mode := range []string{"memory", "disk", "sync"} {
		b.Run(mode, func(b *testing.B) { benchmarkBroker(b, mode) })
	}
}

func benchmarkBroker(b *testing.B, mode string) {
	b.Helper()
	cfg := BrokerConfig{SyncWrites: mode == "sync"}
	if mode != "memory" {
		cfg.Dir = b.TempDir()
	}
	broker, err := StartBroker(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close() //nolint:errcheck // a benchmark's
	c, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.ProducerLinger(0), kgo.ConsumeTopics("t"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if _, err := kadm.NewClient(c).CreateTopic(b.Context(), 1, 1, nil, "t"); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		c.Produce(b.Context(), &kgo.Record{Topic: "t", Value: []byte("a token")}, nil)
		for c.PollFetches(b.Context()).NumRecords() == 0 {
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
