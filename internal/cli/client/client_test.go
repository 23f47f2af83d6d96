package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Settled(m)) }

// serve starts a server and a client of it that loses no time.
func serve(t *testing.T, h http.HandlerFunc, change ...func(*Config)) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	cfg := Config{Server: srv.URL, Backoff: time.Millisecond, Tries: 4}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

const completed = `{"object":"job","id":"job_1","status":"completed","links":{"self":"","events":"","cancel":""}}`

func refuse(w http.ResponseWriter, status int, code fault.Code) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"error":{"message":"no","type":"x","param":"body.model","code":%q}}`, code)
}

func TestSubmitTriesAgainUnderTheSameKey(t *testing.T) {
	t.Parallel()
	var keys []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		keys = append(keys, r.Header.Get("Idempotency-Key")+" "+string(body)+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Content-Type"))
		switch len(keys) {
		case 1:
			w.Header().Set("Retry-After-Ms", "20")
			refuse(w, 429, fault.Overloaded)
		case 2:
			w.Header().Set("X-Should-Retry", "true")
			refuse(w, 500, fault.Internal)
		default:
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, completed)
		}
	}, func(c *Config) { c.Key = "secret" })
	began := time.Now()
	j, err := c.Submit(t.Context(), []byte("{}"), "run-1")
	if err != nil || j.ID != "job_1" || j.Status != job.Completed || string(j.Raw) != completed {
		t.Fatalf("Submit: %+v, %v", j, err)
	}
	if took := time.Since(began); took < 20*time.Millisecond {
		t.Errorf("it came back after %v, before Retry-After", took)
	}
	if want := slices.Repeat([]string{"run-1 {} Bearer secret application/json"}, 3); !slices.Equal(keys, want) {
		t.Errorf("the requests were %q, want %q", keys, want)
	}
}

func TestARequestIsTriedAsOftenAsItMayHelp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		should string
		tries  int32
	}{
		"wrong":                    {400, "", 1},
		"unavailable":              {503, "", 4},
		"unavailable for good":     {503, "false", 1},
		"a proxy's":                {502, "", 4},
		"a timeout":                {504, "", 4},
		"a defect":                 {500, "", 1},
		"a defect that may mend":   {500, "true", 4},
		"too many, and no more so": {429, "false", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int32
			cl := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				tries.Add(1)
				if c.should != "" {
					w.Header().Set("X-Should-Retry", c.should)
				}
				refuse(w, c.status, fault.ModelNotFound)
			})
			_, err := cl.Get(t.Context(), "job_1", 0)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Status != c.status || e.Fault.Param != "body.model" || err.Error() != "no (model_not_found)" {
				t.Fatalf("the error is %v", err)
			}
			if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != fault.ModelNotFound {
				t.Errorf("it holds no fault: %v", err)
			}
			if n := tries.Load(); n != c.tries {
				t.Errorf("it was tried %d times, want %d", n, c.tries)
			}
		})
	}
}

func TestAFullLaneIsWaitedForAndNotForEver(t *testing.T) {
	t.Parallel()
	var asked, told atomic.Int32
	full := func(room int32, patience time.Duration) *Client { // for so many tries
		asked.Store(0)
		return serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) <= room {
				w.Header().Set("Retry-After-Ms", "10")
				refuse(w, 429, fault.Overloaded)
				return
			}
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, completed)
		}, func(c *Config) { c.Patience, c.Full = patience, func() { told.Add(1) } })
	}
	const room = 20
	if _, err := full(room, time.Minute).Submit(t.Context(), []byte("{}"), "k"); err != nil || asked.Load() != room+1 || told.Load() != room {
		t.Errorf("asked %d times, told %d times: %v", asked.Load(), told.Load(), err)
	}
	_, err := full(1000, 300*time.Millisecond).Submit(t.Context(), []byte("{}"), "k")
	if e, ok := errors.AsType[*Error](err); !ok || e.Fault.Code != fault.Overloaded || !strings.Contains(err.Error(), "longer than 300ms") {
		t.Errorf("a lane that stays full: %v", err)
	}
	if n := asked.Load(); n > 31 {
		t.Errorf("it was asked %d times", n)
	}
}

func TestAnAnswerThatIsNotPenstocksIsTold(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/jobs" {
			_, _ = io.WriteString(w, `[]`)
			return
		}
		if r.URL.Path == "/v1/jobs/a b" {
			_, _ = io.WriteString(w, `<html>`)
			return
		}
		http.Error(w, "<h1>teapot</h1>", http.StatusTeapot)
	})
	if _, err := c.Get(t.Context(), "x", 0); err == nil || !strings.Contains(err.Error(), "418") || !strings.Contains(err.Error(), "teapot") {
		t.Errorf("an error of another server: %v", err)
	}
	if _, err := c.Get(t.Context(), "a b", 0); err == nil || !strings.Contains(err.Error(), "is it a Penstock?") {
		t.Errorf("a page: %v", err)
	}
	if _, err := c.List(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "list of jobs") {
		t.Errorf("no list: %v", err)
	}
	if _, err := c.Submit(t.Context(), nil, "k"); err == nil {
		t.Error("no job: no error")
	}
}

func TestListGivesThePage(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("status") != "completed" {
			t.Errorf("the query is %s", r.URL.RawQuery)
		}
		if r.URL.Query().Get("after") != "" {
			_, _ = io.WriteString(w, `{"data":[{}]}`)
			return
		}
		_, _ = io.WriteString(w, `{"object":"list","data":[`+completed+`],"has_more":true}`)
	})
	page, err := c.List(t.Context(), url.Values{"status": {"completed"}})
	if err != nil || len(page.Jobs) != 1 || page.Jobs[0].ID != "job_1" || !page.HasMore || len(page.Raw) == 0 {
		t.Errorf("List: %+v, %v", page, err)
	}
	if _, err := c.List(t.Context(), url.Values{"status": {"completed"}, "after": {"x"}}); err == nil {
		t.Error("a list of what is no job: no error")
	}
}

func TestAwaitAsksUntilTheEnd(t *testing.T) {
	t.Parallel()
	asked := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("wait") != "60s" {
			t.Errorf("the query is %s", r.URL.RawQuery)
		}
		if asked++; asked < 3 {
			_, _ = io.WriteString(w, strings.Replace(completed, "completed", "running", 1))
			return
		}
		_, _ = io.WriteString(w, completed)
	})
	j, err := c.Await(t.Context(), "job_1")
	if err != nil || j.Status != job.Completed || asked != 3 {
		t.Errorf("Await: %+v, %v after %d questions", j, err, asked)
	}
}

func TestWhoeverWasNeverThereIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(nil)
	srv.Close()
	c, err := New(Config{Server: srv.URL, Backoff: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Get(t.Context(), "x", 0); !errors.Is(err, ErrUnreachable) || strings.Count(err.Error(), srv.URL) != 1 {
		t.Errorf("Get: %v, want that nobody answers, and where, once", err)
	}
}

func TestWhoeverWasThereIsWaitedFor(t *testing.T) {
	t.Parallel()
	asked := 0
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 2 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, completed)
	})
	for range 2 {
		if _, err := c.Get(t.Context(), "x", 0); err != nil {
			t.Fatal(err)
		}
	}
	// The transport itself repeats a GET whose kept connection was closed.
	if asked != 3 {
		t.Errorf("it was asked %d times, want 3", asked)
	}
}

func TestACancelledCallEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		refuse(w, 503, fault.Unavailable)
	}, func(c *Config) { c.Backoff = time.Hour })
	if _, err := c.Get(ctx, "x", 0); err == nil {
		t.Error("no error")
	}
	if _, err := c.Get(ctx, "x", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a call after the end: %v", err)
	}
	if err := pause(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a pause after the end: %v", err)
	}
}

func TestNewRefusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"", "localhost:8080", "ftp://x", "http://", "http://a b"} {
		if _, err := New(Config{Server: server}); err == nil || !strings.Contains(err.Error(), "must be a URL") {
			t.Errorf("New(%q): %v", server, err)
		}
	}
}

func TestDelayDoublesUpToABound(t *testing.T) {
	t.Parallel()
	c := &Client{cfg: Config{Backoff: time.Second}}
	for try, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: maxBackoff, 100: maxBackoff} {
		if got := c.delay(ErrUnreachable, try); got != want {
			t.Errorf("delay %d is %v, want %v", try, got, want)
		}
	}
	if got := c.delay(&Error{After: 7 * time.Second}, 1); got != 7*time.Second {
		t.Errorf("a Retry-After of 7 s becomes %v", got)
	}
	if got := c.delay(&Error{After: time.Hour}, 1); got != maxRetryAfter {
		t.Errorf("a Retry-After of an hour becomes %v", got)
	}
	if got := retryAfter(http.Header{"Retry-After": {"3"}}); got != 3*time.Second {
		t.Errorf("Retry-After: 3 is %v", got)
	}
}

// local is serve for a property.
func local(t interface{ Fatal(...any) }, h http.HandlerFunc) (c *Client, closeAll func()) {
	srv := httptest.NewServer(h)
	c, err := New(Config{Server: srv.URL, Backoff: time.Microsecond, Tries: 4})
	if err != nil {
		t.Fatal(err)
	}
	return c, func() { c.Close(); srv.Close() }
}
