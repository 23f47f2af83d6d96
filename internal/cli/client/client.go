// Package client speaks to a Penstock server over HTTP, for the commands: it
// submits jobs, asks about them and follows their events, tries again where that
// may help, and takes a stream up where it was cut.
//
// It starts no goroutine that outlives a call; Close ends idle connections.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

const (
	defaultTries   = 8
	defaultBackoff = 250 * time.Millisecond
	maxBackoff     = 5 * time.Second
	// maxRetryAfter bounds how long a server's Retry-After is heeded.
	maxRetryAfter = time.Minute
	// answerPatience is how long an answer's head may take beyond what was asked
	// to be waited for.
	answerPatience = 30 * time.Second
	// maxAnswer bounds an answer that is held in memory, in bytes.
	maxAnswer = 64 << 20
	// conns bounds idle connections that are kept.
	conns = 64
)

// ErrUnreachable says that nobody answers at the server's address.
var ErrUnreachable = errors.New("no server answers")

// Error is an answer that is an error.
type Error struct {
	Status int           // HTTP
	Retry  bool          // whether the same request may succeed later
	After  time.Duration // how long to wait before that, at least; 0: not told
	Fault  *fault.Error
	Raw    jsontext.Value // the error object; nil where the answer was not ours
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s (%s)", e.Fault.Message, e.Fault.Code) }

// Unwrap gives the fault.
func (e *Error) Unwrap() error { return e.Fault }

// Config says which server to speak to, and how.
type Config struct {
	Server    string        // such as http://127.0.0.1:8080
	Key       string        // API key; "" for none
	Tries     int           // of one request; default 8
	Backoff   time.Duration // before the second try; doubles; default 250 ms
	Silence   time.Duration // after which a stream is held for cut; default 45 s
	UserAgent string        // default "penstock"
	// Patience is how long, in all, one request waits for a server that has no
	// room for it (fault overloaded); such waits are no tries. 0: as any other
	// refusal.
	Patience time.Duration
	Full     func() // told of each such wait; nil tells nobody
}

// Client speaks to one server. Its methods may be called from many goroutines.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
	// met tells that the server has answered once: what is away from then on is
	// waited for; what never was there is most likely a wrong address.
	met atomic.Bool
}

// New makes a Client.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.Server)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("server: %q is no address: it must be a URL such as http://127.0.0.1:8080", cfg.Server)
	}
	if cfg.Tries <= 0 {
		cfg.Tries = defaultTries
	}
	if cfg.Backoff <= 0 {
		cfg.Backoff = defaultBackoff
	}
	if cfg.Silence <= 0 {
		cfg.Silence = defaultSilence
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "penstock"
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: conns, IdleConnTimeout: time.Minute}
	return &Client{cfg: cfg, base: base, http: &http.Client{Transport: transport}}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Job is a job as the server shows it.
type Job struct {
	job.Resource
	Raw jsontext.Value // as it came
}

// Submit submits a job: body is that of POST /v1/jobs. key makes it the same job
// however often it is sent; it must not be empty.
func (c *Client) Submit(ctx context.Context, body []byte, key string) (*Job, error) {
	raw, err := c.ask(ctx, request{method: http.MethodPost, path: "/v1/jobs", body: body, key: key})
	if err != nil {
		return nil, err
	}
	return decodeJob(raw)
}

// Get asks for a job, and waits up to wait for its end.
func (c *Client) Get(ctx context.Context, id string, wait time.Duration) (*Job, error) {
	q := url.Values{}
	if wait > 0 {
		q.Set("wait", strconv.FormatFloat(wait.Seconds(), 'f', -1, 64)+"s")
	}
	raw, err := c.ask(ctx, request{method: http.MethodGet, path: jobPath(id), query: q, wait: wait})
	if err != nil {
		return nil, err
	}
	return decodeJob(raw)
}

// Cancel asks for a job to be stopped, and returns it as it stood.
func (c *Client) Cancel(ctx context.Context, id string) (*Job, error) {
	raw, err := c.ask(ctx, request{method: http.MethodPost, path: jobPath(id) + "/cancel"})
	if err != nil {
		return nil, err
	}
	return decodeJob(raw)
}

// Retry submits the request of a job that has ended once more, as a new job, and
// returns that. key makes it the same job however often it is sent.
func (c *Client) Retry(ctx context.Context, id, key string) (*Job, error) {
	raw, err := c.ask(ctx, request{method: http.MethodPost, path: jobPath(id) + "/retry", key: key})
	if err != nil {
		return nil, err
	}
	return decodeJob(raw)
}

// maxWait is the longest wait that one request may ask for.
const maxWait = 60 * time.Second

// Await asks for a job until it has ended.
func (c *Client) Await(ctx context.Context, id string) (*Job, error) {
	for {
		j, err := c.Get(ctx, id, maxWait)
		if err != nil || j.Status.Ended() {
			return j, err
		}
		// A server that stops answers at once: it is not to be asked in a circle.
		if err := pause(ctx, c.cfg.Backoff); err != nil {
			return nil, err
		}
	}
}

// Page is a page of a list.
type Page struct {
	Jobs    []Job
	HasMore bool
	Raw     jsontext.Value // the whole answer
}

// List asks for a page of jobs; query is that of GET /v1/jobs.
func (c *Client) List(ctx context.Context, query url.Values) (*Page, error) {
	raw, err := c.ask(ctx, request{method: http.MethodGet, path: "/v1/jobs", query: query})
	if err != nil {
		return nil, err
	}
	var list struct {
		Data    []jsontext.Value `json:"data"`
		HasMore bool             `json:"has_more"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("read the list of jobs: %w", err)
	}
	page := &Page{HasMore: list.HasMore, Raw: raw}
	for _, one := range list.Data {
		j, err := decodeJob(one)
		if err != nil {
			return nil, err
		}
		page.Jobs = append(page.Jobs, *j)
	}
	return page, nil
}

func decodeJob(raw jsontext.Value) (*Job, error) {
	j := &Job{Raw: raw}
	if err := json.Unmarshal(raw, &j.Resource); err != nil || j.ID == "" {
		return nil, errors.Join(errors.New("the server's answer is no job: is it a Penstock?"), err)
	}
	return j, nil
}

func jobPath(id string) string { return "/v1/jobs/" + url.PathEscape(id) }

// request is one request, which may be sent more than once.
type request struct {
	method, path string
	query        url.Values
	body         []byte
	key          string        // idempotency
	lastEvent    string        // where a stream is taken up
	stream       bool          // the answer is SSE
	wait         time.Duration // that the server was asked to wait
}

// ask sends a request and reads the whole answer.
func (c *Client) ask(ctx context.Context, r request) (jsontext.Value, error) {
	waited := time.Duration(0) // for room
	for try := 1; ; {
		raw, err := c.askOnce(ctx, r)
		if err == nil || !c.again(err) || ctx.Err() != nil {
			return raw, err
		}
		d := c.delay(err, try)
		switch {
		case c.cfg.Patience > 0 && full(err):
			if waited += d; waited > c.cfg.Patience {
				return nil, fmt.Errorf("%w; it was not waited for longer than %s", err, c.cfg.Patience)
			}
			if c.cfg.Full != nil {
				c.cfg.Full()
			}
		case try >= c.cfg.Tries:
			return nil, err
		default:
			try++
		}
		if err := pause(ctx, d); err != nil {
			return nil, err
		}
	}
}

// full tells whether the server has no room.
func full(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusTooManyRequests && e.Fault.Code == fault.Overloaded
}

func (c *Client) askOnce(ctx context.Context, r request) (jsontext.Value, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.wait+answerPatience, errSilence)
	defer cancel()
	res, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, c.cut(ctx, err)
	}
	return raw, nil
}

// send sends a request once. An answer other than 2xx is an *Error.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	u := c.base.JoinPath(r.path)
	u.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	h := req.Header
	h.Set("User-Agent", c.cfg.UserAgent)
	if r.body != nil {
		h.Set("Content-Type", "application/json")
	}
	for name, value := range map[string]string{"Idempotency-Key": r.key, "Last-Event-Id": r.lastEvent} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if c.cfg.Key != "" {
		h.Set("Authorization", "Bearer "+c.cfg.Key)
	}
	if r.stream {
		h.Set("Accept", "text/event-stream")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.cut(ctx, err)
	}
	c.met.Store(true)
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	return nil, readError(res)
}

// errSilence is why a request was given up.
var errSilence = errors.New("it has been silent for too long")

// cut names a connection that failed. Its error's own text repeats the URL.
func (c *Client) cut(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.base, err)
}

// readError reads an answer that is an error, in our shape or another.
func readError(res *http.Response) error {
	const excerpt = 64 << 10
	raw, _ := io.ReadAll(io.LimitReader(res.Body, excerpt)) // what can be had
	var body struct {
		Error jsontext.Value `json:"error"`
	}
	var object struct {
		Message string     `json:"message"`
		Param   string     `json:"param"`
		Code    fault.Code `json:"code"`
	}
	e := &Error{Status: res.StatusCode, After: retryAfter(res.Header)}
	if json.Unmarshal(raw, &body) == nil && json.Unmarshal(body.Error, &object) == nil && object.Message != "" {
		e.Fault = &fault.Error{Code: object.Code, Message: object.Message, Param: object.Param, RetryAfter: e.After}
		e.Raw = body.Error
	} else {
		text := strings.Join(strings.Fields(string(raw[:min(len(raw), 200)])), " ")
		e.Fault = fault.New(fault.Internal, "the server answered %s and no error of Penstock's: %s", res.Status, text)
	}
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.Retry = true
	}
	if should, err := strconv.ParseBool(res.Header.Get("X-Should-Retry")); err == nil {
		e.Retry = should
	}
	return e
}

func retryAfter(h http.Header) time.Duration {
	if ms, err := strconv.ParseInt(h.Get("Retry-After-Ms"), 10, 64); err == nil && ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	if s, err := strconv.ParseInt(h.Get("Retry-After"), 10, 32); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	return 0
}

// again tells whether the same request may succeed later.
func (c *Client) again(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Retry
	}
	return c.met.Load() && errors.Is(err, ErrUnreachable)
}

// delay is how long to wait before the next try.
func (c *Client) delay(err error, try int) time.Duration {
	d := min(c.cfg.Backoff<<min(try-1, 10), max(maxBackoff, c.cfg.Backoff))
	if e, ok := errors.AsType[*Error](err); ok {
		d = max(d, min(e.After, maxRetryAfter))
	}
	return d
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
}
