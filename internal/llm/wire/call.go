// Package wire is what the providers that call models over HTTP share: how a
// call is made and ends, how a stream of events is read, and which fault a
// refusal becomes. It knows no provider's API.
//
// Everything happens on the caller's goroutine; a transport's own goroutines
// live as long as its connections. Nothing is retried, and no time is limited
// but by ctx. A server is believed in nothing: of each answer only so much is
// held as the constants here say.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/penstock-io/penstock/internal/llm"
)

const (
	maxErrorBytes = 64 << 10 // that are read of a refusal
	maxIdle       = 256      // connections that are kept for the next call
	dialTime      = 10 * time.Second
	idleTime      = 90 * time.Second
	// drainTime is how long a stream gets to end behind its last event, so that
	// its connection can be used again.
	drainTime = 100 * time.Millisecond
	drainMax  = 4 << 10 // bytes
)

// NewTransport makes the connections of one provider.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSHandshakeTimeout: dialTime,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        maxIdle,
		MaxIdleConnsPerHost: maxIdle, // of Go's default of 2 the rest would be dialled anew
		IdleConnTimeout:     idleTime,
		DisableCompression:  true, // compressors hold tokens back
	}
}

// Base reads a server's address. The error names the provider and shows nothing
// of the address, which may hold a password.
func Base(provider, address, example string) (*url.URL, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("%s: the server's address must be a URL such as %s, without a query", provider, example)
	}
	return base, nil
}

// errBrokenOff says that the caller wants no more.
var errBrokenOff = errors.New("broken off")

// Yield gives one chunk to whoever ranges over a call. Its error ends the call.
type Yield func(llm.Chunk) error

// Calls is an llm.Provider's sequence: each range over it is one call of run. An
// error of run's is told, as ctx's own where ctx has ended.
func Calls(ctx context.Context, run func(ctx context.Context, yield Yield) error) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		err := run(ctx, func(c llm.Chunk) error {
			if !yield(c, nil) {
				return errBrokenOff
			}
			return nil
		})
		if err == nil || errors.Is(err, errBrokenOff) {
			return
		}
		if ctx.Err() != nil {
			err = ctx.Err() // whatever the transport made of it
		}
		yield(llm.Chunk{}, err)
	}
}

// Read has read take the body of an answer, and lets go of it: with its
// connection, unless read has come to an end without an error.
func Read(res *http.Response, cancel context.CancelFunc, read func(io.Reader) error) error {
	defer res.Body.Close() //nolint:errcheck // it was read, or is given up
	if err := read(res.Body); err != nil {
		return err
	}
	defer time.AfterFunc(drainTime, cancel).Stop()
	_, _ = io.CopyN(io.Discard, res.Body, drainMax) // its error says that the connection is not kept
	return nil
}

// Head is the answer that an SDK's call got, given what it put into res and its
// error. Without an answer, and for one that is no 200, the error is a fault.
func Head(provider string, res *http.Response, err error) (*http.Response, error) {
	switch {
	case res == nil:
		return nil, unreachable(provider, err)
	case res.StatusCode != http.StatusOK:
		defer res.Body.Close() //nolint:errcheck // a refusal's, read
		return nil, refusal(provider, res)
	case err != nil:
		_ = res.Body.Close()
		return nil, unreachable(provider, err)
	}
	return res, nil
}

// BoundRefusal is a middleware for the SDKs: it bounds what they read of a
// refusal, which is all of it.
func BoundRefusal(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	res, err := next(req)
	if err == nil && res.StatusCode != http.StatusOK {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxErrorBytes), res.Body}
	}
	return res, err
}
