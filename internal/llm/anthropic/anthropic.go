// Package anthropic calls models behind Anthropic's Messages API. It takes a
// Chat Completions body, says the same in Messages, and turns the answer's
// events into choice deltas.
//
// What of a body has no counterpart and would change what the client gets is
// refused by name; what only tunes is ignored (see knobs in request.go). The
// official SDK's types make the request, and the SDK sends it; the answer is
// read here, for the SDK takes lines of 32 MB. Nothing is retried, and no time is
// limited but by ctx.
//
// A call is made on the caller's goroutine; the transport's own goroutines live
// as long as its connections, until Close.
package anthropic

import (
	"context"
	"io"
	"iter"
	"net/http"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/wire"
)

const (
	// Name is the provider's prefix in "provider/model".
	Name = "anthropic"
	// DefaultURL is Anthropic's own server.
	DefaultURL = "https://api.anthropic.com"
)

// Config says which server is called.
type Config struct {
	// BaseURL is the server's address as Anthropic's SDKs take it, without /v1;
	// default DefaultURL.
	BaseURL string
	// Key is sent as x-api-key; "" sends none. ANTHROPIC_API_KEY and the SDK's
	// other variables and files are never looked at.
	Key string
}

// Provider calls one server. It implements llm.Continuer.
type Provider struct {
	messages  anthropic.MessageService
	transport *http.Transport
}

var _ llm.Continuer = (*Provider)(nil)

// New makes a Provider, which speaks to nobody before its first call.
func New(cfg Config) (*Provider, error) {
	if cfg.BaseURL == "" {
		cfg.BaseURL = DefaultURL
	}
	base, err := wire.Base(Name, cfg.BaseURL, DefaultURL)
	if err != nil {
		return nil, err //nolint:wrapcheck // it begins with the provider's name
	}
	p := &Provider{transport: wire.NewTransport()}
	// Not a Client: NewClient takes what environment and files have for Anthropic.
	p.messages.Options = []option.RequestOption{
		option.WithBaseURL(base.String()),
		option.WithHTTPClient(&http.Client{Transport: p.transport}),
		option.WithMaxRetries(0), // retries have one owner, and it is not the SDK
		option.WithMiddleware(wire.BoundRefusal),
	}
	if cfg.Key != "" {
		p.messages.Options = append(p.messages.Options, option.WithAPIKey(cfg.Key))
	}
	return p, nil
}

// Name implements llm.Provider.
func (*Provider) Name() string { return Name }

// Close lets go of idle connections. Calls may go on.
func (p *Provider) Close() { p.transport.CloseIdleConnections() }

// Stream implements llm.Provider. A body that cannot be said in Messages is an
// InvalidRequest that names the field. A server's refusal has the code that
// llm.CodeForStatus gives it; what breaks off, or is no stream, is a
// ProviderError, and what was silent for too long a ProviderTimeout.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return p.Continue(ctx, req, llm.Prefix{})
}

// Continue implements llm.Continuer: the prefix is the beginning of the
// assistant's turn. Its tokens count as the prompt's, and not against the body's
// limit.
func (p *Provider) Continue(ctx context.Context, req llm.Request, prefix llm.Prefix) iter.Seq2[llm.Chunk, error] {
	return wire.Calls(ctx, func(ctx context.Context, yield wire.Yield) error {
		if req.Endpoint != "" && req.Endpoint != llm.ChatCompletions {
			return fault.Param("endpoint", "endpoint %.80q is not served by %s: it must be %s", req.Endpoint, Name, llm.ChatCompletions)
		}
		params, err := translate(req.Body, req.Model)
		if err != nil {
			return err
		}
		if prefix.Content != "" {
			params.Messages = append(params.Messages, anthropic.NewAssistantMessage(anthropic.NewTextBlock(prefix.Content)))
		}
		return p.call(ctx, params, yield)
	})
}

func (p *Provider) call(ctx context.Context, params anthropic.MessageNewParams, yield wire.Yield) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var res *http.Response
	// The stream is ours to read: it holds nothing but res.
	err := p.messages.NewStreaming(ctx, params, option.WithResponseInto(&res)).Err()
	if res, err = wire.Head(Name, res, err); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return wire.Read(res, cancel, func(in io.Reader) error { //nolint:wrapcheck // a fault
		a := answer{header: res.Header, events: wire.NewEvents(in), yield: yield, tools: map[int]*toolUse{}}
		return a.run()
	})
}
