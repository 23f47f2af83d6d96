package gateway

import (
	"errors"
	"net/http"

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
	named, err := api.PartitionParam(r.URL.Query(), g.cfg.Partitions)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	wantsSnapshot, err := flag(r, "snapshot")
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	if c.pass, err = g.door.enter(r); err != nil {
		c.turnAway(r, err, again)
		return
	}
	defer func() { c.pass.leave() }()
	f := &jobFeed{out: &c.out}
	f.tenant, f.id = api.Tenant(ctx), job.Canonical(api.PathParam(r, "id"))
	if err := f.open(ctx, g, named, at); err != nil {
		c.turnAway(r, err, again)
		return
	}
	defer func() {
		if !c.moved {
			f.end()
		}
	}()
	if wantsSnapshot && !again {
		err = f.beginSnapshot(ctx)
	}
	if err == nil {
		err = f.settle(ctx)
	}
	switch {
	case errors.Is(err, errNoMore) && len(c.out.buf) == 0:
		w.WriteHeader(http.StatusNoContent) // an EventSource stops here
		return
	case err != nil && !errors.Is(err, errNoMore):
		c.turnAway(r, err, again)
		return
	}
	if r.Method == http.MethodHead {
		c.head()
		return
	}
	c.stream(r, f, func(status string) {
		if status == "" {
			status = f.status()
		}
		g.metrics.completions.WithLabelValues(status).Inc()
	})
}

// servePartition answers GET /v1/topics/tokens/partitions/{partition}/events:
// every record that counts, claims among them, since a reader may want to keep
// epochs of its own. Where it begins in the middle, the fence begins with what
// it meets first, unless a cursor tells it more.
func (g *Gateway) servePartition(w http.ResponseWriter, r *http.Request) {
	ctx, c := r.Context(), g.newSSE(w)
	id, ok := api.Digits(api.PathParam(r, "partition"))
	if !ok || id >= int64(g.cfg.Partitions) {
		api.WriteError(w, r, fault.New(fault.NotFound, "there is no partition %.20q: they run from 0 to %d",
			api.PathParam(r, "partition"), g.cfg.Partitions-1))
		return
	}
	at, again := position(r)
	var err error
	if c.pass, err = g.door.enter(r); err != nil {
		c.turnAway(r, err, again)
		return
	}
	defer func() { c.pass.leave() }()
	p, err := g.hub.acquire(ctx, int32(id)) //nolint:gosec // below Partitions
	if err != nil {
		c.turnAway(r, unavailable(ctx, err), again)
		return
	}
	f := &partitionFeed{g: g, part: p, out: &c.out}
	defer func() {
		if !c.moved {
			f.end()
		}
	}()
	from, err := offsetOf(r)
	if err == nil {
		err = f.open(ctx, at, from)
	}
	if err != nil {
		c.turnAway(r, err, again)
		return
	}
	if r.Method == http.MethodHead {
		c.head()
		return
	}
	c.stream(r, f, func(status string) {
		if status == "" {
			status = endedError
		}
		g.metrics.completions.WithLabelValues(status).Inc()
	})
}

// offsetOf reads ?offset=, which may stand once; "" where it is absent.
func offsetOf(r *http.Request) (string, error) {
	switch values := r.URL.Query()["offset"]; {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", fault.Param("offset", "offset stands %d times: it may stand once", len(values))
	case values[0] == "":
		return "", fault.Param("offset", "offset is empty: it must be a number from 0, earliest or latest")
	default:
		return values[0], nil
	}
}

// flag reads a switch of the query, which may stand once; false where it is absent.
func flag(r *http.Request, name string) (bool, error) {
	values := r.URL.Query()[name]
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "0":
		return false, nil
	case len(values) == 1 && values[0] == "1":
		return true, nil
	default:
		return false, fault.Param(name, "%s: %.40q: it must be 0 or 1, and stand once", name, values)
	}
}
