package testenv

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// pretendKafka is a server whose broker is a shell script.
func pretendKafka(t *testing.T, script string) *KafkaServer {
	t.Helper()
	k := &KafkaServer{addr: "kafka.example:9092", dir: t.TempDir(), command: []string{"sh", "-c", script}}
	t.Cleanup(func() {
		if err := k.Stop(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func TestBrokerThatEndsWhileItStartsSaysWhy(t *testing.T) {
	k := pretendKafka(t, "echo the port is taken; exit 1")
	err := k.Restart(t.Context())
	if !errors.Is(err, errExited) || !strings.Contains(err.Error(), "the port is taken") {
		t.Errorf("got %v", err)
	}
	if got := strings.Count(err.Error(), "the port is taken"); got != startAttempts {
		t.Errorf("tried %d times, want %d", got, startAttempts)
	}
}

func TestBrokerThatNeverServesIsEnded(t *testing.T) {
	k := pretendKafka(t, "echo starting; exec sleep 600")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := k.Restart(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want an error that says that time was up", err)
	}
	// goleak sees to it that nobody waits for the process any more.
}

func TestProcessThatIgnoresSIGTERMIsKilled(t *testing.T) {
	// The phrase in two pieces, behind more than is kept.
	k := pretendKafka(t, `trap "" TERM
		head -c 100000 /dev/zero; echo; printf "Kafka Server "; printf "started\n"
		while :; do sleep 600; done`)
	if err := k.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.running.terminate(10 * time.Millisecond); err != nil {
		t.Error(err)
	}
	select {
	case <-k.running.done:
	default:
		t.Error("it still runs")
	}
	if code := exitCode(k.running.err); code != 128+9 {
		t.Errorf("status %d, want 137", code)
	}
}

func TestAPausedBrokerStandsStill(t *testing.T) {
	k := pretendKafka(t, `echo Kafka Server started; while :; do :; done`)
	if err := k.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.Pause(); err != nil || !standsStill(k.running.pid) {
		t.Errorf("%v, and it works on", err)
	}
	gone := k.running
	if err := k.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := gone.awaitStop(); err == nil {
		t.Error("one that is gone stands still")
	}
}

func TestProgramThatIsNotThereIsNoServer(t *testing.T) {
	k := &KafkaServer{dir: t.TempDir(), command: []string{"/nonexistent/java"}}
	if err := k.Restart(t.Context()); err == nil {
		t.Error("it started")
	}
	k.dir = "/nonexistent"
	if err := k.Restart(t.Context()); err == nil {
		t.Error("it started where it cannot write its log")
	}
}

func TestTopicsAreDeletedOnlyWhereAKafkaWasStarted(t *testing.T) {
	t.Setenv(KafkaVar, "")
	var s services
	s.open()
	if got := s.kafkaIfStarted(); got != "" {
		t.Errorf("nobody has asked for a Kafka yet, and it is at %s", got)
	}
	k := pretendKafka(t, "")
	if _, err := s.kafka.get(func() (*KafkaServer, error) { return k, nil }); err != nil {
		t.Fatal(err)
	}
	if got := s.kafkaIfStarted(); got != k.Addr() {
		t.Errorf("got %q, want %q", got, k.Addr())
	}
	if addr, err := s.kafkaAddr(t.Context()); err != nil || addr != k.Addr() {
		t.Errorf("got %q and %v, want the one that runs", addr, err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	for _, start := range []func(context.Context) (string, error){s.kafkaAddr, s.postgresURL} {
		t.Setenv(PostgresVar, "")
		if _, err := start(t.Context()); !errors.Is(err, errNoMain) {
			t.Errorf("after the end: %v", err)
		}
	}
}
