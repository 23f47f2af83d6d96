package ingest

import (
	"context"
	"errors"
	"net/http"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// Jobs finds jobs that are there already. partition is the one that the caller
// names for an outside id; nil else. Errors are *fault.Error.
type Jobs interface {
	// Job gives a tenant's job as it stands, or fault.NotFound.
	Job(ctx context.Context, tenant, id string, partition *int32) (*job.Resource, error)
	// Partition tells on which partition number a job's request lies.
	Partition(ctx context.Context, tenant, id string, partition *int32) (int32, error)
	// Request reads a job's request from the log, or gives fault.NotFound where
	// it is kept no more.
	Request(ctx context.Context, at job.Position) (event.Record, error)
}

// Cancel asks for a job to be stopped, and returns once Kafka has that. Twice is
// the same as once; of a job that has ended nothing is written. partition is the
// one that the caller names for an outside id; nil else. The error is a
// *fault.Error: NotFound for a job that the tenant has not got, Unavailable
// where it could not be written, which may be tried again.
func (s *Service) Cancel(ctx context.Context, tenant, id string, partition *int32) error {
	_, _, err := s.cancel(ctx, tenant, id, partition)
	return err
}

// cancel is Cancel with the job as it stood before; asked is false where it had
// ended.
func (s *Service) cancel(ctx context.Context, tenant, id string, partition *int32) (res *job.Resource, asked bool, err error) {
	if res, err = s.find(ctx, tenant, id, partition); err != nil {
		return nil, false, err
	}
	if res.Status.Ended() {
		return res, false, nil
	}
	var at int32
	if partition == nil && res.Request != nil {
		at = res.Request.Partition
	} else if at, err = s.cfg.Jobs.Partition(ctx, tenant, id, partition); err != nil {
		return nil, false, err //nolint:wrapcheck // a fault already
	}
	return res, true, s.writeCancel(ctx, res, tenant, at)
}

// find gives a tenant's job as it stands.
func (s *Service) find(ctx context.Context, tenant, id string, partition *int32) (*job.Resource, error) {
	if s.cfg.Jobs == nil {
		return nil, fault.New(fault.Unavailable, "this process cannot find jobs that are there already")
	}
	if !event.ValidID(id) {
		return nil, fault.New(fault.NotFound, "there is no job %.140q: it may be misspelt, or another tenant's", id)
	}
	return s.cfg.Jobs.Job(ctx, tenant, id, partition) //nolint:wrapcheck // a fault already
}

func (s *Service) writeCancel(ctx context.Context, res *job.Resource, tenant string, partition int32) error {
	h := event.Head{
		Type: event.JobCancelRequested, V: event.Version, Time: s.cfg.Now().UTC(), Tenant: tenant, Job: res.ID,
		Conversation: res.Conversation, Batch: res.Batch,
	}
	key := h.Conversation
	if key == "" {
		key = h.Job
	}
	bounded, stop := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.AppendTimeout)
	defer stop()
	_, err := s.cfg.Producer.Append(bounded, event.Record{
		Topic: s.cfg.Names.Control(), Partition: partition, Key: []byte(key), Time: h.Time,
		Value: event.Append(nil, &h, []byte("{}")), Headers: event.CloudEvents(&h, event.FactID(&h), ""),
	})
	if err != nil {
		why := "Kafka cannot take the cancel now: send it again"
		if errors.Is(err, kafka.ErrUnknownOutcome) {
			why = "Kafka did not answer in time, so the cancel may have been taken or not: send it again, twice is the same as once"
		}
		return away(err, fault.Unavailable, why)
	}
	s.metrics.cancelled.Inc()
	return nil
}

// serveCancel is POST /v1/jobs/{id}/cancel: 202 with the job as it stood, or 200
// where it has ended. A body is not looked at.
func (s *Service) serveCancel(w http.ResponseWriter, r *http.Request) {
	partition, err := s.partitionOf(r)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	res, asked, err := s.cancel(r.Context(), api.Tenant(r.Context()), job.Canonical(api.PathParam(r, "id")), partition)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	status := http.StatusOK
	if asked {
		status = http.StatusAccepted
	}
	api.WriteJSON(w, r, status, res)
}

// partitionOf reads ?partition=; nil where absent. There is no other parameter.
func (s *Service) partitionOf(r *http.Request) (*int32, error) {
	q, err := api.Query(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	for name := range q {
		if name != "partition" {
			return nil, fault.Param(name, "the parameter %.80q is not known here: it may be partition", name)
		}
	}
	return api.PartitionParam(q, s.cfg.Partitions) //nolint:wrapcheck // a fault
}
