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

func (fakeJobs) Request(_ context.Context, at job.Position) (event.Record, error) {
	switch at.Offset {
	case 1:
		return event.Record{Value: []byte(`{"job":"asked","conversation":"c","data":{"body":{"model":"sim","x":1},"deadline":"2999-01-01T00:00:00Z","metadata":{"k":"v"}}}`)}, nil
	case 2:
		return event.Record{Value: []byte(`{"job":"late","data":{"body":{"model":"sim"},"deadline":"2020-01-01T00:00:00Z"}}`)}, nil
	case 3:
		return event.Record{Value: []byte(`{"job":"another","data":{"body":{"model":"sim"}}}`)}, nil
	default:
		return event.Record{}, fault.New(fault.NotFound, "gone")
	}
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
		"default/asked":   {Object: "job", ID: "asked", Status: job.Failed, Lane: event.Batch, Request: &job.Position{Offset: 1}},
		"default/late":    {Object: "job", ID: "late", Status: job.Cancelled, Lane: event.Interactive, Request: &job.Position{Offset: 2}},
		"default/swapped": {Object: "job", ID: "swapped", Status: job.Failed, Request: &job.Position{Offset: 3}},
		"default/gone":    {Object: "job", ID: "gone", Status: job.Failed, Request: &job.Position{Offset: 4}},
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
		"waits/cancel?partition=%zz":           {400, fault.InvalidRequest, ""},
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

func TestRetryOverHTTP(t *testing.T) {
	log := &fakeLog{}
	h := handler(newService(t, Config{Producer: log, Jobs: knownJobs()}))
	post := func(path string) (*httptest.ResponseRecorder, answered) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/jobs/"+path, nil))
		var a answered
		if w.Code >= http.StatusBadRequest {
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Fatal(err)
			}
		}
		return w, a
	}
	for _, id := range []string{"asked", "late"} {
		w, _ := post(id + "/retry")
		var res job.Resource
		if err := json.Unmarshal(w.Body.Bytes(), &res); err != nil || w.Code != http.StatusAccepted || res.ID == id || w.Header().Get("Location") != "/v1/jobs/"+res.ID {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
	}
	for i, want := range []struct {
		topic, conversation, body string
		deadline                  bool
		pairs                     int
	}{{"p.requests.batch", "c", `{"model":"sim","x":1}`, true, 1}, {"p.requests.interactive", "", `{"model":"sim"}`, false, 0}} {
		rec := log.records()[i]
		head, req, err := event.DecodeRequest(&rec)
		if err != nil || rec.Topic != want.topic || head.Conversation != want.conversation || string(req.Body) != want.body ||
			req.Deadline.IsZero() == want.deadline || len(req.Metadata) != want.pairs {
			t.Errorf("%s %+v %+v %v, want %+v", rec.Topic, head, req, err, want)
		}
	}
	for path, code := range map[string]fault.Code{
		"nobody/retry": fault.NotFound, "waits/retry": fault.InvalidRequest, "ended/retry": fault.NotFound, "gone/retry": fault.NotFound,
		"swapped/retry": fault.NotFound, "asked/retry?x=1": fault.InvalidRequest,
	} {
		if w, a := post(path); a.Error.Code != code {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if n := len(log.records()); n != 2 {
		t.Errorf("%d requests were written", n)
	}
}
