package simulated_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/simulated"
)

func TestItFailsAsOftenAsAskedForAndTheSameEachTime(t *testing.T) {
	const calls = 1000
	for _, fail := range []float64{0, 0.01, 0.3, 1} {
		model := fmt.Sprintf("sim:tokens=4,ttft=0,gap=0,fail=%g,error=429", fail)
		failed := 0
		for i := range calls {
			req := request(model, hello)
			req.Job = fmt.Sprint("job_", i)
			contents, _, err := said(t, req)
			_, _, again := said(t, req)
			if fmt.Sprint(err) != fmt.Sprint(again) {
				t.Fatalf("the same call gave %v, then %v", err, again)
			}
			if err != nil {
				failed++
				if len(contents) > 0 {
					t.Fatalf("a 429 came after %q", contents)
				}
			}
		}
		rate, slack := float64(failed)/calls, 5*math.Sqrt(fail*(1-fail)/calls)
		if math.Abs(rate-fail) > slack {
			t.Errorf("fail=%g: %d of %d failed", fail, failed, calls)
		}
	}
}

func TestARetryDrawsAgain(t *testing.T) {
	failed := 0
	for attempt := range 200 {
		req := request("sim:tokens=1,ttft=0,gap=0,fail=0.5", hello)
		req.Attempt = attempt
		if _, _, err := said(t, req); err != nil {
			failed++
		}
	}
	if failed < 50 || failed > 150 {
		t.Errorf("of 200 attempts of one job %d failed, want about half", failed)
	}
}

func TestA5xxBreaksTheStreamAnywhere(t *testing.T) {
	whole := text(t, "sim:tokens=20,ttft=0,gap=0", hello)
	lengths := map[int]bool{}
	for attempt := range 400 {
		req := request("sim:tokens=20,ttft=0,gap=0,error=500", hello)
		req.Attempt = attempt
		contents, last, err := said(t, req)
		if err == nil || last.FinishReason != "" || !strings.HasPrefix(whole, strings.Join(contents, "")) {
			t.Fatalf("%v, %q, %q", err, last.FinishReason, contents)
		}
		lengths[len(contents)] = true
	}
	if len(lengths) != 20 {
		t.Errorf("it broke at %d places, want all of 0 to 19: %v", len(lengths), lengths)
	}
}

func TestABrokenStreamIsContinuedByTheNextAttempt(t *testing.T) {
	p := simulated.New()
	req := request("sim:tokens=30,ttft=0,gap=0,fail=0.5,error=500", hello)
	whole := text(t, "sim:tokens=30,ttft=0,gap=0", hello)
	for i := range 50 {
		req.Job = fmt.Sprint("job_", i)
		var got strings.Builder
		done := false
		for req.Attempt = 1; !done && req.Attempt < 100; req.Attempt++ {
			prefix := llm.Prefix{Content: got.String()}
			if !p.CanContinue(req, prefix) {
				t.Fatalf("it cannot continue from %q", prefix.Content)
			}
			done = true
			for c, err := range p.Continue(t.Context(), req, prefix) {
				got.WriteString(c.Content)
				done = err == nil
			}
		}
		if got.String() != whole {
			t.Fatalf("put together it said %q, want %q", got.String(), whole)
		}
	}
}

func TestItContinuesFromAnyByteOfWhatItSaidAndFromNothingElse(t *testing.T) {
	p := simulated.New()
	const body = `{"messages":[],"max_tokens":100}`
	req := request("sim:tokens=120,chunk=3,ttft=0,gap=0", body)
	whole := text(t, req.Model, body)
	for at := range len(whole) + 1 {
		prefix := llm.Prefix{Content: whole[:at]}
		if !p.CanContinue(req, prefix) {
			t.Fatalf("it cannot continue from %q", prefix.Content)
		}
		got, last := "", llm.Chunk{}
		for c, err := range p.Continue(t.Context(), req, prefix) {
			if err != nil {
				t.Fatal(err)
			}
			got, last = got+c.Content, c
		}
		if got != whole[at:] || last.FinishReason != "length" || last.Usage == nil || last.Usage.CompletionTokens != 100 {
			t.Fatalf("from byte %d it said %q and %+v, want %q", at, got, last, whole[at:])
		}
	}
	for name, prefix := range map[string]llm.Prefix{
		"another beginning": {Content: "x" + whole[1:]},
		"another end":       {Content: whole[:20] + "~"},
		"more than all":     {Content: whole + " and"},
		"reasoning":         {Content: whole[:20], Reasoning: "hm"},
	} {
		if p.CanContinue(req, prefix) {
			t.Errorf("%s: it says that it can continue", name)
		}
		for c, err := range p.Continue(t.Context(), req, prefix) {
			var f *fault.Error
			if !errors.As(err, &f) || f.Code != fault.Internal {
				t.Errorf("%s: it went on with %+v and %v, want an internal fault", name, c, err)
			}
		}
	}
	for _, bad := range []llm.Request{request("sim:x", body), request("sim", "{")} {
		if p.CanContinue(bad, llm.Prefix{}) {
			t.Errorf("it says that it can continue %s %s", bad.Model, bad.Body)
		}
	}
}
