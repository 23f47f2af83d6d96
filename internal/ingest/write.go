package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/telemetry"
)

// draft is a request that is valid and not yet written.
type draft struct {
	head        event.Head
	lane        event.Lane
	request     event.Request
	traceparent string
}

// answer is what a client gets for a job that is in the log.
type answer struct {
	job      string
	status   int
	body     []byte       // JSON of a job.Resource
	made     *receiptWire // what body was made of; nil where it was kept
	replayed bool         // it was given before, or is of a job that another request began
}

// receiptWire is the part of a job.Resource that a receipt has: fewer fields are
// written quicker. A test holds the two to the same JSON.
type receiptWire struct {
	Object    string       `json:"object"`
	ID        string       `json:"id"`
	Status    job.Status   `json:"status"`
	Lane      event.Lane   `json:"lane"`
	CreatedAt job.Time     `json:"created_at"`
	Cursor    string       `json:"cursor,omitzero"`
	Request   job.Position `json:"request"`
	Links     job.Links    `json:"links"`
}

func (r *receiptWire) resource() *job.Resource {
	return &job.Resource{
		Object: r.Object, ID: r.ID, Status: r.Status, Lane: r.Lane, CreatedAt: r.CreatedAt,
		Cursor: r.Cursor, Request: &r.Request, Links: r.Links,
	}
}

func (a *answer) resource() (*job.Resource, error) {
	if a.made != nil {
		return a.made.resource(), nil
	}
	var res job.Resource
	if err := json.Unmarshal(a.body, &res); err != nil {
		return nil, fault.Wrap(err, fault.Internal, "the answer that was kept for this key cannot be read")
	}
	return &res, nil
}

// draft mints an id and lets the same rules decide that hold for any producer.
func (s *Service) draft(tenant string, in *job.Request, traceparent string) (*draft, error) {
	w := &draft{
		lane: in.Lane,
		request: event.Request{
			Endpoint: in.Endpoint, Body: in.Body, Deadline: in.Deadline, Metadata: in.Metadata,
		},
	}
	if in.Unwatched {
		w.request.Stream = new(false)
	}
	if event.ValidTraceparent(traceparent) {
		w.traceparent = traceparent
	}
	now := s.cfg.Now().UTC().Truncate(time.Millisecond) // what an id can hold
	id, err := job.Mint(now, in.Conversation, s.cfg.Partitions, s.cfg.Random)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "no id could be made for the job")
	}
	w.head = event.Head{
		Type: event.JobRequested, V: event.Version, Time: now, Tenant: tenant, Job: id, Conversation: in.Conversation,
	}
	if err := event.ValidateHead(&w.head); err != nil {
		return nil, invalid(err)
	}
	if err := w.request.Validate(); err != nil {
		return nil, invalid(err)
	}
	return w, nil
}

// rename takes the job of an earlier request with the same key.
func (w *draft) rename(id string) error {
	parsed, ok := job.ParseID(id)
	if !ok {
		return fault.New(fault.Internal, "the job that is kept for this key, %.140q, is none of ours", id)
	}
	w.head.Job, w.head.Time = id, parsed.Time
	return nil
}

// invalid says it with the field as the HTTP body has it: data is ours.
func invalid(err error) error {
	inv, ok := errors.AsType[*event.Invalid](err)
	if !ok {
		return fault.Wrap(err, fault.InvalidRequest, "the request is not valid")
	}
	field := strings.TrimSuffix(strings.TrimPrefix(inv.Field, "data."), ".")
	return fieldFault(field, inv.Reason)
}

func fieldFault(field, reason string) *fault.Error {
	if field == "" {
		return fault.New(fault.InvalidRequest, "the body: %s", reason)
	}
	return fault.Param(field, "%s: %s", field, reason)
}

// key is what decides the partition: the conversation, else the job.
func (w *draft) key() string {
	if w.head.Conversation != "" {
		return w.head.Conversation
	}
	return w.head.Job
}

// write appends the request and makes its receipt.
func (s *Service) write(ctx context.Context, w *draft, repeat bool) (answer, error) {
	key := w.key()
	partition := job.Partition(key, s.cfg.Partitions)
	cursor := ""
	if s.cfg.Cursors != nil && !repeat { // else the job may have been written before, and its output with it
		cursor = s.cfg.Cursors.TokensCursor(partition) // before the produce: nothing of the job is ahead of it
	}
	rec := event.Record{
		Topic: s.cfg.Names.Requests(w.lane), Partition: partition, Key: []byte(key),
		Value: event.Append(make([]byte, 0, len(w.request.Body)+512), &w.head, w.data(repeat)),
		Time:  w.head.Time,
	}
	ack, err := s.send(ctx, w, rec)
	if err != nil {
		return answer{}, err
	}
	if s.cfg.Admission != nil {
		s.cfg.Admission.Accepted(w.lane, ack.Partition, ack.Offset)
	}
	rcpt := receiptWire{
		Object: "job", ID: w.head.Job, Status: job.Queued, Lane: w.lane, CreatedAt: job.Time{Time: w.head.Time},
		Cursor: cursor, Request: job.Position{Topic: rec.Topic, Partition: ack.Partition, Offset: ack.Offset},
		Links: job.LinksOf(w.head.Job),
	}
	body, err := json.Marshal(&rcpt)
	if err != nil {
		return answer{}, fault.Wrap(err, fault.Internal, "the job was accepted, but its receipt could not be written")
	}
	return answer{job: w.head.Job, status: statusAccepted, body: body, made: &rcpt}, nil
}

// data writes the request's data. The body goes in as it came; it is valid JSON
// that was checked once.
func (w *draft) data(repeat bool) []byte {
	r := &w.request
	b := make([]byte, 0, len(r.Body)+256)
	b = append(b, `{"endpoint":"`...)
	b = append(b, r.Endpoint...) // one of a list
	b = append(b, `","body":`...)
	b = append(b, r.Body...)
	if !r.Deadline.IsZero() {
		b = append(b, `,"deadline":"`...)
		b = r.Deadline.AppendFormat(b, time.RFC3339Nano) // in its own zone, by which its year is judged
		b = append(b, '"')
	}
	if !r.Streams() {
		b = append(b, `,"stream":false`...)
	}
	if len(r.Metadata) > 0 {
		b = append(b, `,"metadata":`...)
		m, err := json.Marshal(r.Metadata, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
		if err != nil { // a map of strings always has JSON
			m = []byte("{}")
		}
		b = append(b, m...)
	}
	if repeat {
		b = append(b, `,"repeat":true`...)
	}
	return append(b, '}')
}

// send appends the record under a span, which its headers name; without spans
// they name the client's own.
func (s *Service) send(ctx context.Context, w *draft, rec event.Record) (kafka.Ack, error) {
	ctx, span := s.cfg.Traces.Send(ctx, telemetry.Message{
		Topic: rec.Topic, Partition: rec.Partition, Offset: -1, Job: w.head.Job, Traceparent: w.traceparent,
	})
	rec.Headers = event.CloudEvents(&w.head, event.FactID(&w.head), cmp.Or(span.Traceparent(), w.traceparent, telemetry.Traceparent(ctx)))
	ack, err := s.append(ctx, rec)
	if err != nil {
		f := fault.From(err)
		span.End(string(f.Code), f.Message)
		return ack, err
	}
	span.At(ack.Offset)
	span.End("", "")
	return ack, nil
}

// append waits for Kafka within a bound of our own, whether the client stays or
// not: giving up early would only make the outcome unknown.
func (s *Service) append(ctx context.Context, rec event.Record) (kafka.Ack, error) {
	if n := sizeOf(&rec); n > s.cfg.MaxRecordBytes {
		return kafka.Ack{}, fault.New(fault.TooLarge, "the request makes a record of %d bytes, and %d is the limit: send less", n, s.cfg.MaxRecordBytes)
	}
	began := s.cfg.Now()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.AppendTimeout)
	defer cancel()
	acks, err := s.cfg.Producer.Append(bounded, rec)
	s.metrics.append.Observe(s.cfg.Now().Sub(began).Seconds())
	switch {
	case err == nil && len(acks) == 1:
		return acks[0], nil
	case err == nil:
		err = fmt.Errorf("%d acknowledgements for one record", len(acks))
		return kafka.Ack{}, fault.Wrap(err, fault.Internal, "the job was written, but where is not known")
	case errors.Is(err, kafka.ErrUnknownOutcome):
		s.log.WarnContext(ctx, "outcome of a request is unknown", slog.String("topic", rec.Topic),
			slog.Int("partition", int(rec.Partition)), slog.Any("error", err))
		return kafka.Ack{}, away(err, fault.UnknownOutcome,
			"Kafka did not answer in time, so the job may have been accepted or not: send it again with the same Idempotency-Key, which makes it one job")
	default:
		return kafka.Ack{}, away(err, fault.Unavailable, "Kafka cannot take the job now, and it was not accepted: send it again")
	}
}

// sizeOf is about what a record takes on the wire; the producer counts likewise.
func sizeOf(rec *event.Record) int {
	const batchOverhead, headerOverhead = 128, 16
	n := batchOverhead + len(rec.Key) + len(rec.Value)
	for i := range rec.Headers {
		n += headerOverhead + len(rec.Headers[i].Key) + len(rec.Headers[i].Value)
	}
	return n
}

func away(err error, code fault.Code, message string) *fault.Error {
	f := fault.Wrap(err, code, "%s", message)
	f.RetryAfter = awayRetryAfter
	return f
}
