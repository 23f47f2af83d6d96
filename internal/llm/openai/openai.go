// Package openai calls models behind any server that speaks OpenAI's Chat
// Completions: OpenAI itself, vLLM, llama.cpp, Ollama, LiteLLM and others.
//
// The client's body goes out as it came, but for the model's name and for what
// makes the answer a stream with its usage. The official SDK makes the request;
// the answer is read here, since the SDK takes lines of 32 MB, cannot tell a
// stream that was cut off from one that ended, and fails on "error": null.
// Nothing is retried, and no time is limited but by ctx.
//
// A call is made on the caller's goroutine; the transport's own goroutines live
// as long as its connections, until Close.
package openai

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

const (
	// DefaultName is the provider's name where Config has none.
	DefaultName = "openai"
	// endpoint is the one that is served yet.
	endpoint = "/v1/chat/completions"

	maxEventBytes = 4 << 20  // of one event of a stream
	maxErrorBytes = 64 << 10 // that are read of a refusal
	maxIdle       = 256      // connections that are kept for the next call
	dialTime      = 10 * time.Second
	idleTime      = 90 * time.Second
	// drainTime is how long a stream gets to end behind its last event, so that
	// its connection can be used again.
	drainTime = 100 * time.Millisecond
	drainMax  = 4 << 10 // bytes
)

// Config says which server is called.
type Config struct {
	// Name is the provider's prefix in "provider/model"; default DefaultName.
	Name string
	// BaseURL is the server's address as OpenAI's SDKs take it, such as
	// http://127.0.0.1:8000/v1; where it has no path, /v1 is added.
	BaseURL string
	// Key is sent as a bearer token; "" sends none. OPENAI_API_KEY and the SDK's
	// other variables are never looked at: they are not for every server.
	Key string
}

// Provider calls one server. It implements llm.Provider.
type Provider struct {
	name      string
	chat      openai.ChatCompletionService
	transport *http.Transport
}

// New makes a Provider, which speaks to nobody before its first call.
func New(cfg Config) (*Provider, error) {
	if cfg.Name == "" {
		cfg.Name = DefaultName
	}
	base, err := url.Parse(cfg.BaseURL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.RawQuery != "" || base.Fragment != "" {
		// Not shown: it may hold a password.
		return nil, fmt.Errorf("%s: the server's address must be a URL such as http://127.0.0.1:8000/v1, without a query", cfg.Name)
	}
	if base.Path == "" || base.Path == "/" {
		base.Path = "/v1"
	}
	p := &Provider{name: cfg.Name, transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSHandshakeTimeout: dialTime,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        maxIdle,
		MaxIdleConnsPerHost: maxIdle, // of Go's default of 2 the rest would be dialled anew
		IdleConnTimeout:     idleTime,
		DisableCompression:  true, // compressors hold tokens back
	}}
	// Not a Client: NewClient sends what the environment has for OpenAI to whatever
	// server this is, and links 20 MB more of the SDK.
	p.chat.Options = []option.RequestOption{
		option.WithBaseURL(base.String()),
		option.WithHTTPClient(&http.Client{Transport: p.transport}),
		option.WithMaxRetries(0), // retries have one owner, and it is not the SDK
		option.WithMiddleware(boundRefusal),
	}
	if cfg.Key != "" {
		p.chat.Options = append(p.chat.Options, option.WithAPIKey(cfg.Key))
	}
	return p, nil
}

// Name implements llm.Provider.
func (p *Provider) Name() string { return p.name }

// Close lets go of idle connections. Calls may go on.
func (p *Provider) Close() { p.transport.CloseIdleConnections() }

// Stream implements llm.Provider. A server's refusal has the code that
// llm.CodeForStatus gives it; what breaks off, or is no stream, is a
// ProviderError, and what was silent for too long a ProviderTimeout.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		err := p.stream(ctx, req, yield)
		if err == nil || errors.Is(err, errBrokenOff) {
			return
		}
		if ctx.Err() != nil {
			err = ctx.Err() // whatever the transport made of it
		}
		yield(llm.Chunk{}, err)
	}
}

// errBrokenOff says that the caller wants no more.
var errBrokenOff = errors.New("broken off")

func (p *Provider) stream(ctx context.Context, req llm.Request, yield func(llm.Chunk, error) bool) error {
	if req.Endpoint != "" && req.Endpoint != endpoint {
		return fault.Param("endpoint", "endpoint %.80q is not served by %s: it must be %s", req.Endpoint, p.name, endpoint)
	}
	body, err := streaming(req.Body, req.Model)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := p.post(ctx, body, req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // it was read, or is given up
	a := answer{provider: p.name, contentType: res.Header.Get("Content-Type"), events: newEvents(res.Body), yield: yield}
	if err := a.run(); err != nil {
		return err
	}
	defer time.AfterFunc(drainTime, cancel).Stop()
	_, _ = io.CopyN(io.Discard, res.Body, drainMax) // its error says that the connection is not kept
	return nil
}

// post sends a request and returns the head of its answer, which is no refusal.
func (p *Provider) post(ctx context.Context, body []byte, req llm.Request) (*http.Response, error) {
	var res *http.Response
	opts := []option.RequestOption{
		option.WithRequestBody("application/json", body),
		option.WithResponseInto(&res), // also where it is a refusal
	}
	if req.Job != "" {
		opts = append(opts, option.WithHeader("X-Client-Request-Id", req.Job+"-"+strconv.Itoa(req.Attempt)))
	}
	// The stream is ours to read: it holds nothing but res.
	err := p.chat.NewStreaming(ctx, openai.ChatCompletionNewParams{}, opts...).Err()
	switch {
	case res == nil:
		return nil, p.unreachable(err)
	case res.StatusCode != http.StatusOK:
		defer res.Body.Close() //nolint:errcheck // a refusal's, read
		return nil, p.refusal(res)
	case err != nil:
		_ = res.Body.Close()
		return nil, p.unreachable(err)
	}
	return res, nil
}

// boundRefusal bounds what the SDK reads of a refusal, which is all of it.
func boundRefusal(req *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	res, err := next(req)
	if err == nil && res.StatusCode != http.StatusOK {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxErrorBytes), res.Body}
	}
	return res, err
}
