package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// fakeJobs knows jobs by tenant and id.
type fakeJobs map[string]*job.Resource

func (f fakeJobs) Job(_ context.Context, tenant, id string, _ *int32) (*job.Resource, error) {
	if res := f[tenant+"/"+id]; res != nil {
		return res, nil
	}
	return nil, fault.New(fault.NotFound, "there is no job %s", id)
}

func (fakeJobs) Partition(_ context.Context, _, id string, named *int32) (int32, error) {
	if named != nil {
		return *named, nil
	}
	if id == "lost" {
		return 0, fault.New(fault.Unavailable, "away")
	}
	return 11, nil
}

func knownJobs() fakeJobs {
	return fakeJobs{
		"default/waits":   {Object: "job", ID: "waits", Status: job.Queued, Tenant: "default", Request: &job.Position{Partition: 3}},
		"default/talks":   {Object: "job", ID: "talks", Status: job.Running, Conversation: "c-1", Batch: "b-1", Request: &job.Position{Partition: 4}},
		"default/told":    {Object: "job", ID: "told", Status: job.Running},
		"default/lost":    {Object: "job", ID: "lost", Status: job.Running},
		"default/ended":   {Object: "job", ID: "ended", Status: job.Completed},
		"acme/another's":  {Object: "job", ID: "another's", Status: job.Running},
		"acme/theirs":     {Object: "job", ID: "theirs", Status: job.Running},
		"default/stopped": {Object: "job", ID: "stopped", Status: job.Cancelled},
	}
}

func TestACancelIsWrittenWhereItsJobLies(t *testing.T) {
	named := int32(7)
	for id, c := range map[string]struct {
		partition *int32
		want      int32
		key       string
	}{
		"waits": {nil, 3, "waits"},
		"talks": {nil, 4, "c-1"},
		"told":  {nil, 11, "told"},
	} {
		log := &fakeLog{}
		s := newService(t, Config{Producer: log, Jobs: knownJobs()})
		for _, partition := range []*int32{c.partition, &named} {
			if err := s.Cancel(t.Context(), "default", id, partition); err != nil {
				t.Fatal(err)
			}
		}
		recs := log.records()
		if len(recs) != 2 || recs[0].Topic != "p.control" || recs[0].Partition != c.want || string(recs[0].Key) != c.key || recs[1].Partition != named {
			t.Errorf("%s: %+v", id, recs)
		}
		h, err := event.DecodeCancel(&recs[0])
		if err != nil || h.Job != id || h.Tenant != "default" || h.Type != event.JobCancelRequested {
			t.Errorf("%s: %+v, %v", id, h, err)
		}
		if string(recs[0].Header("ce_type")) != "io.penstock.job.cancel_requested" {
			t.Errorf("%v", recs[0].Headers)
		}
	}
}

func TestACancelThatNeedNotBeOrCannotBeIsNotWritten(t *testing.T) {
	for name, c := range map[string]struct {
		tenant, id string
		want       fault.Code
	}{
		"unknown":           {"default", "nobody", fault.NotFound},
		"another tenant's":  {"default", "theirs", fault.NotFound},
		"no id":             {"acme", "another's", fault.NotFound},
		"place not known":   {"default", "lost", fault.Unavailable},
		"completed":         {"default", "ended", ""},
		"cancelled already": {"default", "stopped", ""},
	} {
		log := &fakeLog{}
		s := newService(t, Config{Producer: log, Jobs: knownJobs()})
		err := s.Cancel(t.Context(), c.tenant, c.id, nil)
		f, _ := errors.AsType[*fault.Error](err)
		if (err == nil) != (c.want == "") || f != nil && f.Code != c.want || len(log.records()) != 0 {
			t.Errorf("%s: %v, %d records", name, err, len(log.records()))
		}
	}
	if err := newService(t, Config{Producer: &fakeLog{}}).Cancel(t.Context(), "default", "waits", nil); fault.From(err).Code != fault.Unavailable {
		t.Errorf("without a way to find jobs: %v", err)
	}
}

func TestACancelThatKafkaDoesNotTakeIsToldSo(t *testing.T) {
	for _, cause := range []error{kafka.ErrUnknownOutcome, kafka.ErrRefused} {
		log := &fakeLog{}
		log.failWith(fmt.Errorf("no: %w", cause))
		err := newService(t, Config{Producer: log, Jobs: knownJobs()}).Cancel(t.Context(), "default", "waits", nil)
		f := fault.From(err)
		if f.Code != fault.Unavailable || f.RetryAfter == 0 || !strings.Contains(f.Message, "send it again") {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

func TestCancelOverHTTP(t *testing.T) {
	h := handler(newService(t, Config{Producer: &fakeLog{}, Jobs: knownJobs()}))
	for path, want := range map[string]struct {
		status int
		code   fault.Code
		job    job.Status
	}{
		"waits/cancel":                         {202, "", job.Queued},
		"talks/cancel?partition=4":             {202, "", job.Running},
		"ended/cancel":                         {200, "", job.Completed},
		"nobody/cancel":                        {404, fault.NotFound, ""},
		"waits/cancel?partition=12":            {400, fault.InvalidRequest, ""},
		"waits/cancel?partition=x":             {400, fault.InvalidRequest, ""},
		"waits/cancel?partition=":              {400, fault.InvalidRequest, ""},
		"waits/cancel?partition=1&partition=2": {400, fault.InvalidRequest, ""},
		"waits/cancel?why=not":                 {400, fault.InvalidRequest, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/jobs/"+path, strings.NewReader("anything")))
		var got struct {
			Status job.Status `json:"status"`
			answered
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]any{want.status, want.code, want.job}, []any{w.Code, got.Error.Code, got.Status}); diff != "" {
			t.Errorf("%s: %s\n%s", path, diff, w.Body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/jobs/waits/cancel", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
		t.Errorf("%d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}
