package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func adminClient(t *testing.T, addr string) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

func ownKafka(t *testing.T) *KafkaServer {
	t.Helper()
	k, err := StartKafka(t.Context(), KafkaOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Stop(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func requireTopic(t *testing.T, admin *kadm.Client, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	topics, err := admin.ListTopics(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	if !topics.Has(topic) {
		t.Fatalf("topic %s is not there: %v", topic, topics)
	}
}

func TestTopicSurvivesPauseKillAndRestart(t *testing.T) {
	k := ownKafka(t)
	admin := adminClient(t, k.Addr())
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "survivor"); err != nil {
		t.Fatal(err)
	}

	if err := k.Pause(); err != nil {
		t.Fatal(err)
	}
	frozen, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := admin.ListTopics(frozen, "survivor"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a paused broker answered: %v", err)
	}
	if err := k.Resume(); err != nil {
		t.Fatal(err)
	}
	requireTopic(t, admin, "survivor")

	if err := k.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := k.Pause(); err == nil {
		t.Error("a killed broker could be paused")
	}
	if err := k.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireTopic(t, admin, "survivor")

	// And with the broker still running, so that it has to end first.
	if err := k.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireTopic(t, admin, "survivor")
}

func TestBrokerThatCannotStartSaysWhy(t *testing.T) {
	_, err := StartKafka(t.Context(), KafkaOptions{Properties: map[string]string{"num.io.threads": "none"}})
	if err == nil || !strings.Contains(err.Error(), "num.io.threads") {
		t.Errorf("got %v, want an error that names the wrong property", err)
	}
}

func TestDataOfKilledProcessesIsSwept(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	gone := exec.CommandContext(t.Context(), "true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dirOf := func(pid int) string {
		dir := filepath.Join(os.TempDir(), fmt.Sprintf("%s%d-1", dataPrefix, pid))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	left, mine := dirOf(gone.Process.Pid), dirOf(os.Getpid())
	sweep()
	if isDir(left) {
		t.Error("a dead process's data are still there")
	}
	if !isDir(mine) {
		t.Error("a living process's data were removed")
	}
}
