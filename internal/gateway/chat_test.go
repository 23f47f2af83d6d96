package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

func TestAChatStreamIsDataLinesAndNothingElse(t *testing.T) {
	d := newDesk()
	onBoth(t, Config{Intake: d}, func(g *ground) {
		chatGround(t, g, d)
		r := g.chat(`,"stream":true,"stream_options":{"include_usage":true}`)
		a := <-d.jobs
		a.started()
		for _, text := range []string{"Hello", " there"} {
			a.say(text)
		}
		a.write(event.OutputToolResult, event.ToolResult{CallID: "c", Content: "no part of the answer"})
		a.write(event.OutputCompleted, event.Completed{
			Model: "sim", Choices: []event.Choice{{FinishReason: "stop"}}, Usage: &event.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3},
		})
		got := r.text(http.StatusOK)
		id, _ := job.ParseID(a.head.Job)
		opening := `data: {"id":"chatcmpl-` + strings.TrimPrefix(a.head.Job, "job_") + `","object":"chat.completion.chunk","created":` +
			strconv.FormatInt(id.Time.Unix(), 10) + `,"model":"sim",`
		want := opening + `"choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}` + "\n\n" +
			opening + `"choices":[{"index":0,"delta":{"content":" there"},"finish_reason":null}]}` + "\n\n" +
			opening + `"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n" +
			opening + `"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}` + "\n\n" +
			"data: [DONE]\n\n"
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		h := r.resp.Header
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", "Cache-Control": "no-store", "X-Penstock-Job": a.head.Job,
		} {
			if h.Get(name) != want {
				t.Errorf("%s is %q, want %q", name, h.Get(name), want)
			}
		}
		if h.Get("X-Request-Id") == "" {
			t.Error("it has no x-request-id")
		}
		if all := g.open("/v1/jobs/" + job.ChatID(a.head.Job) + "/events").rest(); len(all) != 5 {
			t.Errorf("followed by the chat's id the job has %d events, want 5", len(all))
		}
	})
}

func TestAChatStreamHasWhatItsEndSays(t *testing.T) {
	g, d := onDesk(t, Config{})
	r := g.chat(`,"stream":true`)
	a := <-d.jobs
	a.write(event.OutputCompleted, event.Completed{
		Model: "sim", Choices: []event.Choice{{FinishReason: "stop"}},
		Deltas: []event.Delta{{Content: "Hel"}, {Content: "lo", Logprobs: jsontext.Value(`{"content":[]}`)}},
	})
	got := r.text(http.StatusOK)
	for _, want := range []string{`"delta":{"role":"assistant","content":"Hel"}`, `"delta":{"content":"lo"},"logprobs":{"content":[]}`, `"finish_reason":"stop"`, "data: [DONE]"} {
		if !strings.Contains(got, want) {
			t.Errorf("it has no %s:\n%s", want, got)
		}
	}
}

func TestABodyGoesIntoTheJobAsItCame(t *testing.T) {
	g, d := onDesk(t, Config{})
	d.begin = func(a *author) { a.whole(1) }
	const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	body := `{"odd": [1.10], "model":"sim","service_tier":"flex",` + hello + `}`
	g.ask(chatEndpoint, " "+body+"\n", "Traceparent", traceparent).text(http.StatusOK)
	in, opts := d.in[0], d.opts[0]
	if string(in.Body) != body || in.Lane != event.Batch || in.Endpoint != chatEndpoint || opts.Traceparent != traceparent || opts.IdempotencyKey != "" {
		t.Errorf("it was taken in as %+v with %+v", in, opts)
	}
}

func TestAFailureBeforeTheFirstTokenIsAnErrorAnswer(t *testing.T) {
	t.Parallel()
	// Were there pings, or headers before the first token, it would be too late.
	g, d := onDesk(t, Config{Heartbeat: time.Millisecond})
	for _, rest := range []string{`,"stream":true`, ``} {
		for _, code := range []fault.Code{
			fault.RateLimited, fault.ProviderRejected, fault.ModelNotFound, fault.ProviderError, fault.ProviderTimeout,
			fault.DeadlineExceeded, fault.Expired, fault.Internal, fault.InvalidRequest,
		} {
			r := g.chat(rest)
			a := <-d.jobs
			a.started()
			a.watched()
			a.fail(code)
			kind := fault.KindOf(code)
			got, want := r.text(kind.Status), fmt.Sprintf(`{"error":{"message":"it went wrong","type":%q,"param":null,"code":%q}}`, kind.Type, code)
			if got != want {
				t.Errorf("%s: got %s, want %s", code, got, want)
			}
			h := r.resp.Header
			if h.Get("X-Should-Retry") != strconv.FormatBool(kind.Retry) || h.Get("Content-Type") != "application/json" || h.Get("X-Penstock-Job") != a.head.Job {
				t.Errorf("%s: its head is %v", code, h)
			}
		}
		r := g.chat(rest)
		a := <-d.jobs
		a.write(event.OutputCancelled, struct{}{})
		if got := r.text(499); !strings.Contains(got, `"code":"cancelled"`) {
			t.Errorf("cancelled: %s", got)
		}
	}
}

func TestAFailureInTheMiddleIsTheLastChunk(t *testing.T) {
	g, d := onDesk(t, Config{})
	for name, end := range map[string]func(a *author){
		`"code":"rate_limited"}}`:       func(a *author) { a.fail(fault.RateLimited) },
		`"code":"cancelled"}}`:          func(a *author) { a.write(event.OutputCancelled, struct{}{}) },
		`"code":"attempt_superseded"}}`: func(a *author) { a.write(event.OutputSuperseded, event.Superseded{Reason: "lost"}) },
		`"code":"unavailable"}}`:        func(a *author) { a.head.Seq++; a.say("after a hole") },
		`"code":"internal_error"}}`:     func(a *author) { a.write(event.OutputDelta, event.Delta{Index: 4711, Content: "x"}) },
	} {
		r := g.chat(`,"stream":true`)
		a := <-d.jobs
		a.started()
		a.say("begun")
		r.head(http.StatusOK)
		head := r.lines("begun")
		end(a)
		all := head + r.text(http.StatusOK)
		last := strings.Split(strings.TrimSuffix(all, "\n\n"), "\n\n")
		if !strings.HasPrefix(last[len(last)-1], `data: {"error":{"message":"`) || !strings.HasSuffix(all, name+"\n\n") || strings.Contains(all, "DONE") {
			t.Errorf("%s: got\n%s", name, all)
		}
	}
}

func TestASupersededAttemptOfWhichNothingWasSentIsNotSeen(t *testing.T) {
	g, d := onDesk(t, Config{})
	for _, rest := range []string{`,"stream":true`, ``} {
		d.begin = func(a *author) { // all at once, so that nothing is sent before the rest is there
			recs := []event.Record{
				a.next(event.OutputStarted, event.Started{Model: "sim"}),
				a.next(event.OutputDelta, event.Delta{Content: "wrong "}),
				a.next(event.OutputSuperseded, event.Superseded{Reason: "lost"}),
			}
			a.head.Attempt++
			recs = append(recs,
				a.next(event.OutputStarted, event.Started{Model: "other"}),
				a.next(event.OutputDelta, event.Delta{Content: "right"}),
				a.next(event.OutputCompleted, event.Completed{Model: "other", Choices: []event.Choice{{FinishReason: "stop"}}}))
			a.g.append(recs...)
		}
		got := g.chat(rest).text(http.StatusOK)
		if said(got) != "right" || !strings.Contains(got, `"role":"assistant"`) || !strings.Contains(got, `"model":"other"`) {
			t.Errorf("got\n%s", got)
		}
	}
}

func TestCommentsComeAfterSilenceAndOnlyBehindTheFirstToken(t *testing.T) {
	g, d := onDesk(t, Config{Heartbeat: 20 * time.Millisecond})
	r := g.chat(`,"stream":true`)
	a := <-d.jobs
	a.started()
	a.watched()
	a.say("one")
	r.head(http.StatusOK)
	head := r.lines("\n\n:\n\n:\n\n")
	a.complete()
	if !strings.HasPrefix(head, "data: {") || !strings.HasSuffix(r.text(http.StatusOK), "data: [DONE]\n\n") {
		t.Errorf("the stream begins with\n%s", head)
	}
}

func TestAnAnswerIsWhole(t *testing.T) { //nolint:tparallel // on one broker after the other
	t.Parallel()
	d := newDesk()
	onBoth(t, Config{Intake: d, BudgetBytes: 1}, func(g *ground) { // read from Kafka, for nothing stays in memory
		chatGround(t, g, d)
		r := g.chat(`,"n":2`)
		a := <-d.jobs
		a.started()
		a.say("Hel")
		a.watched()
		a.write(event.OutputDelta, event.Delta{Index: 1, ToolCalls: jsontext.Value(`[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\""}}]`)})
		a.write(event.OutputDelta, event.Delta{Reasoning: "hm"})
		a.write(event.OutputDelta, event.Delta{Index: 1, ToolCalls: jsontext.Value(`[{"index":0,"function":{"arguments":":1}"}}]`)})
		a.say("lo")
		a.write(event.OutputCompleted, event.Completed{
			Model: "sim", Choices: []event.Choice{{FinishReason: "length"}, {Index: 1, FinishReason: "tool_calls"}},
			Usage: &event.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3, CompletionTokensDetails: jsontext.Value(`{"reasoning_tokens":1}`)},
		})
		id, _ := job.ParseID(a.head.Job)
		want := fmt.Sprintf(`{"id":%q,"object":"chat.completion","created":%d,"model":"sim","choices":[`+
			`{"index":0,"message":{"role":"assistant","content":"Hello","reasoning_content":"hm","refusal":null},"logprobs":null,"finish_reason":"length"},`+
			`{"index":1,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],`+
			`"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"completion_tokens_details":{"reasoning_tokens":1}}}`,
			job.ChatID(a.head.Job), id.Time.Unix())
		if got := r.text(http.StatusOK); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestAnAnswerOfWhichTheLogLostAPartIsNotGiven(t *testing.T) {
	g, d := onDesk(t, Config{})
	d.begin = func(a *author) {
		a.started()
		a.head.Seq++
		a.complete()
	}
	if got := g.chat(``).text(http.StatusServiceUnavailable); !strings.Contains(got, `"code":"unavailable"`) || !strings.Contains(got, "/v1/jobs/job_") {
		t.Errorf("got %s", got)
	}
	d.begin = func(a *author) {
		a.started()
		a.write(event.OutputDelta, event.Delta{Index: 4711})
		a.complete()
	}
	if got := g.chat(``).text(http.StatusInternalServerError); !strings.Contains(got, `"code":"internal_error"`) {
		t.Errorf("got %s", got)
	}
}

func TestTheSameKeyIsTheSameAnswerFromItsBeginning(t *testing.T) {
	g, d := onDesk(t, Config{})
	d.begin = func(a *author) {
		a.request(event.Interactive)
		a.whole(3)
	}
	first := g.chat(`,"stream":true`, "Idempotency-Key", "k1").text(http.StatusOK)
	again := g.chat(`,"stream":true`, "Idempotency-Key", "k1").text(http.StatusOK)
	if first != again || said(first) != "0 1 2 " {
		t.Errorf("first\n%s\nthen\n%s", first, again)
	}
	if got := g.chat(``, "Idempotency-Key", "k1").text(http.StatusOK); said(got) != "0 1 2 " {
		t.Errorf("as a whole it is %s", got)
	}
	if o := d.opts[0]; o.IdempotencyKey != "k1" || !strings.HasPrefix(string(o.Fingerprint), "/v1/chat/completions\n{") {
		t.Errorf("it was taken in with %+v", o)
	}
	if got := g.chat(``, "Idempotency-Key", "").text(http.StatusBadRequest); !strings.Contains(got, `"param":"Idempotency-Key"`) {
		t.Errorf("an empty key: %s", got)
	}
	if got := g.chat(``, "Idempotency-Key", "lost").text(http.StatusOK); said(got) != "0 1 2 " {
		t.Errorf("got %s", got)
	}
	d.keys["lost"] = &job.Resource{ID: g.author().head.Job} // of which nobody knows
	for _, rest := range []string{`,"stream":true`, ``} {
		if got := g.chat(rest, "Idempotency-Key", "lost").text(http.StatusNotFound); !strings.Contains(got, `"code":"not_found"`) {
			t.Errorf("a job that is nowhere: %s", got)
		}
	}
}

func TestWhatTheIntakeRefusesNamesTheFieldAsTheClientWroteIt(t *testing.T) {
	g, d := onDesk(t, Config{})
	d.err = &fault.Error{Code: fault.ModelNotFound, Message: "body.model: nobody serves it", Param: "body.model"}
	got := g.chat(`,"stream":true`).text(http.StatusNotFound)
	if want := `{"error":{"message":"model: nobody serves it","type":"invalid_request_error","param":"model","code":"model_not_found"}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	d.err = &fault.Error{Code: fault.Overloaded, Message: "full", RetryAfter: 1500 * time.Millisecond}
	for _, path := range []string{chatEndpoint, embeddingsEndpoint} {
		r := g.ask(path, `{"model":"sim","input":"x",`+hello+`}`)
		h := r.head(http.StatusTooManyRequests)
		if h.Get("Retry-After") != "2" || h.Get("Retry-After-Ms") != "1500" || h.Get("X-Should-Retry") != "true" || h.Get("X-Penstock-Job") != "" {
			t.Errorf("%s: its head is %v", path, h)
		}
	}
}

func TestABadRequestMakesNoJob(t *testing.T) {
	g, d := onDesk(t, Config{})
	big := `{"model":"` + strings.Repeat("x", 5<<20) + `"}`
	for _, path := range []string{chatEndpoint, embeddingsEndpoint} {
		for body, status := range map[string]int{`{"model":"sim"}`: 400, `{`: 400, ``: 400, big: 413} {
			if got := g.ask(path, body).text(status); !strings.HasPrefix(got, `{"error":{"message":"`) {
				t.Errorf("%s: %.80s: %s", path, body, got)
			}
		}
		if got := g.ask(path, `{}`, "Content-Type", "text/plain").text(415); !strings.Contains(got, `"code":"unsupported_media"`) {
			t.Errorf("%s: %s", path, got)
		}
	}
	if len(d.in) > 0 {
		t.Errorf("%d requests were taken in", len(d.in))
	}
}
