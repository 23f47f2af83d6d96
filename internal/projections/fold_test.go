package projections

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/topics"
)

var (
	names = topics.Names{Prefix: "t."}
	epoch = time.Date(2026, 11, 22, 15, 4, 5, 0, time.UTC)
)

// at is a time some milliseconds after the tests' own epoch.
func at(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }

// requestRecord is a request of a job.
func requestRecord(lane event.Lane, partition int32, offset int64, h event.Head, r event.Request) event.Record {
	h.Type, h.V, h.Tenant = event.JobRequested, event.Version, cmp.Or(h.Tenant, event.DefaultTenant)
	if r.Body == nil {
		r.Body = []byte(`{"model":"sim"}`)
	}
	return event.Record{
		Topic: names.Requests(lane), Partition: partition, Offset: offset, Time: h.Time,
		Key: []byte(h.Job), Value: event.Append(nil, &h, event.Encode(r)),
	}
}

// factRecord is a fact about a job.
func factRecord(partition int32, offset int64, h event.Head, data any) event.Record {
	h.V, h.Tenant = event.Version, cmp.Or(h.Tenant, event.DefaultTenant)
	if data == nil {
		data = struct{}{}
	}
	return event.Record{
		Topic: names.Jobs(), Partition: partition, Offset: offset, Time: h.Time,
		Key: []byte(h.Job), Value: event.Append(nil, &h, event.Encode(data)),
	}
}

// drawLog draws some records about a few jobs, as no sane log has them: several
// requests, several ends, attempts out of order.
func drawLog(t *rapid.T) []event.Record {
	var records []event.Record
	offsets := map[string]int64{}
	next := func(topic string, p int32) int64 {
		k := fmt.Sprint(topic, p)
		offsets[k]++
		return offsets[k]
	}
	for range rapid.IntRange(1, 8).Draw(t, "records") {
		h := event.Head{
			Job: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "job"), Time: at(rapid.IntRange(0, 50).Draw(t, "time")),
			Conversation: rapid.SampledFrom([]string{"", "c1", "c2"}).Draw(t, "conversation"),
			Batch:        rapid.SampledFrom([]string{"", "b1"}).Draw(t, "batch"),
			Attempt:      rapid.IntRange(0, 3).Draw(t, "attempt"),
			Lane:         rapid.SampledFrom(event.Lanes()).Draw(t, "lane"),
		}
		p := rapid.Int32Range(0, 1).Draw(t, "partition")
		if rapid.IntRange(0, 2).Draw(t, "kind") == 0 {
			r := event.Request{CustomID: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "custom")}
			if rapid.Bool().Draw(t, "more") {
				r.Deadline, r.Metadata = at(100), map[string]string{"k": "v"}
				r.Body = []byte(`{"model":"other"}`)
			}
			records = append(records, requestRecord(h.Lane, p, next(names.Requests(h.Lane), p), h, r))
			continue
		}
		h.Type = rapid.SampledFrom([]event.Type{
			event.JobStarted, event.JobProgress, event.JobRetrying,
			event.JobCompleted, event.JobFailed, event.JobCancelled, event.JobExpired,
		}).Draw(t, "type")
		model := rapid.SampledFrom([]string{"m1", "m2"}).Draw(t, "model")
		var data any
		switch h.Type {
		case event.JobStarted:
			data = event.Started{Model: model, Provider: rapid.SampledFrom([]string{"p1", "p2"}).Draw(t, "provider")}
		case event.JobCompleted:
			data = event.Fact{Model: model, Usage: &event.Usage{TotalTokens: len(records)}, Output: []event.OutputChoice{{
				Message: event.Message{Role: "assistant", Content: strconv.Itoa(len(records))}, FinishReason: "stop",
			}}}
		case event.JobFailed, event.JobExpired:
			data = event.Failed{Code: "internal_error", Message: strconv.Itoa(len(records))}
		default:
		}
		records = append(records, factRecord(p, next(names.Jobs(), p), h, data))
	}
	return records
}

// reference says by looking at everything at once what the jobs must look like.
func reference(t interface{ Fatal(args ...any) }, records []event.Record) map[string]*job.Resource {
	records = slices.Clone(records)
	slices.SortFunc(records, func(a, b event.Record) int {
		first := 0 // the request that was made first stands
		if a.Topic != names.Jobs() && b.Topic != names.Jobs() {
			first = a.Time.Compare(b.Time)
		}
		return cmp.Or(first, strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	jobs := map[string]*job.Resource{}
	attempts, requested := map[string]int{}, map[string]bool{}
	for _, rec := range records { // requests sort behind facts: "t.jobs" < "t.requests"
		v, err := event.ScanHead(rec.Value)
		if err != nil {
			t.Fatal(err)
		}
		h := v.Head()
		res := jobs[h.Job]
		if res == nil {
			res = &job.Resource{
				Object: "job", ID: h.Job, Tenant: h.Tenant, Status: job.Queued, Links: job.LinksOf(h.Job),
				CreatedAt: job.Time{Time: h.Time}, Lane: h.Lane,
			}
			jobs[h.Job] = res
			attempts[h.Job] = -1
		}
		if h.Type == event.JobRequested {
			if requested[h.Job] {
				continue
			}
			requested[h.Job] = true
			h, r, err := event.DecodeRequest(&rec)
			if err != nil {
				t.Fatal(err)
			}
			lane, _ := names.LaneOf(rec.Topic)
			asked := job.NewResource(&h, &r, lane, job.Position{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset})
			res.Lane, res.Conversation, res.Batch, res.Endpoint, res.Model = asked.Lane, asked.Conversation, asked.Batch, asked.Endpoint, asked.Model
			res.CreatedAt, res.Deadline, res.CustomID, res.Metadata, res.Request = asked.CreatedAt, asked.Deadline, asked.CustomID, asked.Metadata, asked.Request
			continue
		}
		referenceFact(res, &h, v.Data, attempts)
	}
	return jobs
}

func referenceFact(res *job.Resource, h *event.Head, data []byte, attempts map[string]int) {
	var s event.Started
	var c event.Fact
	var f event.Failed
	for _, into := range []any{&s, &c, &f} {
		_ = event.DecodeData(data, into)
	}
	if h.Time.Before(res.CreatedAt.Time) {
		res.CreatedAt.Time = h.Time
	}
	if h.Lane.String() > res.Lane.String() {
		res.Lane = h.Lane
	}
	res.Conversation, res.Batch = max(res.Conversation, h.Conversation), max(res.Batch, h.Batch)
	if h.Attempt > attempts[h.Job] {
		attempts[h.Job], res.Attempt = h.Attempt, h.Attempt
		res.Model, res.Provider = "", ""
	}
	if h.Attempt == attempts[h.Job] {
		res.Model, res.Provider = max(res.Model, s.Model), max(res.Provider, s.Provider)
	}
	if h.Type == event.JobStarted && (res.StartedAt.IsZero() || h.Time.Before(res.StartedAt.Time)) {
		res.StartedAt.Time = h.Time
	}
	if res.Status.Ended() {
		return
	}
	res.Status = job.StatusOf(h.Type)
	if !h.Type.Terminal() {
		return
	}
	res.EndedAt.Time = h.Time
	switch h.Type {
	case event.JobCompleted:
		res.Output, res.Usage = c.Output, c.Usage
	case event.JobFailed, event.JobExpired:
		res.Error = &f
	default:
	}
}

// shuffled draws an order of the records in which some stand more than once.
func shuffled(t *rapid.T, records []event.Record) []event.Record {
	all := slices.Clone(records)
	for range rapid.IntRange(0, 4).Draw(t, "repeats") {
		all = append(all, rapid.SampledFrom(records).Draw(t, "repeated"))
	}
	return rapid.Permutation(all).Draw(t, "order")
}

func TestRowsAreTheSameInWhateverOrderRecordsCome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := drawLog(t)
		f := folder{names}
		want, counts, why := f.fold(log)
		if counts[folded] != len(log) || why != nil {
			t.Fatalf("folded %v of %d: %v", counts, len(log), why)
		}
		// In parts, and the parts joined in turn.
		order := shuffled(t, log)
		cut := rapid.IntRange(0, len(order)).Draw(t, "cut")
		got := map[key]*row{}
		for _, part := range [][]event.Record{order[:cut], order[cut:]} {
			rows, _, _ := f.fold(part)
			for _, r := range rows {
				if got[r.key] == nil {
					got[r.key] = r
					continue
				}
				got[r.key].join(r)
			}
		}
		for _, w := range want {
			if diff := gocmp.Diff(w, got[w.key], gocmp.AllowUnexported(row{}, key{}, requested{}, ended{})); diff != "" {
				t.Fatalf("%v (-in log order +shuffled):\n%s", w.key, diff)
			}
		}
	})
}

func TestFoldSkipsWhatIsNoRequestOrFact(t *testing.T) {
	record := func(topic, value string) event.Record {
		return event.Record{Topic: topic, Value: []byte(value), Time: epoch}
	}
	requests, jobs := names.Requests(event.Standard), names.Jobs()
	for _, tc := range []struct {
		name string
		rec  event.Record
		want verdict
	}{
		{"not JSON on requests", record(requests, `{"type"`), malformed},
		{"a request without a body", record(requests, `{"job":"a","data":{}}`), malformed},
		{"a request of a kind to come", record(requests, `{"type":"job.paused","v":1,"job":"a","data":{}}`), unknown},
		{"a request of a version to come", record(requests, `{"type":"job.requested","v":9,"job":"a","data":{}}`), unknown},
		{"bytes on jobs", record(jobs, "\xff\xfe"), malformed},
		{"nothing on jobs", record(jobs, ""), malformed},
		{"a fact of a kind to come", record(jobs, `{"type":"batch.progress","v":1,"tenant":"default","batch":"b","data":{}}`), unknown},
		{"a fact of a version to come", record(jobs, `{"type":"job.started","v":2,"tenant":"default","job":"a","data":{}}`), unknown},
		{"a fact without a job", record(jobs, `{"type":"job.started","v":1,"tenant":"default","job":"","data":{}}`), malformed},
		{"a fact of a job with NUL in its id", record(jobs, `{"type":"job.started","v":1,"tenant":"default","job":"a\u0000","data":{}}`), malformed},
		{"a fact without a tenant", record(jobs, `{"type":"job.started","v":1,"job":"a","data":{}}`), malformed},
		{"a fact of an endless attempt", record(jobs, `{"type":"job.progress","v":1,"tenant":"default","job":"a","attempt":99999999999,"data":{}}`), malformed},
		{"a fact of a nameless batch", record(jobs, `{"type":"job.progress","v":1,"tenant":"default","job":"a","batch":"\n","data":{}}`), malformed},
	} {
		rows, counts, why := folder{names}.fold([]event.Record{tc.rec})
		if len(rows) != 0 || counts[tc.want] != 1 {
			t.Errorf("%s: %d rows, counted %v, want one %s", tc.name, len(rows), counts, tc.want)
		}
		if (why != nil) != (tc.want == malformed) {
			t.Errorf("%s: the reason is %v", tc.name, why)
		}
	}
}

func TestTerminalFactWithUnreadableDataStillEndsItsJob(t *testing.T) {
	for _, value := range []string{
		`{"type":"job.completed","v":1,"time":"2026-11-22T15:04:05.000Z","tenant":"default","job":"a","attempt":1,"lane":"batch","data":{"output" 1}}`,
		`{"type":"job.completed","v":1,"tenant":"default","job":"a","data":{"output":[}}`,
		`{"type":"job.failed","v":1,"time":"2026-11-22T15:04:05.000Z","tenant":"default","job":"a","attempt":1,"lane":"batch","data":{nonsense}}`,
	} {
		rows, counts, why := folder{names}.fold([]event.Record{{Topic: names.Jobs(), Value: []byte(value)}})
		if len(rows) != 1 || !rows[0].status().Ended() || counts[malformed] != 1 || why == nil {
			t.Errorf("%s: %d rows, %v, %v", value, len(rows), counts, why)
		}
	}
}

func TestTimesAreThoseThatTheTableCanHold(t *testing.T) {
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct{ t, record, want time.Time }{
		{epoch.Add(1500 * time.Nanosecond), far, epoch.Add(time.Microsecond)},
		{time.Time{}, at(1), at(1)},
		{far, at(1), at(1)},
		{far, far, time.Unix(0, 0).UTC()},
		{time.UnixMilli(1 << 62), time.Time{}, time.Unix(0, 0).UTC()},
	} {
		if got := storable(tc.t, tc.record); !got.Equal(tc.want) {
			t.Errorf("storable(%v, %v) = %v, want %v", tc.t, tc.record, got, tc.want)
		}
	}
}

func TestStartOfAnUnreadableKindStillCounts(t *testing.T) {
	rows, counts, why := folder{names}.fold([]event.Record{{
		Topic: names.Jobs(), Time: at(3), Value: []byte(`{"type":"job.started","v":1,"tenant":"default","job":"a","data":{"model":7}}`),
	}})
	if len(rows) != 1 || rows[0].status() != job.Running || !rows[0].startedAt.Equal(at(3)) || counts[malformed] != 1 || why == nil {
		t.Errorf("%d rows, %v, %v", len(rows), counts, why)
	}
}

func TestJobWithoutItsRequestIsAsOldAsItsID(t *testing.T) {
	id, err := job.Mint(at(5), "", 3, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rows, _, _ := folder{names}.fold([]event.Record{factRecord(0, 0, event.Head{Type: event.JobStarted, Job: id, Time: at(70)}, nil)})
	if len(rows) != 1 || !rows[0].firstSeen.Equal(at(5)) {
		t.Errorf("first seen at %v, want %v", rows[0].firstSeen, at(5))
	}
}
