package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// modelServer speaks Chat Completions and says of each call who made it, and for
// which job. What it says follows from the prompt alone, and it cannot go on from
// a prefix: a takeover supersedes its answers.
type modelServer struct {
	srv  *http.Server
	addr string
	wg   sync.WaitGroup

	mu    sync.Mutex
	calls []Call            // Job is the prompt yet
	jobs  map[string]string // by prompt
	open  int               // answers under way
	cut   int               // answers whose caller went away
}

// modelName is the model's, as requests name it: the server is "counted" there.
func modelName(s shape) string {
	return fmt.Sprintf("counted/tokens=%d,ttft=%s,gap=%s", s.tokens, s.ttft, s.gap)
}

// shape is that of an answer.
type shape struct {
	tokens    int
	ttft, gap time.Duration
}

func startModel(ctx context.Context) (*modelServer, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for calls of the model: %w", err)
	}
	m := &modelServer{addr: l.Addr().String(), jobs: map[string]string{}}
	m.srv = &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}
	m.wg.Go(func() { _ = m.srv.Serve(l) }) // it ends with close
	return m, nil
}

func (m *modelServer) close() {
	_ = m.srv.Close() // who is cut off is ending too
	m.wg.Wait()
}

// isOf tells which job a prompt is of, once that is known.
func (m *modelServer) isOf(prompt, job string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jobs[prompt] = job
}

// seen are the calls of known jobs.
func (m *modelServer) seen() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Call, 0, len(m.calls))
	for _, c := range m.calls {
		if id, ok := m.jobs[c.Job]; ok {
			c.Job = id
			all = append(all, c)
		}
	}
	return all
}

// ServeHTTP answers a call.
func (m *modelServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Model    string `json:"model"`
		Messages []struct {
			Content string `json:"content"`
		} `json:"messages"`
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &req)
	}
	s, ok := shapeOf(req.Model)
	if err != nil || !ok || len(req.Messages) == 0 {
		http.Error(w, fmt.Sprintf(`{"error":{"message":"not a call: %v"}}`, err), http.StatusBadRequest)
		return
	}
	prompt := req.Messages[0].Content
	m.mu.Lock()
	m.calls = append(m.calls, Call{Job: prompt, At: time.Now(), Caller: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")})
	m.open++
	m.mu.Unlock()
	whole := stream(r.Context(), w, prompt, s)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open--
	if !whole {
		m.cut++
	}
}

func shapeOf(model string) (s shape, ok bool) {
	var ttft, gap string
	if _, err := fmt.Sscanf(strings.ReplaceAll(model, ",", " "), "tokens=%d ttft=%s gap=%s", &s.tokens, &ttft, &gap); err != nil {
		return s, false
	}
	var errs [2]error
	s.ttft, errs[0] = time.ParseDuration(ttft)
	s.gap, errs[1] = time.ParseDuration(gap)
	return s, errors.Join(errs[:]...) == nil
}

// stream says an answer, and tells whether it came to its end.
func stream(ctx context.Context, w http.ResponseWriter, prompt string, s shape) bool {
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	wait := s.ttft
	for i := range s.tokens {
		pause(ctx, wait)
		wait = s.gap
		finish := "null"
		if i == s.tokens-1 {
			finish = `"stop"`
		}
		_, err := fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%q},"finish_reason":%s}]}`+"\n\n",
			word(prompt, i), finish)
		if err != nil || ctx.Err() != nil || flush.Flush() != nil {
			return false
		}
	}
	_, err := io.WriteString(w, "data: [DONE]\n\n")
	return err == nil
}

// word is the i-th of the answer to a prompt.
func word(prompt string, i int) string {
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, prompt, i) // a hash takes everything
	return fmt.Sprintf(" %x", h.Sum32())
}

// says is the whole answer to a prompt.
func says(prompt string, s shape) string {
	var b strings.Builder
	for i := range s.tokens {
		b.WriteString(word(prompt, i))
	}
	return b.String()
}
