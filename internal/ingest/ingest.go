// Package ingest lets work in: it turns a request over HTTP into a job.requested
// record on its lane's topic, and answers once Kafka has it.
//
// What it promises. A job that was answered is in the log, acknowledged by all
// in-sync replicas. What was refused is not, unless the fault is
// unknown_outcome, which says how to ask again. With an Idempotency-Key the same
// request is the same job for 24 hours, whoever of many processes gets it.
//
// A Service has no goroutine but the caller's. Run, the cleaner of old keys,
// Positions.Run and Load.Run are loops that whoever starts them waits for.
package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/telemetry"
	"github.com/penstock-io/penstock/internal/topics"
	"github.com/penstock-io/penstock/schemas"
)

const (
	// DefaultAppendTimeout is how long Kafka gets to take a request.
	DefaultAppendTimeout = 10 * time.Second
	// defaultKeyTimeout is how long PostgreSQL gets for one statement about a key.
	defaultKeyTimeout = 2500 * time.Millisecond
	// awayRetryAfter is what a client is told to wait for what is away.
	awayRetryAfter = time.Second
)

// Producer appends records; *kafka.Producer is one.
type Producer interface {
	Append(ctx context.Context, recs ...event.Record) ([]kafka.Ack, error)
}

// Models tells which models are served.
type Models interface {
	// Known gives a fault (model_not_found) for a model that nobody serves.
	Known(model string) error
}

// Cursors gives where the output of a job that is about to be written can be
// read from; *Positions does.
type Cursors interface {
	// TokensCursor is a cursor on the token topic's partition at which the job
	// has no output yet; "" where none is known.
	TokensCursor(partition int32) string
}

// Admission decides whether more work is let in; *Load does.
type Admission interface {
	// Admit is asked before a new job is written. Its error is a fault that says
	// when to come back. A zero deadline is none.
	Admit(lane event.Lane, partition int32, deadline time.Time) error
	// Accepted is told where each job was written.
	Accepted(lane event.Lane, partition int32, offset int64)
}

// Config says what a Service works with. Producer, Names and Partitions are
// needed; without the others it does what it can.
type Config struct {
	Producer   Producer
	Names      topics.Names
	Partitions int32 // of every request topic

	Keys      Database  // idempotency keys; nil refuses requests that have one
	Models    Models    // nil leaves it to the processors, who fail such a job
	Cursors   Cursors   // nil leaves the cursor out of receipts
	Jobs      Jobs      // finds what is to be cancelled or retried; nil: neither
	Admission Admission // nil lets all in

	// MaxRecordBytes bounds a record on a request topic, its key and headers
	// included; 0 is topics.DefaultMaxRequestBytes.
	MaxRecordBytes int
	AppendTimeout  time.Duration // 0 is DefaultAppendTimeout
	KeyTimeout     time.Duration // of one statement; 0 is 2.5 seconds

	Now      func() time.Time      // nil is time.Now
	Random   io.Reader             // cryptographic; nil is crypto/rand
	Log      *slog.Logger          // nil discards
	Registry prometheus.Registerer // nil keeps no metrics
	Traces   *telemetry.Tracing    // nil makes no spans
}

// Service takes jobs in. Its methods may be called from many goroutines.
type Service struct {
	cfg     Config
	log     *slog.Logger
	schema  *jsonschema.Schema
	metrics *metrics

	mu      sync.Mutex
	flights map[flight]chan struct{} // keys being worked on here: one a request at most
}

// New makes a Service.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Producer == nil:
		return nil, errors.New("ingest: it needs a producer")
	case cfg.Partitions < 1 || cfg.Partitions > job.MaxPartitions:
		return nil, errors.New("ingest: it needs the partition count of the request topics, 1 to 65,536")
	}
	if cfg.MaxRecordBytes <= 0 {
		cfg.MaxRecordBytes = topics.DefaultMaxRequestBytes
	}
	if cfg.AppendTimeout <= 0 {
		cfg.AppendTimeout = DefaultAppendTimeout
	}
	if cfg.KeyTimeout <= 0 {
		cfg.KeyTimeout = defaultKeyTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	schema, err := schemas.Compile("http/create_job.json")
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the schema
	}
	m, err := newMetrics(cfg.Registry)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, log: cfg.Log, schema: schema, metrics: m, flights: map[flight]chan struct{}{}}, nil
}

// Submit takes a job in and returns once Kafka has it. The error is a
// *fault.Error. Once it is under way it is not broken off when ctx ends, so that
// nobody has to wonder what became of it.
func (s *Service) Submit(ctx context.Context, tenant string, in job.Request, opts job.SubmitOptions) (*job.Resource, error) {
	a, err := s.accept(ctx, tenant, &in, opts)
	if err != nil {
		return nil, err
	}
	res, err := a.resource()
	if err != nil {
		return nil, err
	}
	res.Replayed = a.replayed
	return res, nil
}

// accept is Submit with the answer as it goes out.
func (s *Service) accept(ctx context.Context, tenant string, in *job.Request, opts job.SubmitOptions) (a answer, err error) {
	defer func() { s.metrics.settled(in.Lane, a.replayed, err) }()
	if in.Lane == event.NoLane {
		in.Lane = event.Standard
	}
	if in.Endpoint == "" {
		in.Endpoint = event.DefaultEndpoint
	}
	w, err := s.draft(tenant, in, opts.Traceparent)
	if err != nil {
		return answer{}, err
	}
	refusal := s.refuse(in, w)
	if opts.IdempotencyKey != "" {
		return s.acceptOnce(ctx, w, opts, refusal)
	}
	if refusal != nil {
		return answer{}, refusal
	}
	return s.write(ctx, w, false)
}

// refuse says why a job that is well formed is not let in now. A request that
// was let in before under its key is not refused any more.
func (s *Service) refuse(in *job.Request, w *draft) error {
	if now := s.cfg.Now(); !in.Deadline.IsZero() && !in.Deadline.After(now) {
		f := fault.New(fault.DeadlineExceeded, "the deadline, %s, has passed: it must be later than now, %s",
			in.Deadline.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		f.Param = "deadline"
		return f
	}
	if s.cfg.Models != nil {
		if err := s.cfg.Models.Known(modelOf(w.request.Body)); err != nil {
			return faulty(err, fault.ModelNotFound, "body.model")
		}
	}
	if s.cfg.Admission != nil {
		if err := s.cfg.Admission.Admit(in.Lane, job.Partition(w.key(), s.cfg.Partitions), in.Deadline); err != nil {
			return faulty(err, fault.Overloaded, "")
		}
	}
	return nil
}

// faulty makes a fault of what somebody else's code refused with. param, where it is
// not "", is what the client calls the field.
func faulty(err error, code fault.Code, param string) *fault.Error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		f = fault.Wrap(err, code, "%s", err.Error())
	}
	if param != "" {
		named := *f
		named.Param = param
		f = &named
	}
	return f
}
