package gateway

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// fromStart is a cursor that says no more than that its client has been here: the
// one before a job's first event.
const fromStart = "0"

// position is where a client wants to go on, "" where at the beginning, and whether
// it is one that has been here before.
func position(r *http.Request, q url.Values) (at string, again bool, err error) {
	// An EventSource that comes back keeps the query of its first call.
	if at = r.Header.Get("Last-Event-ID"); at == "" {
		at, _, err = api.Single(q, "cursor")
	} else {
		again = true
	}
	if at == fromStart {
		at = ""
	}
	return at, again, err
}

// jobQuery is what a request for a job's events says of them.
type jobQuery struct {
	at        string
	again     bool
	partition *int32 // where the job lies, if the client knows it
	snapshot  bool
}

func (g *Gateway) jobQueryOf(r *http.Request) (jq jobQuery, err error) {
	q, err := api.Query(r)
	if err != nil {
		return jq, err
	}
	if jq.at, jq.again, err = position(r, q); err != nil {
		return jq, err
	}
	if jq.partition, err = api.PartitionParam(q, g.cfg.Partitions); err != nil {
		return jq, err
	}
	jq.snapshot, err = flag(q, "snapshot")
	jq.snapshot = jq.snapshot && (!jq.again || jq.at == "") // it had one, or has the events that made it
	return jq, err
}

// serveJob answers GET /v1/jobs/{id}/events.
func (g *Gateway) serveJob(w http.ResponseWriter, r *http.Request) {
	ctx, c := r.Context(), g.newSSE(w)
	q, err := g.jobQueryOf(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	if c.pass, err = g.door.enter(r); err != nil {
		c.turnAway(r, err, q.again)
		return
	}
	defer func() { c.pass.leave() }()
	f := &jobFeed{out: &c.out}
	f.tenant, f.id = api.Tenant(ctx), job.Canonical(api.PathParam(r, "id"))
	if err := f.open(ctx, g, q.partition, q.at); err != nil {
		c.turnAway(r, err, q.again)
		return
	}
	defer func() {
		if !c.moved {
			f.end()
		}
	}()
	if q.snapshot {
		err = f.beginSnapshot(ctx)
	}
	if err == nil {
		err = f.settle(ctx)
	}
	switch {
	case errors.Is(err, errNoMore) && len(c.out.buf) == 0 && !f.gaping():
		w.WriteHeader(http.StatusNoContent) // an EventSource stops here
		return
	case err != nil && !errors.Is(err, errNoMore):
		c.turnAway(r, err, q.again)
		return
	}
	if r.Method == http.MethodHead {
		c.head()
		return
	}
	if c.first = q.at; q.at == "" || q.snapshot {
		c.first = fromStart
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
	at, again, from, err := partitionQueryOf(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
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
	if err = f.open(ctx, at, from); err != nil {
		c.turnAway(r, err, again)
		return
	}
	if r.Method == http.MethodHead {
		c.head()
		return
	}
	c.first = f.reader.here()
	c.stream(r, f, func(status string) {
		if status == "" {
			status = endedError
		}
		g.metrics.completions.WithLabelValues(status).Inc()
	})
}

// partitionQueryOf reads where in a partition to begin: behind a cursor, or at an
// offset, as ?offset= has it; "" where it is absent.
func partitionQueryOf(r *http.Request) (at string, again bool, offset string, err error) {
	q, err := api.Query(r)
	if err != nil {
		return "", false, "", err
	}
	if at, again, err = position(r, q); err != nil {
		return "", false, "", err
	}
	offset, ok, err := api.Single(q, "offset")
	if ok && offset == "" {
		err = fault.Param("offset", "offset is empty: it must be a number from 0, earliest or latest")
	}
	return at, again, offset, err
}

// flag reads a switch of the query; false where it is absent.
func flag(q url.Values, name string) (bool, error) {
	text, ok, err := api.Single(q, name)
	switch {
	case err != nil:
		return false, err
	case !ok || text == "0":
		return false, nil
	case text == "1":
		return true, nil
	default:
		return false, fault.Param(name, "%s: %.40q: it must be 0 or 1", name, text)
	}
}
