package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/gateway/openai"
	"github.com/penstock-io/penstock/internal/job"
)

// The endpoints of the OpenAI API that are served here.
const (
	chatEndpoint       = event.DefaultEndpoint
	embeddingsEndpoint = "/v1/embeddings"
)

// take reads a request over the OpenAI API, makes a job of it and names that in the
// answer's header. Once the job is in the log it goes on, whether its client stays or
// not.
func (g *Gateway) take(w http.ResponseWriter, r *http.Request, endpoint string, read func(body []byte) (openai.Request, error)) (*job.Resource, error) {
	body, err := api.ReadBody(r)
	if err != nil {
		return nil, err
	}
	req, err := read(body)
	if err != nil {
		return nil, err
	}
	opts := job.SubmitOptions{Traceparent: r.Header.Get("Traceparent")}
	if keys, ok := r.Header["Idempotency-Key"]; ok {
		if keys[0] == "" {
			return nil, fault.Param("Idempotency-Key", "the Idempotency-Key is empty: give it a value, or leave it out")
		}
		opts.IdempotencyKey = keys[0]
		opts.Fingerprint = append([]byte(endpoint+"\n"), req.Body...) // the same bytes may go to two endpoints
	}
	ctx := r.Context()
	res, err := g.cfg.Intake.Submit(ctx, api.Tenant(ctx), job.Request{Lane: req.Lane, Endpoint: endpoint, Body: req.Body}, opts)
	if err != nil {
		return nil, outerFault(err)
	}
	w.Header().Set("X-Penstock-Job", res.ID)
	return res, nil
}

// openTaken begins the stream of a job that was taken in. One that an earlier request
// made is found as any other is; a new one begins no earlier than this process's clock
// says. The stream needs a close.
func (g *Gateway) openTaken(ctx context.Context, s *jobStream, res *job.Resource) error {
	if err := g.openJob(ctx, s, nil, ""); err != nil || !res.Replayed {
		return err
	}
	if err := s.settle(ctx); err != nil && !errors.Is(err, errNoMore) {
		s.close()
		return err
	}
	return nil
}

// outerFault names a field as the client wrote it, for whom the model request is
// the whole body.
func outerFault(err error) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || !strings.HasPrefix(f.Param, "body.") {
		return err
	}
	outer := *f
	outer.Param, outer.Message = strings.TrimPrefix(f.Param, "body."), strings.TrimPrefix(f.Message, "body.")
	return &outer
}

// serveChat answers POST /v1/chat/completions.
func (g *Gateway) serveChat(w http.ResponseWriter, r *http.Request) {
	c := g.newSSE(w)
	var req openai.ChatRequest
	res, err := g.take(w, r, chatEndpoint, func(body []byte) (_ openai.Request, err error) {
		req, err = openai.ReadChat(body)
		return req.Request, err
	})
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	if req.Stream {
		f := &chatFeed{out: &c.out}
		f.tenant, f.id, f.to = api.Tenant(r.Context()), res.ID, f
		f.chunks = openai.NewChunks(job.ChatID(res.ID), res.CreatedAt.Time, req.Model, req.IncludeUsage)
		g.streamChat(c, r, res, f)
		return
	}
	g.answerWhole(w, r, res, func(t *job.Transcript) any {
		return openai.NewCompletion(job.ChatID(res.ID), res.CreatedAt.Time, &t.Completed, t.Output())
	})
}

// streamChat sends nothing before the first token, so that a failure until then
// is an answer with a status of its own, of which SDKs make their own errors.
func (g *Gateway) streamChat(c *sse, r *http.Request, res *job.Resource, f *chatFeed) {
	ctx := r.Context()
	if err := g.openTaken(ctx, &f.jobStream, res); err != nil {
		api.WriteError(c.w, r, err)
		return
	}
	defer f.close()
	err := f.attend(ctx, func() bool { return f.failure != nil || len(c.out.buf) > 0 })
	switch {
	case err == nil && f.failure != nil:
		err = f.failure
	case err == nil && len(c.out.buf) == 0:
		err = f.lost(gapRetention)
	}
	if err != nil {
		api.WriteError(c.w, r, err)
		return
	}
	f.sent = true
	status := c.serve(ctx, f)
	switch {
	case status == endedDrained:
		f.fail(fault.From(errDraining()))
		_ = c.flush() // whether it took this or not, it is over
	case status == "" && f.failure != nil && f.progress.End == "":
		status = endedError
	case status == "":
		status = statusOf(&f.progress)
	}
	g.metrics.completions.WithLabelValues(status).Inc()
}

// serveEmbeddings answers POST /v1/embeddings.
func (g *Gateway) serveEmbeddings(w http.ResponseWriter, r *http.Request) {
	res, err := g.take(w, r, embeddingsEndpoint, openai.ReadEmbeddings)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	g.answerWhole(w, r, res, func(t *job.Transcript) any { return openai.NewEmbeddings(&t.Completed, t.Output()) })
}

// answerWhole answers with what is made of all that a job said.
func (g *Gateway) answerWhole(w http.ResponseWriter, r *http.Request, res *job.Resource, of func(*job.Transcript) any) {
	body, err := g.wholeAnswer(r.Context(), api.Tenant(r.Context()), res, of)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	api.WriteRaw(w, r, http.StatusOK, body)
}
