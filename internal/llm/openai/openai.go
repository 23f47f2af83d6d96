// Package openai calls models behind any server that speaks OpenAI's Chat
// Completions and Embeddings: OpenAI itself, vLLM, llama.cpp, Ollama, LiteLLM
// and others.
//
// The client's body goes out as it came, but for the model's name, for what
// makes the answer a stream with its usage, and without the member penstock,
// which is ours. The official SDK makes the request; the answer is read here,
// since the SDK takes lines of 32 MB, cannot tell a stream that was cut off from
// one that ended, and fails on "error": null. Nothing is retried, and no time is
// limited but by ctx.
//
// A call is made on the caller's goroutine; the transport's own goroutines live
// as long as its connections, until Close.
package openai

import (
	"context"
	"io"
	"iter"
	"net/http"
	"strconv"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/wire"
)

const (
	// DefaultName is the provider's name where Config has none.
	DefaultName = "openai"
	// DefaultURL is OpenAI's own server.
	DefaultURL = "https://api.openai.com/v1"
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
	name       string
	chat       openai.ChatCompletionService
	embeddings openai.EmbeddingService
	transport  *http.Transport
}

// New makes a Provider, which speaks to nobody before its first call.
func New(cfg Config) (*Provider, error) {
	if cfg.Name == "" {
		cfg.Name = DefaultName
	}
	base, err := wire.Base(cfg.Name, cfg.BaseURL, "http://127.0.0.1:8000/v1")
	if err != nil {
		return nil, err //nolint:wrapcheck // it begins with the provider's name
	}
	if base.Path == "" || base.Path == "/" {
		base.Path = "/v1"
	}
	p := &Provider{name: cfg.Name, transport: wire.NewTransport()}
	// Not a Client: NewClient sends what the environment has for OpenAI to whatever
	// server this is, and links 20 MB more of the SDK.
	opts := []option.RequestOption{
		option.WithBaseURL(base.String()),
		option.WithHTTPClient(&http.Client{Transport: p.transport}),
		option.WithMaxRetries(0), // retries have one owner, and it is not the SDK
		option.WithMiddleware(wire.BoundRefusal),
	}
	if cfg.Key != "" {
		opts = append(opts, option.WithAPIKey(cfg.Key))
	}
	p.chat.Options, p.embeddings.Options = opts, opts
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
	return wire.Calls(ctx, func(ctx context.Context, yield wire.Yield) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		switch req.Endpoint {
		case llm.ChatCompletions, "":
			return p.complete(ctx, cancel, req, yield)
		case llm.Embeddings:
			return p.embed(ctx, cancel, req, yield)
		default:
			return fault.Param("endpoint", "endpoint %.80q is not served by %s: it must be %s or %s",
				req.Endpoint, p.name, llm.ChatCompletions, llm.Embeddings)
		}
	})
}

// complete asks for a chat completion.
func (p *Provider) complete(ctx context.Context, cancel context.CancelFunc, req llm.Request, yield wire.Yield) error {
	body, err := streaming(req.Body, req.Model)
	if err != nil {
		return err
	}
	var res *http.Response
	// The stream is ours to read: it holds nothing but res.
	err = p.chat.NewStreaming(ctx, openai.ChatCompletionNewParams{}, raw(body, req, &res)...).Err()
	if res, err = wire.Head(p.name, res, err); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return wire.Read(res, cancel, func(in io.Reader) error { //nolint:wrapcheck // a fault
		a := answer{provider: p.name, header: res.Header, events: wire.NewEvents(in), yield: yield}
		return a.run()
	})
}

// raw are the options of a call whose body is given and whose answer, refusals
// too, goes into res unread.
func raw(body []byte, req llm.Request, res **http.Response) []option.RequestOption {
	opts := []option.RequestOption{
		option.WithRequestBody("application/json", body),
		option.WithResponseInto(res),
	}
	if req.Job != "" {
		opts = append(opts, option.WithHeader("X-Client-Request-Id", req.Job+"-"+strconv.Itoa(req.Attempt)))
	}
	return opts
}
