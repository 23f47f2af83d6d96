package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is what a server says of itself in its metrics: seconds and bytes.
type process struct{ cpu, resident, heap, stacks, goroutines float64 }

// observe asks the server, where memory is measured after a collection.
func (o options) observe(ctx context.Context) (p process, err error) {
	if o.idle > 0 {
		if _, err := text(ctx, o.metrics+"/debug/pprof/heap?gc=1"); err != nil {
			return p, err
		}
	}
	said, err := text(ctx, o.metrics+"/metrics")
	if err != nil {
		return p, err
	}
	into := map[string]*float64{
		"process_cpu_seconds_total": &p.cpu, "process_resident_memory_bytes": &p.resident, "go_goroutines": &p.goroutines,
		"go_memstats_heap_inuse_bytes": &p.heap, "go_memstats_stack_inuse_bytes": &p.stacks,
	}
	lines := bufio.NewScanner(strings.NewReader(said))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v := into[name]; v != nil {
			if *v, err = strconv.ParseFloat(value, 64); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

func text(ctx context.Context, at string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", at, resp.Status)
	}
	return string(b), err
}

// ownCPU is the CPU time of this process so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
