package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

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

// intake is a job that a request over the OpenAI API became.
type intake struct {
	job   *job.Resource
	keyed bool // it may be an earlier request's
}

// submit makes a job of a request and names it in the answer's header. Once the
// job is in the log it goes on, whether its client stays or not.
func (g *Gateway) submit(w http.ResponseWriter, r *http.Request, endpoint string, lane event.Lane, body jsontext.Value) (intake, error) {
	ctx := r.Context()
	opts := job.SubmitOptions{Traceparent: r.Header.Get("Traceparent")}
	if keys, ok := r.Header["Idempotency-Key"]; ok {
		if keys[0] == "" {
			return intake{}, fault.Param("Idempotency-Key", "the Idempotency-Key is empty: give it a value, or leave it out")
		}
		opts.IdempotencyKey = keys[0]
		opts.Fingerprint = append([]byte(endpoint+"\n"), body...) // the same bytes may go to two endpoints
	}
	res, err := g.cfg.Intake.Submit(ctx, api.Tenant(ctx), job.Request{Lane: lane, Endpoint: endpoint, Body: body}, opts)
	if err != nil {
		return intake{}, outerFault(err)
	}
	w.Header().Set("X-Penstock-Job", res.ID)
	return intake{job: res, keyed: opts.IdempotencyKey != ""}, nil
}

// settle makes sure of where an earlier request's job begins. One that was made
// just now begins no earlier than this process's clock says.
func (in intake) settle(ctx context.Context, s *jobStream) error {
	if !in.keyed {
		return nil
	}
	if err := s.settle(ctx); err != nil && !errors.Is(err, errNoMore) {
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
	body, err := api.ReadBody(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	req, err := openai.ReadChat(body)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	in, err := g.submit(w, r, chatEndpoint, req.Lane, req.Body)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	if req.Stream {
		f := &chatFeed{out: &c.out}
		f.tenant, f.id, f.to = api.Tenant(r.Context()), in.job.ID, f
		f.chunks = openai.NewChunks(job.ChatID(in.job.ID), in.job.CreatedAt.Time, req.Model, req.IncludeUsage)
		g.streamChat(c, r, in, f)
		return
	}
	g.answerWhole(w, r, in, func(t *job.Transcript) any {
		return openai.NewCompletion(job.ChatID(in.job.ID), in.job.CreatedAt.Time, &t.Completed, t.Output())
	})
}

// streamChat sends nothing before the first token, so that a failure until then
// is an answer with a status of its own, of which SDKs make their own errors.
func (g *Gateway) streamChat(c *sse, r *http.Request, in intake, f *chatFeed) {
	ctx := r.Context()
	if err := g.openJob(ctx, &f.jobStream, nil, ""); err != nil {
		api.WriteError(c.w, r, err)
		return
	}
	defer f.close()
	err := in.settle(ctx, &f.jobStream)
	if err == nil {
		err = f.attend(ctx, func() bool { return f.failure != nil || len(c.out.buf) > 0 })
	}
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
	body, err := api.ReadBody(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	req, err := openai.ReadEmbeddings(body)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	in, err := g.submit(w, r, embeddingsEndpoint, req.Lane, req.Body)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	g.answerWhole(w, r, in, func(t *job.Transcript) any { return openai.NewEmbeddings(&t.Completed, t.Output()) })
}

// answerWhole answers with what is made of all that a job said.
func (g *Gateway) answerWhole(w http.ResponseWriter, r *http.Request, in intake, of func(*job.Transcript) any) {
	body, err := g.wholeAnswer(r.Context(), api.Tenant(r.Context()), in, of)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	api.WriteRaw(w, r, http.StatusOK, body)
}
