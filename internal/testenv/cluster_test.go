package testenv

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestThreeBrokersOutliveTheLossOfOne(t *testing.T) {
	var mu sync.Mutex
	advertised := map[string]int{}
	c, err := StartKafkaCluster(t.Context(), KafkaClusterOptions{
		Listeners: []string{"FRONT"},
		Advertise: func(node int, l Listener) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			advertised[l.Addr] = node
			if l.BetweenBrokers != (l.Name != "FRONT") {
				t.Errorf("%+v", l)
			}
			return l.Addr, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if len(advertised) != 6 || len(c.Addrs()) != 3 {
		t.Errorf("addresses of %v, and %v", advertised, c.Addrs())
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.RecordDeliveryTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(t.Context(), 3, 3, nil, "survivor"); err != nil {
		t.Fatal(err)
	}
	node := c.Nodes()[1]
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	for p := range int32(3) {
		rec := &kgo.Record{Topic: "survivor", Partition: p, Value: []byte("without " + node.Addr())}
		if err := client.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatalf("with %s killed: %v", node.Addr(), err)
		}
	}
	if err := node.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitCopies(t, admin, "survivor", 3)
}

// awaitCopies waits until every partition has that many copies in sync.
func awaitCopies(t *testing.T, admin *kadm.Client, topic string, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		details, err := admin.ListTopics(ctx, topic)
		behind := err != nil || len(details[topic].Partitions) == 0
		for _, p := range details[topic].Partitions {
			behind = behind || len(p.ISR) < want
		}
		if !behind {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the copies of %s do not catch up: %v %v", topic, details, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestAClusterThatCannotStartSaysWhyAndLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	refused := errors.New("no proxy")
	_, err := StartKafkaCluster(t.Context(), KafkaClusterOptions{Advertise: func(int, Listener) (string, error) { return "", refused }})
	if !errors.Is(err, refused) {
		t.Errorf("got %v, want the advertiser's error", err)
	}
	_, err = StartKafkaCluster(t.Context(), KafkaClusterOptions{Nodes: 1, Properties: map[string]string{"num.io.threads": "none"}})
	if err == nil || !strings.Contains(err.Error(), "num.io.threads") {
		t.Errorf("got %v, want an error that names the wrong property", err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAPortForANodeIsNoneThatTheSystemGivesAway(t *testing.T) {
	var seen []string
	for range 20 {
		addr, err := lowPort(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(addr) != len("127.0.0.1:12345") || addr >= "127.0.0.1:32000" || slices.Contains(seen, addr) {
			t.Errorf("%s after %v", addr, seen)
		}
		seen = append(seen, addr)
	}
}
