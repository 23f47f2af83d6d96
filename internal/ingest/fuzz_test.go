package ingest

import (
	"net/http"
	"testing"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/schemas"
)

// FuzzCreateJob holds the handler to three things: whatever the body, it is
// never a 500; it lets in what the published schema lets in, and nothing else;
// and what it writes is what processors read.
func FuzzCreateJob(f *testing.F) {
	for _, seed := range []string{
		hi, ``, `null`, `[]`, `{"body":{"model":"sim"},"lane":"batch","metadata":{"a":"b"},"deadline":"2999-12-31T23:59:59.999999999999+23:59"}`,
		`{"body":{"model":"\ud83d\ude00"},"conversation":"a:b"}`, `{"body":{"model":"sim","model":"x"}}`, `{"body":{"model":1e999}}`,
		`{"body":{"model":"a"},"deadline":"2027-02-29T24:00:00Z"}`, `{"body":{"model":"a"},"deadline":"2027-02-28T23:59:59,5Z"}`,
		`{"body":{"model":"a"},"deadline":"2999-12-31T23:59:59-01:00"}`, `{"body":{"model":"a"},"deadline":"1970-01-01T00:30:00+01:00"}`,
		`{"body":{"model":"a"},"metadata":{"":""}}`, "{\"body\":{\"model\":\"\xff\"}}", `{"body":{"model":"\ud800"}}`, `{"b\u006fdy":{"mode\u006c":"a"}}`,
		`{"body":{"model":"a"},"Lane":"batch"}`, `{"body":{"Model":"a"}}`, `{"body":{"model":"a"},"lane":""}`, `{"body":{"model":"a"},"deadline":"2027-01-01T00:00:00+24:00"}`,
		`{"body":{"model":"a","tools":[{"x":[[[1,2,{"y":null}]]]}]}}`, `{"body":{"model":"a"},"deadline":"2027-01-01T00:00:60Z"}`,
	} {
		f.Add([]byte(seed))
	}
	schema, err := schemas.Compile("http/create_job.json")
	if err != nil {
		f.Fatal(err)
	}
	log := &fakeLog{}
	h := handler(newService(f, Config{Producer: log}))
	f.Fuzz(func(t *testing.T, body []byte) {
		log.recs = nil
		w, a := send(t, h, string(body))
		doc, err := schemas.Parse(body)
		if err == nil {
			err = schema.Validate(doc)
		}
		switch {
		case w.Code == http.StatusAccepted:
			if err != nil {
				t.Fatalf("let in what the schema refuses: %v", err)
			}
			if _, _, err := event.DecodeRequest(&log.recs[0]); err != nil {
				t.Fatalf("wrote what no processor reads: %v\n%s", err, log.recs[0].Value)
			}
			if _, err := event.ScanHead(log.recs[0].Value); err != nil {
				t.Fatal(err)
			}
		case a.Error.Code == fault.DeadlineExceeded: // well formed and too late
			if err != nil {
				t.Fatalf("too late, but the schema refuses it: %v", err)
			}
		case w.Code != http.StatusBadRequest:
			t.Fatalf("%d %s", w.Code, w.Body)
		case err == nil:
			t.Fatalf("refused what the schema lets in: %s", a.Error.Message)
		}
	})
}
