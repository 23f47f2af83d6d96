package gateway

import (
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// position is where a client wants to go on, and whether it is one that has
// been here before.
func position(r *http.Request) (at string, again bool) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id, true // an EventSource that comes back keeps the query of its first call
	}
	return r.URL.Query().Get("cursor"), false
}

// serveJob answers GET /v1/jobs/{id}/events.
func (g *Gateway) serveJob(w http.ResponseWriter, r *http.Request) {
	ctx, c := r.Context(), g.newSSE(w)
	at, again := position(r)
	named, err := number(r, "partition")
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	wantsSnapshot, err := flag(r, "snapshot")
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	f := &jobFeed{out: &c.out}
	f.tenant, f.id, f.to = api.Tenant(ctx), job.Canonical(api.PathParam(r, "id")), f
	if err := g.openJob(ctx, &f.jobStream, named, at); err != nil {
		api.WriteError(w, r, err)
		return
	}
	if wantsSnapshot && !again {
		err = f.beginSnapshot(ctx)
	}
	if err == nil {
		err = f.settle(ctx)
	}
	switch {
	case errors.Is(err, io.EOF) && len(c.out.buf) == 0:
		f.end()
		w.WriteHeader(http.StatusNoContent) // an EventSource stops here
		return
	case err != nil && !errors.Is(err, io.EOF):
		f.end()
		api.WriteError(w, r, err)
		return
	}
	c.stream(r, f, func(status string) {
		if status == "" {
			status = statusOf(&f.progress)
		}
		g.metrics.completions.WithLabelValues(status).Inc()
		f.end()
	})
}

// servePartition answers GET /v1/topics/tokens/partitions/{partition}/events:
// every record that counts, claims among them, since a reader may want to keep
// epochs of its own. Where it begins in the middle, the fence begins with what
// it meets first, unless a cursor tells it more.
func (g *Gateway) servePartition(w http.ResponseWriter, r *http.Request) {
	ctx, c := r.Context(), g.newSSE(w)
	id, err := strconv.ParseInt(api.PathParam(r, "partition"), 10, 32)
	if err != nil || id < 0 || id >= int64(g.cfg.Partitions) {
		api.WriteError(w, r, fault.New(fault.NotFound, "there is no partition %.20q: they run from 0 to %d",
			api.PathParam(r, "partition"), g.cfg.Partitions-1))
		return
	}
	p, err := g.hub.acquire(ctx, int32(id))
	if err != nil {
		api.WriteError(w, r, unavailable(ctx, err))
		return
	}
	f := &partitionFeed{g: g, part: p, out: &c.out}
	at, _ := position(r)
	if err := f.open(ctx, at, r.URL.Query().Get("offset")); err != nil {
		g.hub.release(p)
		api.WriteError(w, r, err)
		return
	}
	c.stream(r, f, func(status string) {
		if status == "" {
			status = endedError
		}
		g.metrics.completions.WithLabelValues(status).Inc()
		g.hub.release(p)
	})
}

// number reads a whole number of the query; nil where it is not given.
func number(r *http.Request, name string) (*int32, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return nil, fault.Param(name, "%.40q is no number: it must be a partition's", text)
	}
	v := int32(n)
	return &v, nil
}

// flag reads a switch of the query.
func flag(r *http.Request, name string) (bool, error) {
	switch text := r.URL.Query().Get(name); text {
	case "", "0", "false":
		return false, nil
	case "1", "true":
		return true, nil
	default:
		return false, fault.Param(name, "%.40q is neither 0 nor 1", text)
	}
}
