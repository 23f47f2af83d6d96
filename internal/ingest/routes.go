package ingest

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/job"
)

const statusAccepted = http.StatusAccepted

// Routes adds POST /v1/jobs, POST /v1/jobs/{id}/cancel and POST /v1/jobs/{id}/retry.
func (s *Service) Routes(r chi.Router) {
	r.Post("/v1/jobs", s.create)
	r.Post("/v1/jobs/{id}/cancel", s.serveCancel)
	r.Post("/v1/jobs/{id}/retry", s.serveRetry)
}

func (s *Service) create(w http.ResponseWriter, r *http.Request) {
	a, err := s.read(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	s.writeAccepted(w, r, &a)
}

func (*Service) writeAccepted(w http.ResponseWriter, r *http.Request, a *answer) {
	h := w.Header()
	h.Set("Location", "/v1/jobs/"+a.job)
	if a.replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	api.WriteRaw(w, r, a.status, a.body)
}

// optionsOf reads what the headers say beside the request.
func (s *Service) optionsOf(r *http.Request) (job.SubmitOptions, error) {
	opts := job.SubmitOptions{Traceparent: r.Header.Get("Traceparent")}
	if keys, ok := r.Header["Idempotency-Key"]; ok {
		opts.IdempotencyKey = keys[0]
		if err := validKey(opts.IdempotencyKey); err != nil {
			s.metrics.refuse(err)
			return opts, err
		}
	}
	return opts, nil
}

func (s *Service) read(r *http.Request) (answer, error) {
	opts, err := s.optionsOf(r)
	if err != nil {
		return answer{}, err
	}
	body, err := api.ReadBody(r)
	if err != nil {
		s.metrics.refuse(err)
		return answer{}, err //nolint:wrapcheck // a fault already
	}
	in, err := s.Decode(body)
	if err != nil {
		return answer{}, err
	}
	opts.Fingerprint = body
	return s.accept(r.Context(), api.Tenant(r.Context()), &in, opts)
}
