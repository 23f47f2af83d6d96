package main

import (
	"bytes"
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/bench"
)

func TestServersAreMeasuredBesideTheLastOne(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(bench.InstantUpstream(2))
	defer s.Close()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-trips", "4", "-rounds", "2", "a=" + s.URL, "b=" + s.URL}, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[1], "1 ") || !strings.HasPrefix(lines[4], "50 ") || !strings.Contains(lines[4], "1.00 times") {
		t.Errorf("it wrote\n%s", &out)
	}
	for _, args := range [][]string{{}, {"nobody"}, {"-none"}} {
		if err := run(t.Context(), args, &out); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

func TestTheModelServerServesUntilItIsStopped(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := run(t.Context(), []string{"-upstream", l.Addr().String()}, &bytes.Buffer{}); err == nil {
		t.Error("it serves where another does")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := run(ctx, []string{"-upstream", "127.0.0.1:0"}, &bytes.Buffer{}); err != nil {
		t.Errorf("the stop: %v", err)
	}
}
