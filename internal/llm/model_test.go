package llm_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

func TestModelOfReadsTheField(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"sim"}`: "sim",
		` { "messages" : [{"model":"not this"}], "x":{"model":"nor this"}, "model" : "openai/gpt-5" } `: "openai/gpt-5",
		`{"mo\u0064el":"s\u0069m"}`:           "sim",
		`{"a\u0062":1,"model":"sim"}`:         "sim",
		`{"model":"sim","model":"other"}`:     "sim",
		`{"model":"sim", what follows is not`: "sim",
	} {
		if got, err := llm.ModelOf([]byte(body)); err != nil || got != want {
			t.Errorf("%s: %q and %v, want %q", body, got, err, want)
		}
	}
}

func TestModelOfSaysWhatIsWrong(t *testing.T) {
	for body, want := range map[string]struct {
		code    fault.Code
		message string
	}{
		`{}`:                      {fault.InvalidRequest, "model is missing"},
		`{"Model":"sim"}`:         {fault.InvalidRequest, "model is missing"},
		`{"model":""}`:            {fault.InvalidRequest, "model is missing"},
		`{"model":null}`:          {fault.InvalidRequest, "must be a string"},
		`{"model":5}`:             {fault.InvalidRequest, "must be a string"},
		`{"model":["sim"]}`:       {fault.InvalidRequest, "must be a string"},
		`[]`:                      {fault.InvalidRequest, "not an object"},
		`"sim"`:                   {fault.InvalidRequest, "not an object"},
		``:                        {fault.InvalidJSON, "line 1, column 1"},
		`nope`:                    {fault.InvalidJSON, "line 1, column 2"},
		`{`:                       {fault.InvalidJSON, "line 1, column 2"},
		"{\"a\":1,\n  \"b\":tru}": {fault.InvalidJSON, "line 2, column 10"},
		"{\n\"model\":\n\"sim":    {fault.InvalidJSON, "line 3, column 5"},
		`{"a":1,}`:                {fault.InvalidJSON, "line 1, column 7"},
		`{"a" 1}`:                 {fault.InvalidJSON, "line 1, column 6"},
		`{"a":1 "b":2}`:           {fault.InvalidJSON, "line 1, column 8"},
		`{"a`:                     {fault.InvalidJSON, "line 1, column 4"},
		`{"model":sim}`:           {fault.InvalidJSON, "line 1, column 10"},
	} {
		_, err := llm.ModelOf([]byte(body))
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != want.code || !strings.Contains(f.Message, want.message) {
			t.Errorf("%s: %v, want %s: …%s…", body, err, want.code, want.message)
		}
	}
}

func FuzzModelOf(f *testing.F) {
	for _, seed := range []string{`{"model":"sim"}`, `{"x":[{}],"model":"é"}`, `{"model":1}`, `[`, "{\"a\":\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := llm.ModelOf(body)
		var refused *fault.Error
		if err != nil && !errors.As(err, &refused) {
			t.Fatalf("%v is no fault", err)
		}
		if err == nil && got == "" {
			t.Fatal("no model and no error")
		}
		// Where the whole body is sound, the full decoder must agree.
		var whole struct {
			Model string `json:"model"`
		}
		if json.Unmarshal(body, &whole) == nil && whole.Model != got {
			t.Fatalf("%q, and decoded in full %q", got, whole.Model)
		}
	})
}

func TestCodeForStatusTellsWhetherARetryMayHelp(t *testing.T) {
	for status, want := range map[int]struct {
		code  fault.Code
		retry bool
	}{
		400: {fault.ProviderRejected, false},
		401: {fault.ProviderRejected, false},
		403: {fault.ProviderRejected, false},
		404: {fault.ModelNotFound, false},
		408: {fault.ProviderTimeout, true},
		409: {fault.ProviderError, true},
		413: {fault.ProviderRejected, false},
		422: {fault.ProviderRejected, false},
		425: {fault.ProviderError, true},
		429: {fault.RateLimited, true},
		500: {fault.ProviderError, true},
		503: {fault.ProviderError, true},
		504: {fault.ProviderTimeout, true},
		529: {fault.ProviderError, true},
		302: {fault.ProviderError, true},
	} {
		code := llm.CodeForStatus(status)
		if code != want.code || fault.KindOf(code).Retry != want.retry {
			t.Errorf("%d is %s (retry %v), want %+v", status, code, fault.KindOf(code).Retry, want)
		}
	}
}

func BenchmarkModelOf(b *testing.B) {
	body := []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("word ", 200) + `"}],"model":"sim"}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := llm.ModelOf(body); err != nil {
			b.Fatal(err)
		}
	}
}
