package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/penstock-io/penstock/internal/devstack"
)

// services are the servers of one run, each started when first asked for.
type services struct {
	kafka    lazy[*KafkaServer]
	postgres lazy[*devstack.Postgres]
}

// open allows starts: somebody is going to call close.
func (s *services) open() {
	s.kafka.open()
	s.postgres.open()
}

// close stops what was started and allows no more starts.
func (s *services) close() error {
	return errors.Join(
		s.kafka.close((*KafkaServer).Stop),
		s.postgres.close(func(p *devstack.Postgres) error {
			ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
			defer cancel()
			return p.Stop(ctx)
		}),
	)
}

// kafkaAddr is the address of the Kafka that the environment names, else of one
// that it starts.
func (s *services) kafkaAddr(ctx context.Context) (string, error) {
	if addr := os.Getenv(KafkaVar); addr != "" {
		return addr, nil
	}
	k, err := s.kafka.get(func() (*KafkaServer, error) {
		return StartKafka(ctx, KafkaOptions{Throughput: os.Getenv(ThroughputVar) != ""})
	})
	if err != nil {
		return "", err
	}
	return k.Addr(), nil
}

// kafkaIfStarted is the same, but "" where nobody has asked for one yet.
func (s *services) kafkaIfStarted() string {
	if addr := os.Getenv(KafkaVar); addr != "" {
		return addr
	}
	if k, ok := s.kafka.peek(); ok {
		return k.Addr()
	}
	return ""
}

// postgresURL is the URL of the PostgreSQL that the environment names, else of
// one that it starts.
func (s *services) postgresURL(ctx context.Context) (string, error) {
	if server := os.Getenv(PostgresVar); server != "" {
		return server, nil
	}
	p, err := s.postgres.get(func() (*devstack.Postgres, error) {
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		return devstack.StartPostgres(ctx, devstack.PostgresConfig{Throwaway: true})
	})
	if err != nil {
		return "", err
	}
	return p.URL(), nil
}

// errNoMain says what a test binary lacks.
var errNoMain = fmt.Errorf("set %s and %s, or let TestMain call testenv.Main, which starts and stops them", KafkaVar, PostgresVar)

// lazy is a value that is made when first asked for. A failure is remembered, so
// that a hundred tests do not each wait for it.
type lazy[T any] struct {
	mu      sync.Mutex // held while the value is made
	allowed bool
	made    bool
	value   T
	err     error
}

func (l *lazy[T]) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allowed = true
}

func (l *lazy[T]) get(start func() (T, error)) (T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.allowed {
		return l.value, errNoMain
	}
	if !l.made {
		l.value, l.err = start()
		l.made = true
	}
	return l.value, l.err
}

// peek returns the value if there is one.
func (l *lazy[T]) peek() (T, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.made && l.err == nil
}

// close ends the value, if there is one, and forgets it.
func (l *lazy[T]) close(end func(T) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if l.made && l.err == nil {
		err = end(l.value)
	}
	var none T
	l.allowed, l.made, l.value, l.err = false, false, none, nil
	return err
}
