package ingest

import (
	"net/http"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// serveRetry is POST /v1/jobs/{id}/retry: it submits the request of a job that
// has ended once more, as a new job, and answers as POST /v1/jobs does. A body is
// not looked at.
func (s *Service) serveRetry(w http.ResponseWriter, r *http.Request) {
	a, err := s.retry(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	s.writeAccepted(w, r, &a)
}

func (s *Service) retry(r *http.Request) (answer, error) {
	id, tenant := job.Canonical(api.PathParam(r, "id")), api.Tenant(r.Context())
	opts, err := s.optionsOf(r)
	if err != nil {
		return answer{}, err
	}
	partition, err := s.partitionOf(r)
	if err != nil {
		return answer{}, err
	}
	res, err := s.find(r.Context(), tenant, id, partition)
	if err != nil {
		return answer{}, err
	}
	if !res.Status.Ended() {
		return answer{}, fault.Param("id", "job %s is %s: it can be retried when it has ended, so wait for that, or cancel it", id, res.Status)
	}
	if res.Request == nil {
		return answer{}, fault.New(fault.NotFound, "the request of job %s is not in the log any more: submit it anew", id)
	}
	rec, err := s.cfg.Jobs.Request(r.Context(), *res.Request)
	if err != nil {
		return answer{}, err //nolint:wrapcheck // a fault already
	}
	h, req, err := event.DecodeRequest(&rec)
	if err != nil || h.Job != id || h.Tenant != tenant {
		return answer{}, fault.New(fault.NotFound, "the request of job %s is not in the log any more: submit it anew", id)
	}
	in := job.Request{Lane: res.Lane, Conversation: h.Conversation, Endpoint: req.Endpoint, Body: req.Body, Unwatched: !req.Streams(), Metadata: req.Metadata}
	if req.Deadline.After(s.cfg.Now()) {
		in.Deadline = req.Deadline
	}
	opts.Fingerprint = []byte("retry of " + id)
	return s.accept(r.Context(), tenant, &in, opts)
}
