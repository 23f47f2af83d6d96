package projections

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

const (
	// defaultWaiters bounds the requests that wait for a job's end.
	defaultWaiters = 10_000
	// writeMargin is what an answer gets to be written after the wait.
	writeMargin = 10 * time.Second
)

// Rows is the table of jobs, as Store has it.
type Rows interface {
	// Find gives a job, fault.NotFound or fault.Unavailable.
	Find(ctx context.Context, tenant, id string) (*job.Resource, error)
	// List gives a page of a tenant's jobs.
	List(ctx context.Context, tenant string, f Filter) (Page, error)
}

// Log answers for jobs from the log itself. partition is where the job lies, if
// that is known.
type Log interface {
	// Job gives the job's present state, or fault.NotFound where the log has nothing.
	Job(ctx context.Context, tenant, id string, partition *int32) (*job.Resource, error)
	// Await returns at the job's end, or with its present state when ctx ends.
	Await(ctx context.Context, tenant, id string, partition *int32) (*job.Resource, error)
}

// APIConfig says what an API is made of.
type APIConfig struct {
	Rows       Rows
	Log        Log
	Partitions int32            // of the topics
	MaxWaiters int              // requests that may wait at a time; 0 is 10,000
	Waits      context.Context  //nolint:containedctx // no request's: at its end who waits is told how the job stands; nil has none
	Now        func() time.Time // nil is time.Now
}

// API is the routes that ask about jobs. Its methods may be called from many
// goroutines.
type API struct {
	APIConfig
	waiting chan struct{}
}

// NewAPI makes the routes.
func NewAPI(cfg APIConfig) *API {
	if cfg.MaxWaiters <= 0 {
		cfg.MaxWaiters = defaultWaiters
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Waits == nil {
		cfg.Waits = context.Background()
	}
	return &API{APIConfig: cfg, waiting: make(chan struct{}, cfg.MaxWaiters)}
}

// Routes adds the routes.
func (a *API) Routes(r chi.Router) {
	r.Get("/v1/jobs", a.list)
	r.Get("/v1/jobs/{id}", a.get)
}

func (a *API) list(w http.ResponseWriter, r *http.Request) {
	f, err := filterOf(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	page, err := a.Rows.List(r.Context(), api.Tenant(r.Context()), f)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	api.WriteJSON(w, r, http.StatusOK, api.NewList(page.Jobs, page.More, func(j **job.Resource) string { return (*j).ID }))
}

// Job gives a job as it stands, by the table and by the log: whichever knows
// more. partition is that of an outside job whose caller names it; nil else.
func (a *API) Job(ctx context.Context, tenant, id string, partition *int32) (*job.Resource, error) {
	q := question{tenant: tenant, id: id, partition: partition}
	res, err := a.answer(ctx, q)
	if err != nil || res.Status.Ended() {
		return res, err
	}
	if q.partition == nil && res.Request != nil {
		q.partition = &res.Request.Partition
	}
	told, logErr := a.ask(ctx, q)
	if logErr != nil || told.Tenant != tenant {
		told = nil // the log is away, or has let go of it
	}
	return a.further(ctx, q, res, told), nil
}

// question is what GET /v1/jobs/{id} asks.
type question struct {
	tenant, id string
	wait       time.Duration
	partition  *int32
}

func (a *API) get(w http.ResponseWriter, r *http.Request) {
	q, err := a.questionOf(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	if q.wait > 0 {
		// Where the server bounds answers, this one may take longer. One that
		// cannot be told so does not bound them.
		_ = http.NewResponseController(w).SetWriteDeadline(a.Now().Add(q.wait + writeMargin))
	}
	res, err := a.answer(r.Context(), q)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	api.WriteJSON(w, r, http.StatusOK, res)
}

func (a *API) questionOf(r *http.Request) (q question, err error) {
	q.tenant, q.id = api.Tenant(r.Context()), job.Canonical(api.PathParam(r, "id"))
	values, err := queryOf(r, "wait", "partition")
	if err != nil {
		return q, err
	}
	if q.wait, err = waitOf(values); err != nil {
		return q, err
	}
	if q.partition, err = api.PartitionParam(values, a.Partitions); err != nil {
		return q, err
	}
	if !event.ValidID(q.id) {
		return q, NotFound(q.id)
	}
	return q, nil
}

// answer gives the job as the table has it, and as the log has it where the
// table is behind or away.
func (a *API) answer(ctx context.Context, q question) (*job.Resource, error) {
	res, rowErr := a.Rows.Find(ctx, q.tenant, q.id)
	switch {
	case rowErr != nil && ctx.Err() != nil:
		return nil, rowErr
	case rowErr == nil && (q.wait == 0 || res.Status.Ended()):
		return res, nil
	case rowErr == nil && q.partition == nil && res.Request != nil:
		q.partition = &res.Request.Partition
	}
	told, logErr := a.ask(ctx, q)
	if logErr == nil && told.Tenant != q.tenant {
		logErr = NotFound(q.id)
	}
	if logErr != nil {
		told = nil
	}
	switch {
	case rowErr == nil:
		return a.further(ctx, q, res, told), nil
	case logErr == nil:
		return told, nil
	case is(logErr, fault.NotFound) && !is(rowErr, fault.NotFound):
		return nil, rowErr // the table might know it
	default:
		return nil, logErr
	}
}

// ask asks the log, for the time that the question allows.
func (a *API) ask(ctx context.Context, q question) (*job.Resource, error) {
	if q.wait == 0 {
		return a.Log.Job(ctx, q.tenant, q.id, q.partition)
	}
	select {
	case a.waiting <- struct{}{}:
		defer func() { <-a.waiting }()
	default:
		f := fault.New(fault.Overloaded, "%d requests are waiting for jobs already: ask without wait, or later", cap(a.waiting))
		f.RetryAfter = comeBack
		return nil, f
	}
	waiting, cancel := context.WithTimeout(ctx, q.wait)
	defer cancel()
	defer context.AfterFunc(a.Waits, cancel)() //nolint:contextcheck // see Waits
	return a.Log.Await(waiting, q.tenant, q.id, q.partition)
}

// further gives the one of two states that is further. told is nil where the
// log is away, has let go of the job, or has too many waiting for it. Where it
// told of no end, the table may have gone on meanwhile.
func (a *API) further(ctx context.Context, q question, res, told *job.Resource) *job.Resource {
	if told == nil {
		return res
	}
	if !told.Status.Ended() {
		if again, err := a.Rows.Find(ctx, q.tenant, q.id); err == nil {
			res = again
		}
	}
	if rankOf(res.Status) > rankOf(told.Status) {
		return res
	}
	return told
}

func is(err error, code fault.Code) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Code == code
}
