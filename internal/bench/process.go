package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Process is what a server's process says of itself in its metrics.
type Process struct {
	Resident   int64 // bytes of resident memory
	Heap       int64 // bytes of Go's heap in use
	Stacks     int64 // bytes of goroutines' stacks
	Goroutines int
}

// metric takes one of them.
func (p *Process) metric(name string, v float64) {
	switch name {
	case "process_resident_memory_bytes":
		p.Resident = int64(v)
	case "go_memstats_heap_inuse_bytes":
		p.Heap = int64(v)
	case "go_memstats_stack_inuse_bytes":
		p.Stacks = int64(v)
	case "go_goroutines":
		p.Goroutines = int(v)
	}
}

// Observe asks a process's metrics listener, after a collection of its garbage:
// what nobody holds is nothing that a connection costs.
func (s *Server) Observe(ctx context.Context, listener string) (Process, error) {
	listener = strings.TrimSuffix(listener, "/")
	if _, err := s.text(ctx, listener+"/debug/pprof/heap?gc=1"); err != nil {
		return Process{}, err
	}
	text, err := s.text(ctx, listener+"/metrics")
	if err != nil {
		return Process{}, err
	}
	var p Process
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			p.metric(name, v)
		}
	}
	if p.Resident == 0 || p.Goroutines == 0 {
		return p, fmt.Errorf("bench: %s does not tell the process's memory: it must be the server's metrics listener, on Linux", listener)
	}
	return p, nil
}

func (s *Server) text(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: the metrics listener: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 64 << 20
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", address, resp.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("bench: the metrics listener: %w", err)
	}
	return text, nil
}

// Connections is what n held connections cost a process.
type Connections struct {
	Kind                string
	N                   int
	Opening             time.Duration // it took to open them all
	Before, Held, After Process       // before the first, while all were held, after the last had gone
	Back                time.Duration // it took for the goroutines to be gone again
}

// Each is the memory of one connection, of what Resident and the like are.
func (c *Connections) Each(of func(*Process) int64) float64 {
	return float64(of(&c.Held)-of(&c.Before)) / float64(max(c.N, 1))
}

// ConnectionsOptions say what is held, and for how long.
type ConnectionsOptions struct {
	Kind       string
	N          int
	AtATime    int           // opened at once
	Partitions int32         // that they watch by turns
	Hold       time.Duration // before what they cost is looked at
	Listener   string        // the server's metrics listener, a URL
}

// slackGoroutines is by how many a server's goroutines may differ with nobody
// connected: connections to Kafka, requests for metrics.
const slackGoroutines = 25

// MeasureConnections opens connections, holds them, and closes them.
func (s *Server) MeasureConnections(ctx context.Context, opt ConnectionsOptions) (c Connections, err error) {
	c.Kind, c.N = opt.Kind, opt.N
	// What the first few make, such as the tail of each partition, is nobody's.
	first, err := s.Hold(ctx, opt.Kind, min(opt.N, 2*int(opt.Partitions)), opt.AtATime, opt.Partitions)
	if err != nil {
		return c, err
	}
	first.Close()
	if err := pause(ctx, opt.Hold/2); err != nil {
		return c, err
	}
	if c.Before, err = s.Observe(ctx, opt.Listener); err != nil {
		return c, err
	}
	began := time.Now()
	held, err := s.Hold(ctx, opt.Kind, opt.N, opt.AtATime, opt.Partitions)
	if err != nil {
		return c, err
	}
	defer held.Close()
	c.Opening = time.Since(began)
	if err := pause(ctx, opt.Hold); err != nil {
		return c, err
	}
	if c.Held, err = s.Observe(ctx, opt.Listener); err != nil {
		return c, err
	}
	if n := held.Lost(); n > 0 {
		return c, fmt.Errorf("bench: %d of %d connections did not last for %v", n, opt.N, opt.Hold)
	}
	began = time.Now()
	held.Close()
	return c, s.settled(ctx, opt, &c, began)
}

// settled waits until the goroutines are where they were.
func (s *Server) settled(ctx context.Context, opt ConnectionsOptions, c *Connections, began time.Time) (err error) {
	const patience, step = time.Minute, 200 * time.Millisecond
	for {
		if c.After, err = s.Observe(ctx, opt.Listener); err != nil {
			return err
		}
		c.Back = time.Since(began)
		switch {
		case c.After.Goroutines <= c.Before.Goroutines+slackGoroutines:
			return nil
		case c.Back > patience:
			return fmt.Errorf("bench: %v after the connections were closed the server has %d goroutines, of %d before",
				patience, c.After.Goroutines, c.Before.Goroutines)
		}
		if err := pause(ctx, step); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("bench: %w", ctx.Err())
	}
}
