package simulated_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
	"github.com/penstock-io/penstock/internal/llm/simulated"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hello = `{"model":"sim","messages":[{"role":"user","content":"hello there, model"}]}`

func request(model, body string) llm.Request {
	return llm.Request{Job: "job_1", Attempt: 1, Endpoint: "/v1/chat/completions", Model: model, Body: []byte(body)}
}

// said is a whole call: its chunks' contents, the last chunk and the error.
func said(t *testing.T, req llm.Request) (contents []string, last llm.Chunk, err error) {
	t.Helper()
	for c, e := range simulated.New().Stream(t.Context(), req) {
		if e != nil {
			return contents, last, e
		}
		contents, last = append(contents, c.Content), c
	}
	return contents, last, nil
}

func text(t *testing.T, model, body string) string {
	t.Helper()
	contents, _, err := said(t, request(model, body))
	if err != nil {
		t.Fatalf("%s: %v", model, err)
	}
	return strings.Join(contents, "")
}

func TestConformance(t *testing.T) {
	failure := func(name, model string, code fault.Code) llmtest.Failure {
		return llmtest.Failure{Name: name, Request: request(model, hello), Code: code}
	}
	for _, shape := range []string{"sim", "sim:tokens=90,chunk=7", "sim:tokens=20,ttft=0,gap=0"} {
		t.Run(shape, func(t *testing.T) {
			llmtest.Run(t, func(*testing.T) llm.Provider { return simulated.New() }, llmtest.Options{
				Request: request(shape, hello),
				Slow:    request("sim:tokens=1000,gap=1h", hello),
				Failing: []llmtest.Failure{
					failure("rate limit", "sim:fail=1,error=429", fault.RateLimited),
					failure("broken stream", "sim:tokens=40,error=529", fault.ProviderError),
					failure("timeout", "sim:error=408", fault.ProviderTimeout),
					failure("refused", "sim:error=400", fault.ProviderRejected),
					failure("no such model", "sim:error=404", fault.ModelNotFound),
					failure("wrong option", "sim:tokns=4", fault.InvalidRequest),
					failure("not simulated", "gpt", fault.InvalidRequest),
				},
				Bubble: true,
			})
		})
	}
}

// The text is a promise: a job that was broken off under an older build is
// continued under this one, and must find its prefix again.
func TestWhatASeedSaysNeverChanges(t *testing.T) {
	got := text(t, "sim:tokens=48,ttft=0,gap=0", hello)
	const want = "Every lantern opens one village, and the quiet gate drifts carefully. The quiet lantern " +
		"guides the wheel below the green gate.\n\nThere is one distant river under the engineer, and it " +
		"brightens again. It is the village that mends the deep reservoir, not the keeper. Near the silver."
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTextReadsAsProse(t *testing.T) {
	body := regexp.MustCompile(`^([A-Z][a-z]*(,? [a-z]+)*\.( |\n\n|$))+$`)
	rapid.Check(t, func(rt *rapid.T) {
		tokens := rapid.IntRange(1, 400).Draw(rt, "tokens")
		seed := rapid.Uint64().Draw(rt, "seed")
		got := text(t, fmt.Sprintf("sim:tokens=%d,seed=%d,ttft=0,gap=0", tokens, seed), hello)
		if !body.MatchString(got) {
			rt.Fatalf("not sentences and paragraphs: %q", got)
		}
		if n := len(strings.Fields(got)); n != tokens {
			rt.Fatalf("%d words, want %d: %q", n, tokens, got)
		}
		if tokens == 400 && !strings.Contains(got, "\n\n") {
			rt.Fatalf("400 words and no paragraph: %q", got)
		}
	})
}

func TestATokenIsAWordWithTheSpaceBeforeIt(t *testing.T) {
	contents, last, err := said(t, request("sim:tokens=120,ttft=0,gap=0", hello))
	if err != nil || len(contents) != 120 {
		t.Fatalf("%d chunks and %v, want 120", len(contents), err)
	}
	for i, c := range contents {
		if strings.HasPrefix(c, " ") == (i == 0) && !strings.HasPrefix(c, "\n\n") || len(strings.Fields(c)) != 1 {
			t.Errorf("token %d is %q", i, c)
		}
	}
	want := llm.Chunk{
		Content: contents[119], FinishReason: "stop",
		Usage: &llm.Usage{PromptTokens: 3, CompletionTokens: 120, TotalTokens: 123},
	}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("the last chunk (-want +got)\n%s", diff)
	}
}

func TestChunksHoldAsManyTokensAsAskedFor(t *testing.T) {
	contents, _, _ := said(t, request("sim:tokens=10,chunk=4,ttft=0,gap=0", hello))
	var words []int
	for _, c := range contents {
		words = append(words, len(strings.Fields(c)))
	}
	if diff := cmp.Diff([]int{4, 4, 2}, words); diff != "" {
		t.Errorf("words in each chunk (-want +got)\n%s", diff)
	}
	if a, b := strings.Join(contents, ""), text(t, "sim:tokens=10,ttft=0,gap=0", hello); a != b {
		t.Errorf("in chunks of 4 it says %q, word by word %q", a, b)
	}
}

func TestTheSamePromptSaysTheSameAndAnotherDoesNot(t *testing.T) {
	const model = "sim:ttft=0,gap=0"
	base := text(t, model, hello)
	for name, body := range map[string]string{
		"other layout":  `{ "messages" : [ {"role":"user", "content":"hello there, model"} ], "stream":true}`,
		"other order":   `{"messages":[{"content":"hello there, model","role":"user"}]}`,
		"escapes":       `{"messages":[{"role":"user","content":"\u0068ello there, model"}]}`,
		"other fields":  `{"temperature":1,"messages":[{"role":"user","content":"hello there, model"}],"user":"x"}`,
		"another limit": `{"max_tokens":5000,"messages":[{"role":"user","content":"hello there, model"}]}`,
	} {
		if got := text(t, model, body); got != base {
			t.Errorf("%s: it says %q, want %q", name, got, base)
		}
	}
	for name, body := range map[string]string{
		"another prompt": `{"messages":[{"role":"user","content":"hello there, other"}]}`,
		"another role":   `{"messages":[{"role":"system","content":"hello there, model"}]}`,
		"in two":         `{"messages":[{"role":"user","content":"hello there"},{"role":"user","content":", model"}]}`,
		"the other way":  `{"messages":[{"role":"hello there, model","content":"user"}]}`,
		"none":           `{}`,
	} {
		if got := text(t, model, body); got == base {
			t.Errorf("%s: it says the same", name)
		}
	}
	if text(t, "sim:seed=2,ttft=0,gap=0", hello) == base {
		t.Error("another seed says the same")
	}
}

func TestPromptTokensAreTheWordsOfTheText(t *testing.T) {
	for body, want := range map[string]int{
		`{}`:                 0,
		`{"messages":null}`:  0,
		`{"messages":7}`:     0,
		`{"messages":"a b"}`: 2,
		`{"messages":[{"role":"user","content":" two  words\n"},{"role":"assistant","content":"one"}]}`:                    3,
		`{"messages":[{"content":[{"type":"text","text":"a b c"},{"type":"image_url","image_url":{"url":"data: x y"}}]}]}`: 3,
		`{"messages":[{"content":"esc\u0020aped\ttext"}]}`:                                                                 3,
		`{"prompt":["a b","c"]}`:                       3,
		`{"input":"a b","instructions":"c d e"}`:       5,
		`{"system":"x","messages":[{"content":"y"}]}`:  2,
		`{"metadata":{"content":"not a prompt"}}`:      0,
		`{"messages":[{"content":null,"name":"x y"}]}`: 0,
	} {
		_, last, err := said(t, request("sim:tokens=1,ttft=0,gap=0", body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if last.Usage.PromptTokens != want {
			t.Errorf("%s: %d prompt tokens, want %d", body, last.Usage.PromptTokens, want)
		}
	}
}

func TestTheBodysLimitCutsTheAnswerShort(t *testing.T) {
	const model = "sim:tokens=30,ttft=0,gap=0"
	whole := text(t, model, `{}`)
	for _, c := range []struct {
		body   string
		tokens int
		reason string
	}{
		{`{"max_tokens":0.7e1}`, 7, "length"},
		{`{"max_completion_tokens":1}`, 1, "length"},
		{`{"max_output_tokens":29}`, 29, "length"},
		{`{"max_tokens":9,"max_completion_tokens":4}`, 4, "length"},
		{`{"max_tokens":4,"max_completion_tokens":9}`, 4, "length"},
		{`{"max_tokens":30}`, 30, "stop"},
		{`{"max_tokens":31}`, 30, "stop"},
		{`{"max_tokens":null}`, 30, "stop"},
	} {
		contents, last, err := said(t, request(model, c.body))
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		if len(contents) != c.tokens || last.FinishReason != c.reason || last.Usage.CompletionTokens != c.tokens {
			t.Errorf("%s: %d tokens, %q, %+v; want %d and %q", c.body, len(contents), last.FinishReason, last.Usage, c.tokens, c.reason)
		}
		if got := strings.Join(contents, ""); !strings.HasPrefix(whole, got) {
			t.Errorf("%s: %q does not begin %q", c.body, got, whole)
		}
	}
}

func TestABadBodyIsAFaultThatSaysSo(t *testing.T) {
	for body, want := range map[string]fault.Code{
		``:                                    fault.InvalidJSON,
		`[]`:                                  fault.InvalidJSON,
		`"x"`:                                 fault.InvalidJSON,
		`{`:                                   fault.InvalidJSON,
		`{"messages"`:                         fault.InvalidJSON,
		`{"messages":[{`:                      fault.InvalidJSON,
		`{"messages":[}`:                      fault.InvalidJSON,
		`{"messages":["` + "\xff":             fault.InvalidJSON,
		`{"messages":[nul]}`:                  fault.InvalidJSON,
		`{"x":tru}`:                           fault.InvalidJSON,
		`{"max_tokens":}`:                     fault.InvalidJSON,
		`{"max_tokens":0}`:                    fault.InvalidRequest,
		`{"max_tokens":-1}`:                   fault.InvalidRequest,
		`{"max_tokens":1.5}`:                  fault.InvalidRequest,
		`{"max_tokens":"9"}`:                  fault.InvalidRequest,
		`{"max_tokens":[9]}`:                  fault.InvalidRequest,
		`{"max_tokens":99999999999999999999}`: fault.InvalidRequest,
	} {
		_, _, err := said(t, request("sim", body))
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		} else if want == fault.InvalidRequest && f.Param != "max_tokens" {
			t.Errorf("%s: the fault names %q", body, f.Param)
		}
	}
}

func TestABadNameIsAFaultThatSaysWhatWouldBeRight(t *testing.T) {
	for model, want := range map[string]string{
		"":                                 "not a simulated one",
		"simulated":                        "not a simulated one",
		"tokens=3":                         "not a simulated one",
		"sim:":                             `no option ""`,
		"sim:tokens":                       "from 0 to 1000000",
		"sim:tokens=":                      "from 0 to 1000000",
		"sim:tokens=-1":                    "from 0 to 1000000",
		"sim:tokens=1000001":               "from 0 to 1000000",
		"sim:tokens=1,":                    `no option ""`,
		"sim:tokens=1,tokens=1":            "twice",
		"sim:chunk=0":                      "from 1 to",
		"sim:ttft=5":                       "such as 50ms",
		"sim:ttft=-1ms":                    "such as 50ms",
		"sim:gap=2h":                       "such as 20ms",
		"sim:seed=-1":                      "0 or more",
		"sim:fail=1.1":                     "probability",
		"sim:fail=NaN":                     "probability",
		"sim:fail=-0.1":                    "probability",
		"sim:error=200":                    "from 400 to 599",
		"sim:error=600":                    "from 400 to 599",
		"sim:speed=9":                      "the options are tokens, ttft",
		"sim:" + strings.Repeat("x", 9999): "the options are",
	} {
		_, _, err := said(t, request(model, `{}`))
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != fault.InvalidRequest || f.Param != "model" {
			t.Errorf("%.40s: %v, want an invalid_request of model", model, err)
			continue
		}
		if !strings.Contains(f.Message, want) || len(f.Message) > 400 {
			t.Errorf("%.40s: it says %q, want it to speak of %q", model, f.Message, want)
		}
	}
}

func TestNoTokensIsAnEmptyAnswerAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		contents, last, err := said(t, request("sim:tokens=0,ttft=1h", hello))
		if err != nil || time.Since(began) != 0 {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		want := llm.Chunk{FinishReason: "stop", Usage: &llm.Usage{PromptTokens: 3, TotalTokens: 3}}
		if diff := cmp.Diff(want, last); diff != "" || len(contents) != 1 {
			t.Errorf("%d chunks (-want +got)\n%s", len(contents), diff)
		}
	})
}

func TestThePaceIsWhatTheNameAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for model, want := range map[string][]time.Duration{
			"sim:tokens=3":                         {50, 70, 90},
			"sim:tokens=5,chunk=2,ttft=1s,gap=3ms": {1000, 1003, 1006},
			"sim:tokens=2,ttft=0,gap=5ms":          {0, 5},
			"sim:tokens=2,ttft=5ms,gap=0":          {5, 5},
		} {
			began := time.Now()
			var got []time.Duration
			for _, err := range simulated.New().Stream(t.Context(), request(model, hello)) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, time.Since(began)/time.Millisecond)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: milliseconds of each chunk (-want +got)\n%s", model, diff)
			}
		}
	})
}

func TestWhatIsLateIsCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, n := time.Now(), 0
		for _, err := range simulated.New().Stream(t.Context(), request("sim:tokens=10,ttft=0s,gap=20ms", hello)) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 3 { // who listens takes five chunks' time for one
				<-time.After(100 * time.Millisecond)
			}
			if want := time.Duration(max(20*(n-1), 140)) * time.Millisecond; n >= 3 && time.Since(began) != want {
				t.Errorf("chunk %d is there after %v, want %v", n, time.Since(began), want)
			}
		}
	})
}

func TestADeadlineEndsTheWaitAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		for _, err := range simulated.New().Stream(ctx, request("sim:ttft=1h", hello)) {
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
				t.Errorf("%v after %v, want the deadline after 5s", err, time.Since(began))
			}
		}
	})
}

func TestItKnowsItsNames(t *testing.T) {
	p := simulated.New()
	for model, want := range map[string]bool{
		"sim": true, "sim:tokens=1": true, "sim:nonsense": true,
		"": false, "simple": false, "sim/tokens=1": false, "Sim": false, "openai/sim": false,
	} {
		if p.HasModel(model) != want {
			t.Errorf("HasModel(%q) is %v", model, !want)
		}
	}
	if diff := cmp.Diff([]string{p.Name()}, p.BareNames()); diff != "" {
		t.Error(diff)
	}
}
