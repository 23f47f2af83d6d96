package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// FirstChatToken makes a Trip of a model: from the beginning of a streaming
// POST /v1/chat/completions to the first piece of its answer. It reads the answer
// to its end, which the time does not count. Any server that speaks Chat
// Completions can be measured by it.
func (s *Server) FirstChatToken(model string) Trip {
	return func(ctx context.Context, n int) (time.Duration, error) {
		body := fmt.Appendf(nil, `{"model":%q,"stream":true,"messages":[{"role":"user","content":"hello, number %d"}]}`, model, n)
		begun := time.Now()
		resp, err := s.do(ctx, http.MethodPost, "/v1/chat/completions", body)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		first, err := firstContent(resp.Body)
		if err != nil {
			return 0, fmt.Errorf("bench: %s: %w", s.URL, err)
		}
		return first.Sub(begun), nil
	}
}

// firstContent reads a stream of Chat Completions to its end, and tells when the
// first chunk with text had come.
func firstContent(r io.Reader) (time.Time, error) {
	done := []byte("data: [DONE]")
	return firstLine(r, "text and [DONE]", hasContent, func(line []byte) bool { return bytes.Equal(line, done) })
}

// hasContent tells whether a chunk's delta has text, without decoding it.
func hasContent(line []byte) bool {
	_, rest, ok := bytes.Cut(line, []byte(`"content":`))
	rest = bytes.TrimLeft(rest, " ")
	return ok && bytes.HasPrefix(rest, []byte(`"`)) && !bytes.HasPrefix(rest, []byte(`""`))
}

// InstantUpstream is a model server that answers every chat at once with a
// stream of so many pieces of text: what remains of a trip through somebody who
// stands before it is theirs.
func InstantUpstream(pieces int) http.Handler {
	const head = `{"id":"chatcmpl-instant","object":"chat.completion.chunk","created":1764000000,"model":"instant","choices":[`
	var stream bytes.Buffer
	fmt.Fprintf(&stream, "data: %s"+`{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`+"\n\n", head)
	for range pieces {
		fmt.Fprintf(&stream, "data: %s"+`{"index":0,"delta":{"content":" word"},"finish_reason":null}]}`+"\n\n", head)
	}
	fmt.Fprintf(&stream, "data: %s"+`{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n", head)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // whoever asked is gone
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write(stream.Bytes()) // an asker that is gone is nobody to tell
	})
	return mux
}
